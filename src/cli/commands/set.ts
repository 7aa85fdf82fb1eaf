/** `aerostat set`: how much memory guests have, and how what they give away is taken. */
import { Command, Option } from 'commander';
import {
  DISCARD_MODES,
  type DiscardMode,
  type GuestChanges,
  type GuestStatus,
} from '../../control/contract.ts';
import { UnconfirmedError } from '../../control/errors.ts';
import { incompleteWords, needsForce } from '../../control/judgement.ts';
import { POLL_INTERVAL_MS_MAX, TARGET_BYTES_MAX } from '../../control/limits.ts';
import { spareOf } from '../../control/memory-use.ts';
import type { GuestControl } from '../../control/operations.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, guestNames, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { targetBar } from '../progress.ts';
import { formatSize } from '../size.ts';
import { isRelative, type TargetWords, targetOf, targetOption, type Wish } from '../target-words.ts';
import { UsageError } from '../usage.ts';
import { notReached, type Waited, waitForTarget } from '../wait.ts';

const EXAMPLES = `
Examples:
  aerostat set vm1 --balloon 2G             take 2 GiB from the guest
  aerostat set vm1 --memory 1.5G --wait     leave it 1.5 GiB; return when it is so
  aerostat set vm1 vm2 --balloon +512M      take 512 MiB more from each (-512M gives them back)
  aerostat set 'web-*' --balloon 1G --all-or-none
                                            of all whose names fit; where one cannot, none does
  aerostat set vm1 --memory 50% --dry-run   what it would be; nothing changes
  aerostat set vm1 --balloon 0              give everything back
  aerostat set vm1 --poll-interval 5s       ask for statistics every 5 seconds
  aerostat set web --memory 2G --persist --libvirt qemu:///system
                                            also in the definition of the domain

A target above the guest's memory is refused; one above what the guest says that it can spare is, too, unless --force
says that it is meant. With --wait it ends with code 4 if the target was not reached in time; the guest goes on towards
it. Of several guests each is told of, and the code is that of those that failed.`;

interface SetChoice extends GuestsChoice {
  readonly balloon?: TargetWords;
  readonly memory?: TargetWords;
  readonly discard?: DiscardMode;
  readonly pollInterval?: number;
  readonly force?: boolean;
  readonly persist?: boolean;
  readonly dryRun?: boolean;
  readonly allOrNone?: boolean;
  readonly wait?: boolean;
  readonly timeout: number;
}

export function setCommand(context: CliContext): Command {
  const command = new Command('set')
    .description('set how much memory guests give away')
    .argument('[guest...]', 'names and patterns such as web-*; may be left out where there is only one')
    .addOption(
      targetOption(
        '--balloon <size>',
        'what the balloon should hold: 2G, +512M, -512M, or 50% of the memory',
        TARGET_BYTES_MAX,
      ).conflicts('memory'),
    )
    .addOption(
      targetOption(
        '--memory <size>',
        'what the guest should keep, written likewise; a size is kept when its memory changes',
      ),
    )
    .addOption(new Option('--discard <mode>', 'when its pages go back to the host').choices(DISCARD_MODES))
    .addOption(
      durationOption(
        '--poll-interval <duration>',
        'how often to ask for statistics; 0 for never',
        POLL_INTERVAL_MS_MAX,
      ),
    )
    .option('--force', 'also where the guest says that it cannot spare so much')
    .option('--persist', 'in the definition of a domain of libvirt, too, from which it is started')
    .addOption(new Option('--dry-run', 'say what would be set, and change nothing').conflicts('wait'))
    .addOption(
      new Option('--all-or-none', 'where one guest cannot be set, leave all as they are').conflicts([
        'wait',
        'discard',
        'pollInterval',
        'persist',
      ]),
    )
    .option('--wait', 'return when the target is reached and nothing is pending')
    .addOption(
      durationOption('--timeout <duration>', 'longest wait; implies --wait')
        .default(60_000, '1m')
        .implies({ wait: true }),
    )
    .addHelpText('after', EXAMPLES)
    .action(async (names: readonly string[], choice: SetChoice) => {
      const wish = wishOf(choice);
      checkChoice(names, choice, wish);
      await withGuests(context, choice, async control => {
        const guests = await guestNames(control, names);
        const withBar = guests.length === 1;
        const set = (name: string, how: SetChoice) =>
          setGuest(context, control, name, how, wish, withBar).catch(failed(name));
        const outcomes = choice.allOrNone
          ? setAllOrNone(control, guests, choice, set)
          : Promise.all(guests.map(name => set(name, choice)));
        printOutcomes(context, choice, await outcomes);
      });
    });
  return withGuestOptions(command);
}

function wishOf({ balloon, memory }: SetChoice): Wish | undefined {
  if (balloon !== undefined) return { of: 'balloon', words: balloon };
  return memory === undefined ? undefined : { of: 'memory', words: memory };
}

function checkChoice(
  names: readonly string[],
  { discard, pollInterval, wait }: SetChoice,
  wish: Wish | undefined,
): void {
  if (wish === undefined && discard === undefined && pollInterval === undefined) {
    throw new UsageError('nothing to set; give --balloon SIZE or --memory SIZE (see aerostat set --help)');
  }
  if (wait && wish === undefined) {
    throw new UsageError('--wait waits for a target; give --balloon SIZE or --memory SIZE too');
  }
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw new UsageError(`${twice} is named twice`);
}

/** What became of one guest. */
interface Outcome {
  readonly name: string;
  readonly guest: GuestStatus | null;
  /** Where a target was to be set. */
  readonly targetBytes: number | null;
  /** The target before, where it had to be known. */
  readonly beforeBytes: number | null;
  readonly waited: Waited | null;
  readonly error: AerostatError | null;
}

/** @throws AerostatError when a guest was not set as asked */
function printOutcomes(context: CliContext, choice: SetChoice, outcomes: readonly Outcome[]): void {
  const alone = outcomes.length === 1;
  const { stdout, stderr } = context;
  if (choice.json) {
    if (!alone) printJson(stdout, { guests: outcomes.map(describeJson) });
    else if (outcomes[0].guest !== null) printJson(stdout, describeJson(outcomes[0]));
  }
  const failures = outcomes.flatMap(({ error }) => (error === null ? [] : [error]));
  for (const outcome of outcomes) {
    if (outcome.error !== null && !alone)
      printLine(stderr, `aerostat: ${outcome.name}: ${outcome.error.message}`);
    else if (outcome.error === null && !choice.json) printLine(stdout, describe(outcome, choice));
  }
  if (failures.length === 0) return;
  if (alone) throw failures[0];
  throw severalFailed(failures, outcomes.length);
}

/** Ends the command with the code of what failed, where all failed alike. */
function severalFailed(failures: readonly AerostatError[], of: number): AerostatError {
  const [{ code }] = failures;
  const alike = failures.every(failure => failure.code === code);
  const message = `${failures.length} of ${of} guests were not set as asked; the lines above say why`;
  return new AerostatError(alike ? code : 'AEROSTAT_SEVERAL', message);
}

const failed =
  (name: string) =>
  (error: unknown): Outcome => {
    if (!(error instanceof AerostatError) || error.code === 'AEROSTAT_INTERRUPTED') throw error;
    return { name, guest: null, targetBytes: null, beforeBytes: null, waited: null, error };
  };

async function setGuest(
  context: CliContext,
  control: GuestControl,
  name: string,
  choice: SetChoice,
  wish: Wish | undefined,
  withBar: boolean,
): Promise<Outcome> {
  const look = choice.dryRun === true || (wish !== undefined && isRelative(wish));
  const before = look ? await control.guest(name) : null;
  const targetBytes = wish === undefined ? null : targetFor(wish, before);
  const outcome = { name, targetBytes, beforeBytes: before?.targetBytes ?? null, waited: null, error: null };
  if (choice.dryRun === true) {
    if (targetBytes !== null) await rehearse(control, before as GuestStatus, targetBytes, choice);
    return { ...outcome, guest: before };
  }
  const keepBytes = wish?.of === 'memory' && wish.words.kind === 'to' ? wish.words.bytes : null;
  const guest = await control.change(name, changesOf(choice, targetBytes, keepBytes));
  if (choice.wait !== true || targetBytes === null) return { ...outcome, guest };
  const waited = await waitWithBar(context, control, guest, targetBytes, choice.timeout, withBar);
  const error = waited.reached ? null : notReached(waited, targetBytes);
  return { ...outcome, guest: waited.guest, waited, error };
}

/** No guest is asked where one of them would refuse; where one refuses all the same, the others get their targets back. */
async function setAllOrNone(
  control: GuestControl,
  names: readonly string[],
  choice: SetChoice,
  set: (name: string, choice: SetChoice) => Promise<Outcome>,
): Promise<readonly Outcome[]> {
  const rehearsed = await Promise.all(names.map(name => set(name, { ...choice, dryRun: true })));
  if (choice.dryRun === true) return rehearsed;
  if (rehearsed.some(({ error }) => error !== null)) return rehearsed.map(leftAlone);
  const outcomes = await Promise.all(names.map(name => set(name, choice)));
  if (outcomes.every(({ error }) => error === null)) return outcomes;
  return Promise.all(
    outcomes.map(async (outcome, at) => {
      const { beforeBytes } = rehearsed[at];
      if (outcome.error !== null || beforeBytes === null) return outcome;
      await control.change(outcome.name, { targetBytes: beforeBytes, force: true });
      return leftAlone(outcome);
    }),
  );
}

/** A guest that could have been set, and was not because another could not. */
function leftAlone(outcome: Outcome): Outcome {
  if (outcome.error !== null) return outcome;
  const message = 'left as it was, for another guest could not be set (--all-or-none)';
  return { ...outcome, error: new AerostatError('AEROSTAT_SEVERAL', message) };
}

function targetFor(wish: Wish, guest: GuestStatus | null): number {
  if (guest !== null) return targetOf(wish, guest);
  // What depends on no guest is asked for at once, without a look at it.
  return wish.words.kind === 'to' ? wish.words.bytes : 0;
}

/** Refuses what the daemon would refuse, as far as it can be foreseen. */
async function rehearse(
  control: GuestControl,
  guest: GuestStatus,
  targetBytes: number,
  { force }: SetChoice,
): Promise<void> {
  const { name, memoryBytes } = guest;
  if (memoryBytes === null) return;
  if (targetBytes > memoryBytes) {
    throw new UsageError(
      `${name} has ${formatSize(memoryBytes)} of memory; its balloon cannot hold ${formatSize(targetBytes)}`,
    );
  }
  if (force === true) return;
  const sample = await control.statistics(name).catch(() => undefined);
  const doubt = needsForce(guest, { memory: memoryBytes, ...spareOf(sample) }, targetBytes);
  if (doubt !== undefined) throw new UnconfirmedError(name, targetBytes, doubt, sample?.ageMs ?? null);
}

const changesOf = (
  { discard, pollInterval, force, persist }: SetChoice,
  targetBytes: number | null,
  /** What the guest is to keep whatever memory it has or will have. */
  memoryBytes: number | null,
): GuestChanges => ({
  ...(targetBytes === null || memoryBytes !== null ? {} : { targetBytes }),
  ...(memoryBytes === null ? {} : { memoryBytes }),
  ...(force === true ? { force } : {}),
  ...defined({ discard, pollIntervalMs: pollInterval, persist }),
});

async function waitWithBar(
  context: CliContext,
  control: GuestControl,
  { name, counters }: GuestStatus,
  targetBytes: number,
  timeoutMs: number,
  withBar: boolean,
): Promise<Waited> {
  const { interrupt } = context;
  const failuresBefore = counters?.punchFailures ?? 0;
  // Bars of several guests would be drawn over each other.
  if (!withBar) return waitForTarget(control, name, { targetBytes, timeoutMs, failuresBefore, interrupt });
  const bar = await targetBar(context, name, targetBytes);
  try {
    return await waitForTarget(control, name, {
      targetBytes,
      timeoutMs,
      failuresBefore,
      interrupt,
      onProgress: bar.update,
    });
  } finally {
    bar.stop();
  }
}

function describeJson({ name, guest, targetBytes, beforeBytes, waited, error }: Outcome): object {
  const { reached = null, elapsedMs = null } = waited ?? {};
  const problem = error === null ? null : { code: error.code, message: error.message };
  return { name, guest, targetBytes, beforeBytes, reached, elapsedMs, error: problem };
}

function describe({ name, guest, targetBytes, beforeBytes, waited }: Outcome, { dryRun }: SetChoice): string {
  if (targetBytes === null) return dryRun === true ? `${name}: would be set` : `${name}: set`;
  const target = `${name}: balloon ${formatSize(targetBytes)}`;
  const before = beforeBytes === null ? '' : ` (before: ${formatSize(beforeBytes)})`;
  if (dryRun === true) return `${target} would be asked for${before}`;
  if (waited !== null) {
    // The guest did what it was asked for; the host may get less of it.
    const waiting = incompleteWords(waited.guest, formatSize);
    const rest = waiting === '' ? '' : `; ${waiting}, and the host has not got them back`;
    return `${target} reached in ${formatDuration(waited.elapsedMs)}${before}${rest}`;
  }
  return guest?.connected === true
    ? `${target} asked for${before}`
    : `${target} kept for when the guest connects${before}`;
}
