/** `aerostat keep`: holds what guests' sessions are made of, so that they outlive the daemon that serves them. */
import { Command } from 'commander';
import { openKeeper } from '../../daemon/keeper-process.ts';
import { tellServiceManager } from '../../sys/service-manager.ts';
import { type CliContext, interrupted } from '../context.ts';
import { type LogChoice, withLog } from '../options.ts';
import { openLog } from '../serve.ts';

const EXAMPLES = `
Examples:
  aerostat keep /run/user/1000/keeper.sock
  aerostat device --keep /run/user/1000/keeper.sock --socket-path vm1.sock

It holds descriptors for one daemon and does nothing else, so it need not be started anew with the daemon. While it runs, a
daemon may end in whatever way, and the next one goes on with the same guests; when it ends, they are kept no more.`;

export function keepCommand(context: CliContext): Command {
  const command = new Command('keep')
    .description('hold the sessions of guests while their daemon is started anew')
    .argument('<socket>', 'where the daemon connects')
    .addHelpText('after', EXAMPLES)
    .action((socket: string, choice: LogChoice) => runKeep(context, socket, choice));
  return withLog(command, 'info');
}

async function runKeep(context: CliContext, path: string, choice: LogChoice): Promise<void> {
  const log = await openLog(context, choice);
  const keeper = openKeeper(path, message => log({ level: 'warn', message }));
  try {
    log({ level: 'info', message: `keeping for a daemon at ${path}` });
    tellServiceManager(context.env, 'READY=1');
    const signal = await interrupted(context.interrupt);
    log({ level: 'info', message: `ending for ${signal}` });
  } finally {
    await keeper.close();
  }
}
