/** `aerostat vm`: a machine that can move: an embedded guest and its device in one process, with an API and a console. */
import { Command, Option } from 'commander';
import { DEFAULT_PROFILE, PROFILE_NAMES, type ProfileName } from '../../balloon/profiles.ts';
import { DISCARD_MODES, type DiscardMode } from '../../control/contract.ts';
import { RING_KINDS, type RingKind } from '../../embedded/options.ts';
import { WORKLOAD_KINDS } from '../../embedded/workload-kinds.ts';
import type { WorkloadKind } from '../../guest/workloads/workload.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { defined } from '../../sys/defined.ts';
import type { CliContext } from '../context.ts';
import { checkNames } from '../guest-options.ts';
import { type MachineChoice, serveMachine, tlsOf, withTls } from '../machine.ts';
import {
  each,
  guestMemoryOption,
  list,
  numberFromZero,
  sizeOption,
  value,
  withApi,
  withLog,
} from '../options.ts';
import { openLog } from '../serve.ts';
import { parsePages } from '../size.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat vm --memory 2G --workload build              a machine, with a console
  aerostat receive --listen 127.0.0.1:4444 --api there  in another terminal: a place for it
  aerostat migrate vm tcp:127.0.0.1:4444                in a third: it moves, and goes on there

The console takes words ("help" lists them), or JSON. The machine ends with exit, with the end of its input, when it has
moved, and with Ctrl-C.`;

interface VmChoice extends MachineChoice {
  readonly name: string;
  readonly memory: number;
  readonly profile: ProfileName;
  readonly rings: RingKind;
  readonly seed: number;
  readonly workload?: readonly string[];
  readonly rate?: number;
  readonly target: number;
  readonly discard: DiscardMode;
  readonly without?: readonly string[];
  readonly dirtyLog: 'auto' | 'software' | 'kernel';
  readonly whole?: boolean;
}

export function vmCommand(context: CliContext): Command {
  const command = new Command('vm')
    .description('run a machine that can move to another host: an embedded guest and its device')
    .option('--name <name>', 'what it is called', 'vm')
    .addOption(guestMemoryOption().default(2 ** 30, '1G'))
    .addOption(
      new Option('--profile <name>', 'the ABI that both speak')
        .choices(PROFILE_NAMES)
        .default(DEFAULT_PROFILE),
    )
    .addOption(new Option('--rings <kind>', 'layout of the virtqueues').choices(RING_KINDS).default('split'))
    .addOption(
      new Option('--seed <n>', "names the guest's whole history").argParser(numberFromZero).default(1),
    )
    .option('--workload <kind[:size]>', 'build, churn, read or touch, from the start on; several times', each)
    .addOption(
      new Option('--rate <size>', 'memory that workloads use in a second, at most').argParser(
        value(parsePages),
      ),
    )
    .addOption(sizeOption('--target <size>', 'what its balloon should hold at first').default(0, '0'))
    .addOption(
      new Option('--discard <mode>', 'when its pages go back to the host')
        .choices(DISCARD_MODES)
        .default('auto'),
    )
    .option('--without <features>', 'features not to offer, for example reporting,hint', list)
    .addOption(
      new Option('--dirty-log <kind>', 'who notes which pages are written: the guest itself, or the kernel')
        .choices(['auto', 'software', 'kernel'])
        .default('auto'),
    )
    .option('--whole', 'write and check every byte of a page, not its edges alone')
    .option('--json', "print JSON: a line for each of the console's answers and events")
    .addHelpText('after', EXAMPLES)
    .action((choice: VmChoice) => runVm(context, choice));
  return withTls(withLog(withApi(command), 'warn'));
}

async function runVm(context: CliContext, choice: VmChoice): Promise<void> {
  checkNames([choice.name]);
  const workloads = (choice.workload ?? []).map(workloadOf);
  const tls = await tlsOf(choice);
  const [log, { startWarm }] = await Promise.all([openLog(context, choice), import('../../vm/warm-up.ts')]);
  const vm = await startWarm({
    name: choice.name,
    memoryBytes: choice.memory,
    profile: choice.profile,
    rings: choice.rings,
    seed: choice.seed,
    coverage: choice.whole === true ? 'whole' : 'edges',
    targetBytes: choice.target,
    discard: choice.discard,
    dirtyLog: choice.dirtyLog,
    workloads,
    log,
    ...defined({ without: choice.without }),
    ...(choice.rate === undefined ? {} : { pagesPerSecondMax: choice.rate / PAGE_SIZE }),
  });
  await serveMachine(context, choice, { vm, tls, log });
}

function workloadOf(word: string): { kind: WorkloadKind; bytes?: number } {
  const [kind, size] = word.split(':', 2);
  const known = WORKLOAD_KINDS.find(candidate => candidate === kind);
  if (known === undefined) {
    throw new UsageError(`no workload is called ${kind}; there are ${WORKLOAD_KINDS.join(', ')}`);
  }
  return { kind: known, ...(size === undefined ? {} : { bytes: parsePages(size) }) };
}
