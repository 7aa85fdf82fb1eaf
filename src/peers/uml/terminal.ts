/**
 * A person at the guest's second console: passes keystrokes and output between two streams of ours and the
 * guest's terminal. The guest's terminal echoes, edits lines and turns ^C into a signal, as on any machine.
 */
import type { Duplex, Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

/** What a terminal sends for the end of input. */
const END_OF_TRANSMISSION = '\x04';
/** User Mode Linux 6.1 goes deaf on a terminal whose buffer (4 KiB) ran full, so pasted text is portioned. */
const PORTION_BYTES = 512;
const PORTION_INTERVAL_MS = 20;
/** A shell that starts up throws away what was typed before; the end of input is told until it is taken. */
const END_INTERVAL_MS = 500;

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

type TerminalInput = Readable & { isTTY?: boolean; setRawMode?: (raw: boolean) => unknown };
type TerminalOutput = Writable & { isTTY?: boolean; rows?: number; columns?: number };

/** Size of the terminal behind a stream; undefined when it is none, or says 0, as a serial line that was told none does. */
export const terminalSize = ({ rows = 0, columns = 0 }: TerminalOutput): TerminalSize | undefined =>
  rows === 0 || columns === 0 ? undefined : { rows, columns };

/**
 * Connects `stdin` and `stdout` to the guest's terminal until the returned function is called. Input flows
 * from the first output on, since a terminal that nothing has opened yet loses it. `onResize` hears of a new
 * size. A terminal of ours is raw meanwhile: every key is the guest's.
 */
export function connectTerminal(
  terminal: Duplex,
  stdin: TerminalInput,
  stdout: TerminalOutput,
  onResize: (size: TerminalSize) => void,
): () => void {
  let sent = Promise.resolve();
  const send = (input: Buffer) => {
    sent = sent.then(async () => {
      for (let at = 0; at < input.length && !terminal.destroyed; at += PORTION_BYTES) {
        terminal.write(input.subarray(at, at + PORTION_BYTES));
        await delay(PORTION_INTERVAL_MS);
      }
    });
  };
  const onInput = (chunk: Buffer | string) => send(Buffer.from(chunk as string));
  let ending: NodeJS.Timeout | undefined;
  const onInputEnd = () => {
    send(Buffer.from(END_OF_TRANSMISSION));
    ending = setInterval(() => send(Buffer.from(END_OF_TRANSMISSION)), END_INTERVAL_MS);
  };
  const openInput = () => {
    stdin.on('data', onInput);
    if (stdin.readableEnded) onInputEnd();
    else stdin.once('end', onInputEnd);
  };
  const show = (chunk: Buffer) => stdout.write(chunk);
  const resize = () => {
    const size = terminalSize(stdout);
    if (size !== undefined) onResize(size);
  };

  const raw = stdin.isTTY === true && stdin.setRawMode !== undefined;
  if (raw) stdin.setRawMode!(true);
  terminal.on('data', show);
  terminal.once('data', openInput);
  stdout.on('resize', resize);
  return () => {
    clearInterval(ending);
    terminal.off('data', show);
    terminal.off('data', openInput);
    stdout.off('resize', resize);
    stdin.off('data', onInput);
    stdin.off('end', onInputEnd);
    if (raw) stdin.setRawMode!(false);
    stdin.pause();
  };
}
