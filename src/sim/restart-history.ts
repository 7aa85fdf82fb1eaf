/** Histories of a guest whose back-end dies at any boundary, one a seed, and what is told of many of them. */
import { RestartGuest } from './restart-guest.ts';
import { ViolationError } from './sim-checks.ts';

const STEPS = 40;
/** Of the seeds, one in so many has a guest whose rings have gone some laps before its back-end dies first. */
const OLD_EVERY = 4;
const OLD_TURNS_MAX = 24;

interface RestartOutcome {
  /** Where it died. */
  readonly boundaries: readonly string[];
  readonly trace: readonly string[];
  readonly failure: Error | undefined;
}

/** Lives through one history; what happens in it is the same whether it is `traced` or not. */
function liveRestarts(seed: number, traced: boolean): RestartOutcome {
  const guest = new RestartGuest(seed, traced);
  try {
    // What is said first is much, and is said alike each time.
    const early = guest.random.chance(0.15);
    if (early) guest.arm();
    guest.begin();
    if (!early) {
      if (seed % OLD_EVERY === OLD_EVERY - 1) grow(guest);
      guest.arm();
    }
    for (let step = 0; step < STEPS; step++) takeStep(guest);
    guest.rest();
    return { boundaries: guest.boundaries, trace: guest.trace, failure: undefined };
  } catch (error) {
    return { boundaries: guest.boundaries, trace: guest.trace, failure: error as Error };
  } finally {
    guest.close();
  }
}

/** Has some buffers go through each ring; rings of few entries have gone some laps then. */
function grow(guest: RestartGuest): void {
  const { random, driver } = guest;
  for (let turns = random.below(OLD_TURNS_MAX); turns > 0; turns--) {
    driver.move('inflate');
    driver.move('deflate');
    if (driver.roles.length > 2) guest.free();
    guest.act('serves all', host => {
      for (const index of driver.roles.keys()) host.serve(index);
      host.discard();
    });
    driver.collect();
  }
}

function takeStep(guest: RestartGuest): void {
  const { random, driver } = guest;
  const choice = random.below(30);
  if (choice < 5) driver.move('inflate');
  else if (choice < 9) driver.move('deflate');
  else if (choice < 13) {
    const index = random.below(driver.roles.length);
    guest.act('serves', host => host.serve(index));
  } else if (choice < 16) guest.act('discards', host => host.discard());
  else if (choice < 18) driver.collect();
  else if (choice < 28) {
    if (driver.roles.length > 2) guest.free();
  } else if (choice < 29) guest.writeActual();
  else guest.pause(random.below(driver.roles.length));
}

interface RestartsChoice {
  readonly seed: number;
  readonly seeds: number;
  /** So many end it. */
  readonly failuresMax?: number;
}

interface RestartsReport {
  readonly histories: number;
  readonly deaths: number;
  /** How often a host died where. */
  readonly boundaries: Readonly<Record<string, number>>;
  readonly failures: readonly { readonly seed: number; readonly message: string }[];
}

/** More failures tell nothing more. */
const FAILURES_MAX = 5;

export function reportRestarts(
  { seed, seeds, failuresMax = FAILURES_MAX }: RestartsChoice,
  print: (line: string) => void,
): RestartsReport {
  const failures: { seed: number; message: string }[] = [];
  const boundaries: Record<string, number> = {};
  let [histories, deaths] = [0, 0];
  for (; histories < seeds && failures.length < failuresMax; histories++) {
    const history = liveRestarts(seed + histories, false);
    deaths += history.boundaries.length;
    for (const where of history.boundaries) boundaries[where] = (boundaries[where] ?? 0) + 1;
    if (history.failure === undefined) continue;
    const { message, stack } = history.failure;
    failures.push({ seed: seed + histories, message });
    for (const line of liveRestarts(seed + histories, true).trace) print(`  ${line}`);
    print(history.failure instanceof ViolationError ? message : (stack ?? message));
    print(`Again: npm run sim -- restart --seed ${seed + histories}`);
  }
  print(`${histories} histories from seed ${seed} on, with ${deaths} deaths: ${failures.length} failed`);
  return { histories, deaths, boundaries, failures };
}
