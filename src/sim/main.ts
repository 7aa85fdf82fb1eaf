/** `npm run sim`: simulations of the whole machine, without a kernel and without chance that has no name. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { ProfileName } from '../balloon/profiles.ts';
import { fleetTable, reportFleet } from './fleet/report.ts';
import type { HintMachine } from './hint-explorer.ts';
import { HINT_ROUNDS_MAX, PAGES_MAX, RING_SLOTS_MAX } from './hint-options.ts';
import { reportHints } from './hint-report.ts';
import { reportHistories } from './history-report.ts';
import { reportMigrations } from './migration-report.ts';
import { SIM_FAULTS, type SimFault } from './migration-run.ts';
import { POSTCOPY_MISTAKES, type PostcopyMistake } from './postcopy-guest.ts';
import { reportPostcopy } from './postcopy-report.ts';
import { reportRestarts } from './restart-history.ts';
import { reportShared } from './shared-report.ts';
import { SIM_PROFILES } from './sim-plan.ts';

const between =
  (low: number, high: number) =>
  (word: string): number => {
    const value = Number(word);
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`It must be a number from ${low} to ${high}.`);
    }
    return value;
  };

interface HintChoice extends Partial<HintMachine> {
  readonly json?: boolean;
  readonly done: boolean;
}

/** One machine of the caller's choice, or those that we chose. */
function machinesOf({ pages, rounds, ringSlots, done }: HintChoice): HintMachine[] | undefined {
  if (pages === undefined && rounds === undefined && ringSlots === undefined && done) return undefined;
  return [{ pages: pages ?? 2, rounds: rounds ?? 2, ringSlots: ringSlots ?? 4, hasDone: done }];
}

function hintsCommand(): Command {
  return new Command('hints')
    .description('try every order of guest, hints and migration on a small machine, and look for lost data')
    .option('--pages <n>', `pages of the guest, up to ${PAGES_MAX}`, between(1, PAGES_MAX))
    .option('--rounds <n>', `rounds before the last, up to ${HINT_ROUNDS_MAX}`, between(1, HINT_ROUNDS_MAX))
    .option(
      '--ring-slots <n>',
      `slots of the hint queue, up to ${RING_SLOTS_MAX}`,
      between(2, RING_SLOTS_MAX),
    )
    .option('--no-done', 'profile sg, whose sessions have no DONE')
    .option('--json', 'print JSON')
    .action((choice: HintChoice) => {
      const { proved, explorations } = reportHints(
        choice.json === true ? () => {} : line => console.log(line),
        machinesOf(choice),
      );
      if (choice.json === true) console.log(JSON.stringify({ proved, explorations }, null, 2));
      process.exitCode = proved ? 0 : 1;
    });
}

function sharedCommand(): Command {
  return new Command('shared')
    .description('try every order of guest and host around a shared page allocator, and look for lost frames')
    .option('--json', 'print JSON')
    .action(({ json = false }: { json?: boolean }) => {
      const { proved, explorations } = reportShared(json ? () => {} : line => console.log(line));
      if (json) console.log(JSON.stringify({ proved, explorations }, null, 2));
      process.exitCode = proved ? 0 : 1;
    });
}

interface RunChoice {
  readonly seed: number;
  readonly seeds: number;
  readonly steps: number;
  readonly profile?: ProfileName;
  readonly handsOver?: boolean;
  readonly json?: boolean;
}

function runCommand(): Command {
  return new Command('run')
    .description(
      'live through random histories of guest, driver, device and host, with every fault that there is',
    )
    .option('--seed <n>', 'the first history', between(0, Number.MAX_SAFE_INTEGER), 1)
    .option('--seeds <n>', 'histories, one a seed', between(1, 1_000_000), 1)
    .option('--steps <n>', 'steps of each', between(1, 1_000_000), 300)
    .addOption(new Option('--profile <name>', 'this ABI alone; any else').choices(SIM_PROFILES))
    .option('--hands-over', 'the back-end hands its guest to a successor now and then')
    .option('--json', 'print JSON')
    .action(async ({ json = false, ...choice }: RunChoice) => {
      const { failures, ...summary } = await reportHistories(
        choice,
        json ? () => {} : line => console.log(line),
      );
      if (json) console.log(JSON.stringify({ ...summary, failures }, null, 2));
      process.exitCode = failures.length === 0 ? 0 : 1;
    });
}

interface MigrateChoice {
  readonly seed: number;
  readonly seeds: number;
  readonly fault?: SimFault;
  readonly ignoreIds?: boolean;
  readonly patchLate?: boolean;
  readonly goesOnLate?: boolean;
  readonly lies?: boolean;
  readonly json?: boolean;
}

function migrateCommand(): Command {
  return new Command('migrate')
    .description('move busy guests between simulated hosts, and let the worst happen')
    .option('--seed <n>', 'the first migration', between(0, Number.MAX_SAFE_INTEGER), 1)
    .option('--seeds <n>', 'migrations, one a seed', between(1, 1_000_000), 1)
    .addOption(new Option('--fault <name>', 'this alone goes wrong; any else, in turn').choices(SIM_FAULTS))
    .option('--ignore-ids', 'let hints count whatever session they are of: data must be lost then')
    .option('--patch-late', 'patch the states that were sent ahead too late: data must be lost then')
    .option('--goes-on-late', 'call stops off though the guest was let go: it must run at both ends then')
    .option('--lies', 'guests lie about their free pages, and may lose data of their own')
    .option('--json', 'print JSON')
    .action(
      async ({
        json = false,
        ignoreIds = false,
        patchLate = false,
        goesOnLate = false,
        lies = false,
        ...choice
      }: MigrateChoice) => {
        const report = await reportMigrations(
          { ...choice, ignoreIds, patchLate, goesOnLate, lies },
          json ? () => {} : line => console.log(line),
        );
        if (json) console.log(JSON.stringify(report, null, 2));
        process.exitCode = report.failures.length === 0 ? 0 : 1;
      },
    );
}

interface PostcopyChoice {
  readonly seed: number;
  readonly seeds: number;
  readonly mistake?: PostcopyMistake;
  readonly json?: boolean;
}

function postcopyCommand(): Command {
  return new Command('postcopy')
    .description('have guests run before their memory is there, and cut the network after every message')
    .option('--seed <n>', 'the first guest', between(0, Number.MAX_SAFE_INTEGER), 1)
    .option('--seeds <n>', 'guests, one a seed', between(1, 1_000_000), 1)
    .addOption(new Option('--mistake <name>', 'make this one: data must be lost').choices(POSTCOPY_MISTAKES))
    .option('--json', 'print JSON')
    .action(async ({ json = false, ...choice }: PostcopyChoice) => {
      const report = await reportPostcopy(choice, json ? () => {} : line => console.log(line));
      if (json) console.log(JSON.stringify(report, null, 2));
      process.exitCode = report.failures.length === 0 ? 0 : 1;
    });
}

function restartCommand(): Command {
  return new Command('restart')
    .description('let the daemon of a guest die at any boundary, and another go on')
    .option('--seed <n>', 'the first history', between(0, Number.MAX_SAFE_INTEGER), 1)
    .option('--seeds <n>', 'histories, one a seed', between(1, 1_000_000), 1)
    .option('--json', 'print JSON')
    .action(({ json = false, ...choice }: { seed: number; seeds: number; json?: boolean }) => {
      const report = reportRestarts(choice, json ? () => {} : line => console.log(line));
      if (json) console.log(JSON.stringify(report, null, 2));
      process.exitCode = report.failures.length === 0 ? 0 : 1;
    });
}

interface FleetChoice {
  readonly hosts: number;
  readonly guests: number;
  readonly seconds: number;
  readonly seed: number;
  readonly json?: boolean;
}

function fleetCommand(): Command {
  return new Command('fleet')
    .description(
      'place the guests of many hosts, which fail, are cut off and change their leader, in three ways',
    )
    .option('--hosts <n>', 'hosts of the fleet', between(4, 10_000), 1000)
    .option('--guests <n>', 'guests of the fleet', between(4, 1_000_000), 50_000)
    .option('--seconds <n>', 'how long it lives, in virtual time', between(10, 1_000_000), 1800)
    .option('--seed <n>', 'of the fleet and of what happens to it', between(0, Number.MAX_SAFE_INTEGER), 1)
    .option('--json', 'print JSON')
    .action(({ json = false, ...choice }: FleetChoice) => {
      const report = reportFleet(choice, json ? () => {} : line => console.log(line));
      if (json) console.log(JSON.stringify(report, null, 2));
      else {
        const { hosts, guests, seconds, seed } = choice;
        console.log(`${hosts} hosts, ${guests} guests, ${seconds} s, seed ${seed}:\n\n${fleetTable(report)}`);
      }
      process.exitCode = report.failures.length === 0 ? 0 : 1;
    });
}

const program = new Command('sim')
  .description("simulations of Aerostat's machine")
  .showHelpAfterError()
  .addCommand(runCommand(), { isDefault: true })
  .addCommand(migrateCommand())
  .addCommand(postcopyCommand())
  .addCommand(hintsCommand())
  .addCommand(sharedCommand())
  .addCommand(restartCommand())
  .addCommand(fleetCommand());

await program.parseAsync();
