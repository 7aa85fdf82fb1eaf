/** `aerostat policy run` and `record`: a policy at work over guests of any kind, and what it would have to go by. */
import { Command, Option } from 'commander';
import type { CliContext } from '../context.ts';
import { each, withApi, withLog, withVerbose } from '../options.ts';
import type { GuestWords, PolicyRunChoice } from '../policy-runs.ts';

const EXAMPLES = `
Examples:
  aerostat policy run                          over the guests of the daemons that run here
  aerostat policy run --dry-run                decides and explains, and moves nothing
  aerostat policy run /run/a/api.sock /run/b/api.sock
  aerostat policy run --qmp /run/qemu/web.qmp --qmp db=/run/qemu/2.qmp
  aerostat policy run --libvirt qemu:///system --qmp-dir /run/incus
  aerostat policy run --config aerostat.toml   with settings, and guests of all kinds

Another terminal asks it: aerostat policy status, aerostat policy explain GUEST. SIGHUP reads the file of settings anew;
one with errors is refused whole, with file:line:column, and the settings before it stay in force. Targets are leases: a
policy that ends is told of by its daemons within two periods, and on-silence in the file says what becomes of the targets.
What it learned, who is on hold and what is reserved is kept in --state-dir, so that it goes on where it was.`;

const RECORD_EXAMPLES = `
Examples:
  aerostat policy record night.jsonl           until Ctrl-C, once in two seconds
  aerostat policy replay night.jsonl           what the policy would have done
A line is a sample: host and guests at one moment. Nothing is decided, and nothing moved.`;

const withGuestWords = (command: Command): Command =>
  command
    .argument('[daemons...]', 'APIs of daemons, with all of their guests (default: those that run here)')
    .option('--config <file>', 'settings and guests of this aerostat.toml (env: AEROSTAT_CONFIG)')
    .addOption(new Option('--qmp <socket>', "a guest of QEMU's: [NAME=]PATH of its monitor").argParser(each))
    .addOption(
      new Option(
        '--qmp-dir <directory>',
        "all guests of QEMU's whose monitors are in there, as they come and go",
      ).argParser(each),
    )
    .addOption(
      new Option(
        '--qmp-names <source>',
        'call guests of --qmp-dir after their sockets, or as their QEMUs do',
      ).choices(['file', 'vm']),
    )
    .addOption(
      new Option('--libvirt <uri>', 'the domains of a libvirt, as they come and go').argParser(each),
    );

export function policyRunCommand(context: CliContext): Command {
  const command = withGuestWords(new Command('run').description('steer the memory of all guests'))
    .option('--dry-run', 'decide and explain, and move nothing')
    .option('--state-dir <path>', 'where it remembers (default: aerostat in XDG_STATE_HOME)')
    .option('--api-remote', 'let --api be an address that other machines can reach')
    .addHelpText('after', EXAMPLES)
    .action(async (daemons: readonly string[], choice: PolicyRunChoice) => {
      const { servePolicy } = await import('../policy-runs.ts');
      await servePolicy(context, daemons, choice);
    });
  return withLog(withApi(command), 'info');
}

/** Not for people: a policy starts it. */
export function policyGuardCommand(_context: CliContext): Command {
  return new Command('guard')
    .description('give their memory back to guests of QEMU whose policy is silent')
    .argument('<file>', 'the heartbeat of the policy')
    .action(async (file: string) => {
      const { guardTargets } = await import('../policy-runs.ts');
      await guardTargets(file);
    });
}

export function policyRecordCommand(context: CliContext): Command {
  const command = new Command('record')
    .description('write what a policy would decide on to a file')
    .argument('<file>', 'where to; JSON lines, appended');
  return withVerbose(
    withGuestWords(command)
      .addHelpText('after', RECORD_EXAMPLES)
      .action(async (file: string, daemons: readonly string[], choice: GuestWords) => {
        const { recordSamples } = await import('../policy-runs.ts');
        await recordSamples(context, file, daemons, choice);
      }),
  );
}
