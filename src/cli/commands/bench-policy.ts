/** `aerostat bench policy`: memory policies side by side, in virtual time. */
import { Command, Option } from 'commander';
import { ownCommandLine } from '../../sys/own-program.ts';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { each, list, withVerbose } from '../options.ts';
import { guestCommandLine } from '../processes.ts';

const EXAMPLES = `
Examples:
  aerostat bench policy
  aerostat bench policy --traces burst,database --policies aerostat,Proxmox
  aerostat bench policy --seed 7 --json policy.json --report policy.html
  aerostat bench policy --real embedded,linux
  aerostat bench policy --trace night.jsonl
  aerostat bench policy --real embedded --traces burst

The same seed gives the same figures, but for what decisions cost. docs/policy.md has the tables of seed 1, and says what
the model is and is not. The table has sums over traces; of up to three traces it has each. Reports have all.

--real holds the model to reality: short traces are played on real guests under the policy as it runs, and in the model with
what was measured of these guests before. That takes half a minute for each trace.`;

interface PolicyChoice extends BenchChoice {
  readonly seed: number;
  readonly policies?: readonly string[];
  readonly traces?: readonly string[];
  readonly trace?: readonly string[];
  readonly real?: readonly string[];
}

export function policyBenchCommand(context: CliContext): Command {
  const command = new Command('policy')
    .description("our memory policy beside other projects', on hosts and guests in virtual time")
    .addOption(new Option('--seed <number>', 'of the traces').argParser(wholeNumber).default(1))
    .option('--policies <list>', 'which of them (default: all)', list)
    .option('--traces <list>', 'what happens to host and guests (default: all)', list)
    .addOption(
      new Option('--trace <file>', 'what happens is in this file; may be given several times')
        .argParser(each)
        .conflicts(['traces', 'real']),
    )
    .addOption(
      new Option(
        '--real <kinds>',
        'play traces on real guests, embedded or linux, and compare the model with that',
      )
        .argParser(list)
        .conflicts(['policies', 'report', 'trace']),
    )
    .option('--report <file>', 'write an HTML report, and its charts as SVG beside it')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: PolicyChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: PolicyChoice, self: Command): Promise<void> {
  if (choice.real !== undefined) return real(context, choice, self);
  const { benchPolicy, POLICY_CHARTS, POLICY_NAMES, shownOf, TRACE_NAMES } = await import(
    '../../bench/policy/policy.ts'
  );
  const traces = pick('trace', choice.traces, TRACE_NAMES) ?? TRACE_NAMES;
  const options = {
    seed: choice.seed,
    policies: pick('policy', choice.policies, POLICY_NAMES) ?? POLICY_NAMES,
    traces,
    ...(choice.trace === undefined ? {} : { files: choice.trace }),
    signal: context.interrupt,
  };
  const words = commandLine('aerostat bench policy', self);
  await measure(
    context,
    choice,
    words,
    progress => benchPolicy({ ...options, progress }),
    POLICY_CHARTS,
    measured => shownOf(measured, choice.trace?.length ?? traces.length),
  );
}

async function real(context: CliContext, choice: PolicyChoice, self: Command): Promise<void> {
  const { benchReality, REAL_KINDS, SHORT_TRACE_NAMES } = await import('../../bench/policy/real/real.ts');
  const kinds = pick('kind of real guest', choice.real, REAL_KINDS) ?? REAL_KINDS;
  if (kinds.includes('linux')) {
    const { requireLinux } = await import('../../demo/guest-choice.ts');
    requireLinux();
  }
  const traces = pick('trace of real guests', choice.traces, SHORT_TRACE_NAMES);
  const words = commandLine('aerostat bench policy', self);
  await measure(context, choice, words, progress =>
    benchReality({
      seed: choice.seed,
      kinds,
      ...(traces === undefined ? {} : { traces }),
      daemon: given => ownCommandLine('device', ...given),
      embedded: guestCommandLine,
      signal: context.interrupt,
      progress,
    }),
  );
}
