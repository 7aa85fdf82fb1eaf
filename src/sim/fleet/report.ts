/** Planners compared on one fleet, in a table for people, for documents and for programs. */
import { Random } from '../../guest/random.ts';
import { GIB } from '../../policy/units.ts';
import { PLANNERS, type Planner } from './planners.ts';
import { type FleetOutcome, liveFleet } from './run.ts';
import { type FleetSize, makeFleetTrace } from './trace.ts';

interface FleetChoice extends FleetSize {
  readonly seed: number;
}

interface FleetReport extends FleetChoice {
  readonly rows: readonly ({ readonly planner: string } & Omit<FleetOutcome, 'broken' | 'trace'>)[];
  /** Rules that ours broke; others are not held to them, and theirs are counted. */
  readonly failures: readonly { readonly message: string; readonly command: string }[];
}

export function reportFleet(
  choice: FleetChoice,
  print: (line: string) => void,
  planners: Readonly<Record<string, Planner>> = PLANNERS,
): FleetReport {
  const { seed, hosts, guests, seconds } = choice;
  const command = `npm run sim -- fleet --hosts ${hosts} --guests ${guests} --seconds ${seconds} --seed ${seed}`;
  const failures: { message: string; command: string }[] = [];
  const rows = Object.entries(planners).map(([planner, decide]) => {
    const fleetTrace = makeFleetTrace(choice, new Random(seed).split('fleet'));
    const { broken, trace, ...outcome } = liveFleet(fleetTrace, decide, seed);
    if (planner === 'ours' && broken.length > 0) {
      for (const line of trace) print(`  ${line}`);
      for (const message of broken) {
        print(message);
        failures.push({ message, command });
      }
      print(`Again: ${command}`);
    }
    return { planner, ...outcome };
  });
  return { ...choice, rows, failures };
}

export function fleetTable({ rows }: FleetReport): string {
  const lines = rows.map(row =>
    [
      row.planner,
      String(Math.round(row.overcommittedHostS)),
      String(row.kills),
      String(row.moves),
      (row.sentBytes / GIB).toFixed(0),
      String(row.pingPongs),
      String(row.failedMoves),
      String(row.rulesBroken),
    ].join(' | '),
  );
  const head =
    '| planner | host-seconds overcommitted | kills | moves | GiB sent | back within 15 min | moves that failed | rules broken |';
  return [head, '|---|---|---|---|---|---|---|---|', ...lines.map(line => `| ${line} |`)].join('\n');
}
