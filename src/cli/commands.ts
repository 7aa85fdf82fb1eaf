/**
 * The table of commands: their names and their modules. A module is loaded when its command is called, or when all are to
 * be shown: a daemon does not keep the code of the other commands in memory, and each starts sooner.
 */
import type { Command } from 'commander';
import type { CliContext } from './context.ts';

type CommandMaker = (context: CliContext) => Command;

/** In the order of the help. */
const COMMANDS: Readonly<Record<string, () => Promise<CommandMaker>>> = {
  device: async () => (await import('./commands/device.ts')).deviceCommand,
  status: async () => (await import('./commands/status.ts')).statusCommand,
  set: async () => (await import('./commands/set.ts')).setCommand,
  stats: async () => (await import('./commands/stats.ts')).statsCommand,
  hint: async () => (await import('./commands/hint.ts')).hintCommand,
  request: async () => (await import('./commands/request.ts')).requestCommand,
  reclaim: async () => (await import('./commands/reclaim.ts')).reclaimCommand,
  watch: async () => (await import('./commands/watch.ts')).watchCommand,
  vm: async () => (await import('./commands/vm.ts')).vmCommand,
  receive: async () => (await import('./commands/receive.ts')).receiveCommand,
  migrate: async () => (await import('./commands/migrate.ts')).migrateCommand,
  snapshot: async () => (await import('./commands/snapshot.ts')).snapshotCommand,
  restore: async () => (await import('./commands/restore.ts')).restoreCommand,
  top: async () => (await import('./commands/top.ts')).topCommand,
  dashboard: async () => (await import('./commands/dashboard.ts')).dashboardCommand,
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommand,
  exporter: async () => (await import('./commands/exporter.ts')).exporterCommand,
  keep: async () => (await import('./commands/keep.ts')).keepCommand,
  upgrade: async () => (await import('./commands/upgrade.ts')).upgradeCommand,
  run: async () => (await import('./commands/run.ts')).runCommand,
  guest: async () => (await import('./commands/guest.ts')).guestCommand,
  policy: async () => (await import('./commands/policy.ts')).policyCommand,
  fleet: async () => (await import('./commands/fleet.ts')).fleetCommand,
  config: async () => (await import('./commands/config.ts')).configCommand,
  bench: async () => (await import('./commands/bench.ts')).benchCommand,
  demo: async () => (await import('./commands/demo.ts')).demoCommand,
  peers: async () => (await import('./commands/peers.ts')).peersCommand,
  completion: async () => (await import('./commands/completion.ts')).completionCommand,
  help: async () => (await import('./commands/help.ts')).helpCommand,
  manual: async () => (await import('./commands/completion.ts')).manualCommand,
};

/** Not shown in the help: it makes what a package has. */
export const HIDDEN_COMMAND = 'manual';

/** These say something of every command. */
const OF_ALL: readonly string[] = ['completion', 'help', 'manual'];

/** The commands that a command line needs: the one that it calls, or all. */
export async function loadCommands([called = '']: readonly string[]): Promise<CommandMaker[]> {
  const isOne = Object.hasOwn(COMMANDS, called) && !OF_ALL.includes(called);
  return await Promise.all((isOne ? [COMMANDS[called]] : Object.values(COMMANDS)).map(load => load()));
}
