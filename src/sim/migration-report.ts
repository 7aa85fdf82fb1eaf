/** Many simulated migrations in a row, each with what goes wrong, and what is to be said of them. */
import { isLoss, runMigration, SIM_FAULTS, type SimFault } from './migration-run.ts';

/** More failures tell nothing more. */
const FAILURES_MAX = 5;

interface MigrationsChoice {
  /** Of the first migration; the next one has the next. */
  readonly seed: number;
  readonly seeds: number;
  /** This alone goes wrong; each in turn when left out. */
  readonly fault?: SimFault;
  /** The test switch: hints count whatever session they are of, and data must be lost. */
  readonly ignoreIds: boolean;
  /** The test switch: states that were sent ahead are patched late, and data must be lost. */
  readonly patchLate?: boolean;
  /** The test switch: stops are called off though the guest was let go, and it must run at both ends. */
  readonly goesOnLate?: boolean;
  /** Guests lie about their free pages; what they lose of their own is no failure. */
  readonly lies: boolean;
}

interface MigrationFailure {
  readonly seed: number;
  readonly fault: SimFault;
  readonly message: string;
  /** A guest that lost data, rather than something else that must not be. */
  readonly loss: boolean;
  /** Makes it happen again. */
  readonly command: string;
}

interface MigrationsReport {
  readonly migrations: number;
  /** Where guests were in the end, by what went wrong. */
  readonly ends: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly hintRaces: number;
  /** Stops that would have taken longer than they might; of migrations that came through. */
  readonly calledOff: number;
  /** Guests that lied and lost something. */
  readonly liarsLost: number;
  readonly failures: readonly MigrationFailure[];
}

export async function reportMigrations(
  { seed, seeds, fault, ignoreIds, patchLate = false, goesOnLate = false, lies }: MigrationsChoice,
  print: (line: string) => void,
): Promise<MigrationsReport> {
  const failures: MigrationFailure[] = [];
  const ends: Record<string, Record<string, number>> = {};
  let [migrations, hintRaces, liarsLost, calledOff] = [0, 0, 0, 0];
  for (; migrations < seeds && failures.length < FAILURES_MAX; migrations++) {
    const one = { seed: seed + migrations, fault: fault ?? SIM_FAULTS[migrations % SIM_FAULTS.length] };
    try {
      const { runsAt, summary, lost } = await runMigration({
        ...one,
        ignoreIds,
        patchLate,
        goesOnLate,
        lies,
      });
      const places = ends[one.fault] ?? {};
      ends[one.fault] = places;
      places[runsAt] = (places[runsAt] ?? 0) + 1;
      hintRaces += summary?.hintRaces ?? 0;
      calledOff += summary?.calledOffMs.length ?? 0;
      if (lost !== undefined) liarsLost++;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const switches = `${ignoreIds ? ' --ignore-ids' : ''}${patchLate ? ' --patch-late' : ''}${goesOnLate ? ' --goes-on-late' : ''}${lies ? ' --lies' : ''}`;
      const command = `npm run sim -- migrate --seed ${one.seed} --fault ${one.fault}${switches}`;
      failures.push({ ...one, message, loss: isLoss(error), command });
      print(`seed ${one.seed}, ${one.fault}: ${message}`);
      print(`Again: ${command}`);
    }
  }
  for (const [name, places] of Object.entries(ends)) {
    const where = Object.entries(places).map(([place, count]) => `${count} at the ${place}`);
    print(`${name.padEnd(17)} the guest ran ${where.join(', ').replace('at the nowhere', 'nowhere')}`);
  }
  const kept = lies
    ? `${liarsLost} liars lost data of their own, and nothing else was lost`
    : 'nothing was lost';
  const outcome = failures.length === 0 ? `${kept}, and no guest ran twice` : `${failures.length} failed`;
  print(
    `${migrations} ${migrations === 1 ? 'migration' : 'migrations'} from seed ${seed} on, ${hintRaces} hint races, ${calledOff} stops called off: ${outcome}`,
  );
  return { migrations, ends, hintRaces, calledOff, liarsLost, failures };
}
