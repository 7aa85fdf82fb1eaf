/** The command line as a whole: which commands there are, and what becomes of their errors. */
import { Command, CommanderError } from 'commander';
import { AerostatError, SystemError } from '../sys/error.ts';
import { readVersion } from '../sys/version.ts';
import { HIDDEN_COMMAND, loadCommands } from './commands.ts';
import { type CliContext, printLine } from './context.ts';
import { styleOf } from './style.ts';
import { EXIT, EXIT_MEANINGS, type ExitCode, exitCodeOf, InterruptedError } from './usage.ts';

const HELP = `
Sizes are written 512M, 1.5G or 4096 (bytes), durations 500ms, 5s or 1m.

Exit codes:
${EXIT_MEANINGS.map(([code, meaning]) => `${code.padStart(5)}  ${meaning}`).join('\n')}`;

/**
 * Runs one command line (without the program's own name) to its end.
 * Everything that a person reads of a failure is printed here.
 */
export async function runCli(words: readonly string[], context: CliContext): Promise<ExitCode> {
  const args = asDevice(words);
  // Callers of --print-capabilities may add any other word, which is ignored.
  if (args[0] === 'device' && args.includes('--print-capabilities')) {
    await (await import('./commands/device.ts')).printCapabilities(context);
    return EXIT.ok;
  }
  const verbose = args.includes('--verbose') || Boolean(context.env.AEROSTAT_DEBUG);
  try {
    await (await program(context, args)).parseAsync(args, { from: 'user' });
    return EXIT.ok;
  } catch (thrown) {
    const error = reasonOf(thrown);
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    printError(context, error, verbose);
    return exitCodeOf(error);
  }
}

/**
 * Programs that start vhost-user back-ends know one binary and no commands: they call it with --socket-path,
 * --fd or --print-capabilities alone. All of these mean `device`.
 */
function asDevice(words: readonly string[]): string[] {
  const bare = /^--(socket-path|fd|print-capabilities)(=|$)/.test(words[0] ?? '');
  return bare ? ['device', ...words] : [...words];
}

/** With the commands that `words` may call or ask about. */
async function program(context: CliContext, words: readonly string[]): Promise<Command> {
  const root = new Command('aerostat')
    .description('Virtio memory ballooning: serve, see and steer the memory of guests.')
    .version(readVersion())
    .helpCommand(false)
    .addHelpText('after', HELP);
  for (const make of await loadCommands(words)) {
    const command = make(context);
    root.addCommand(command, { hidden: command.name() === HIDDEN_COMMAND });
  }
  tame(root, context);
  return root;
}

/** Makes a command and those below it write where we say, and throw where they would end the process. */
function tame(command: Command, context: CliContext, above = ''): void {
  const { stdout, stderr } = context;
  const path = `${above}${command.name()}`;
  command.showHelpAfterError(`(see ${path} --help)`);
  command.exitOverride().configureOutput({
    writeOut: text => stdout.write(text),
    writeErr: text => stderr.write(text),
    getOutHelpWidth: () => stdout.columns || 80,
    getErrHelpWidth: () => stderr.columns || 80,
    outputError: (text, write) => write(text.replace(/^error: /, 'aerostat: ')),
  });
  for (const below of command.commands) tame(below, context, `${path} `);
}

/** Node's own timers and streams say that they were interrupted by an error of theirs, which has the reason inside. */
const reasonOf = (error: unknown): unknown =>
  error instanceof Error && error.name === 'AbortError' && error.cause instanceof InterruptedError
    ? error.cause
    : error;

/** Whether something could not be opened because too much is open already; each guest takes some descriptors. */
function isForWantOfFiles(error: unknown): boolean {
  const names = ['EMFILE', 'ENFILE'];
  if (error instanceof SystemError) return names.includes(error.errnoName);
  return error instanceof Error && 'code' in error && names.includes(String(error.code));
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function printError(context: CliContext, error: unknown, verbose: boolean): void {
  if (error instanceof InterruptedError) return;
  const { stderr } = context;
  const style = styleOf(stderr, context.env);
  const tooFewFiles = isForWantOfFiles(error);
  // A module that could not be opened is no matter of the person's.
  const isOfNode = tooFewFiles && !(error instanceof AerostatError);
  const message = isOfNode ? 'too few files may be open at once' : messageOf(error);
  const next = tooFewFiles ? '; raise the limit of open files: ulimit -n 1024 (in a unit: LimitNOFILE=)' : '';
  printLine(stderr, `${style.red('aerostat:')} ${message}${next}`);
  if (verbose && error instanceof Error) {
    printLine(stderr, style.dim(error.stack ?? ''));
    for (let cause = error.cause; cause instanceof Error; cause = cause.cause) {
      printLine(stderr, style.dim(`caused by ${cause.stack}`));
    }
  } else if (!(error instanceof AerostatError) && !tooFewFiles) {
    printLine(stderr, 'This should not happen. Run it again with --verbose and report what it prints.');
  }
}
