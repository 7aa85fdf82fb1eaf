/** `aerostat upgrade`: has the program as it is installed now take the place of a daemon, whose guests notice nothing. */
import { Command } from 'commander';
import { GUEST_TIMEOUT_MS_MAX, UPGRADE_TIMEOUT_MS } from '../../control/limits.ts';
import type { Control } from '../../control/operations.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { foundSockets } from '../daemons.ts';
import { formatDuration } from '../duration.ts';
import { type ApiChoice, connect, durationOption, withJson } from '../options.ts';

const EXAMPLES = `
Examples:
  aerostat upgrade                 after a new version was installed
  aerostat upgrade --api /run/aerostat/vm1/api.sock --timeout 10s
  kill -USR2 PID                   the same; the daemon's log says what came of it

The daemon starts the program at the path that it was started from itself, with the same words, hands its guests over one
by one, and ends when the new process serves. If that does not start, fails or is late, the daemon serves on, and this
command exits with 1. The daemon has to be kept (aerostat device --keep). Where no option says where the daemon is, those
of systemd's units are upgraded one after the other, up to the first that fails.`;

interface UpgradeChoice extends ApiChoice {
  readonly timeout: number;
  readonly json?: boolean;
}

export function upgradeCommand(context: CliContext): Command {
  const command = new Command('upgrade')
    .description('put the installed version in the place of a daemon that runs; guests notice nothing')
    .addOption(
      durationOption(
        '--timeout <duration>',
        'how long the new process may take until it serves',
        GUEST_TIMEOUT_MS_MAX,
      ).default(UPGRADE_TIMEOUT_MS, formatDuration(UPGRADE_TIMEOUT_MS)),
    )
    .addHelpText('after', EXAMPLES)
    .action((choice: UpgradeChoice) => runUpgrade(context, choice));
  return withJson(command);
}

async function runUpgrade(context: CliContext, choice: UpgradeChoice): Promise<void> {
  const sockets = foundSockets(context, choice);
  const daemons =
    sockets.length === 0 ? [connect(context, choice)] : sockets.map(api => connect(context, { api }));
  for (const daemon of daemons) await upgrade(context, choice, daemon);
}

async function upgrade({ stdout }: CliContext, choice: UpgradeChoice, daemon: Control): Promise<void> {
  const before = await daemon.daemon();
  const answer = await daemon.upgrade({ timeoutMs: choice.timeout });
  const { pid, version, guests, handOverMs } = answer;
  if (choice.json) {
    printJson(stdout, { ...answer, formerPid: before.pid, formerVersion: before.version });
    return;
  }
  const what = guests === 1 ? '1 guest' : `${guests} guests`;
  printLine(
    stdout,
    `Version ${version} serves ${what} as process ${pid}, in place of version ${before.version}, process ${before.pid}; handing over took ${Math.round(handOverMs)} ms.`,
  );
}
