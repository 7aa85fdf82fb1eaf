/**
 * The console of an embedded guest, as a person sees it: on a terminal with a prompt, a history and line editing (Node's
 * readline), elsewhere as plain lines. What the guest says goes above the line that is being typed.
 */
import { clearLine, createInterface, cursorTo, type Interface } from 'node:readline';
import type { Readable } from 'node:stream';
import { COMMAND_NAMES } from '../embedded/commands.ts';
import type { ConsoleMessage } from '../embedded/console.ts';
import { WORKLOAD_KINDS } from '../embedded/workload-kinds.ts';
import { type CliContext, type Output, printJson, printLine } from './context.ts';
import { describeAnswer } from './guest-words.ts';
import { isScreen, styleOf } from './style.ts';

const HISTORY_LINES = 200;

interface LineEditorOptions {
  readonly input: Readable;
  readonly output: Output;
  readonly prompt: string;
  /** Ctrl-C, which a terminal that is read key by key does not turn into a signal. */
  readonly onInterrupt: () => void;
}

export class LineEditor {
  readonly lines: Interface;
  readonly #output: Output;
  /** Whether a line is being typed: the prompt is on the screen. */
  #prompted = false;

  constructor({ input, output, prompt, onInterrupt }: LineEditorOptions) {
    this.#output = output;
    this.lines = createInterface({
      input,
      output,
      prompt,
      terminal: true,
      historySize: HISTORY_LINES,
      removeHistoryDuplicates: true,
      completer: completed,
    });
    this.lines.on('line', () => {
      this.#prompted = false;
    });
    this.lines.once('close', () => {
      // The shell's prompt begins a line of its own.
      if (this.#prompted) output.write('\n');
      this.#prompted = false;
    });
    this.lines.on('SIGINT', onInterrupt);
  }

  /** Asks for the next line. */
  ask(): void {
    this.#prompted = true;
    this.lines.prompt();
  }

  /** Lets `print` write lines above the one that is being typed. */
  above(print: () => void): void {
    const typing = this.#prompted;
    if (typing) {
      cursorTo(this.#output, 0);
      clearLine(this.#output, 0);
    }
    print();
    if (typing) this.lines.prompt(true);
  }

  close(): void {
    this.lines.close();
  }
}

/** The words that may stand where the cursor is: a command, or what kind of workload is to start. */
export function completed(line: string): [completions: string[], word: string] {
  const words = line.trimStart().split(/\s+/);
  const word = words.at(-1) ?? '';
  const known = words.length === 1 ? [...COMMAND_NAMES, 'help'] : words[0] === 'start' ? WORKLOAD_KINDS : [];
  return [known.filter(candidate => candidate.startsWith(word)), word];
}

/** Where a prompt can be shown: null unless a person types at a terminal, and sees one. */
export function terminalOf({ stdin, stdout, stderr, env }: CliContext): Output | null {
  if (!(stdin as { isTTY?: boolean }).isTTY) return null;
  return [stdout, stderr].find(output => isScreen(output, env)) ?? null;
}

/** As a terminal does it on Ctrl-C: all that runs in its foreground is interrupted. */
export const interruptForeground = (): void => void process.kill(0, 'SIGINT');

export type Say = (message: ConsoleMessage) => void;

/** Shows what the guest says: as JSON on standard output, or to people, news apart from answers. */
export function sayTo(
  { stdout, stderr, env }: CliContext,
  json: boolean,
  editor?: () => LineEditor | undefined,
): Say {
  if (json) return message => void printJson(stdout, message);
  const style = styleOf(stderr, env);
  const print = (message: ConsoleMessage) => {
    if ('event' in message) printLine(stderr, style.dim(message.message));
    else if ('error' in message) printLine(stderr, `${style.red('aerostat:')} ${message.error.message}`);
    else for (const line of describeAnswer(message.answer)) printLine(stdout, line);
  };
  return message => {
    const shown = editor?.();
    if (shown === undefined) print(message);
    else shown.above(() => print(message));
  };
}
