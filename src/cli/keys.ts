/** The keys of a terminal, one by one, without waiting for the end of a line. */
import type { Readable } from 'node:stream';

/** A terminal's input can be told to hand over every key at once; what is no terminal cannot, and need not. */
type TerminalInput = Readable & { setRawMode?: (raw: boolean) => unknown };

/** A character as it was typed, or one of the names below. */
export type Key = string;

const NAMES: Readonly<Record<string, Key>> = {
  '\u001b[A': 'up',
  '\u001b[B': 'down',
  '\u001bOA': 'up',
  '\u001bOB': 'down',
  '\u001b[5~': 'page-up',
  '\u001b[6~': 'page-down',
  '\u001b[H': 'home',
  '\u001b[F': 'end',
  '\u001b': 'escape',
  '\r': 'enter',
  '\n': 'enter',
  '\u007f': 'backspace',
  '\b': 'backspace',
  '\u0003': 'interrupt',
  '\u0004': 'interrupt',
};

/** An escape sequence (ECMA-48, 5.4: parameters, then a final letter), or a single character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what terminals send
const KEY = /\u001b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|[\s\S]/gu;

export function keysIn(text: string): Key[] {
  return (text.match(KEY) ?? []).map(sequence => NAMES[sequence] ?? sequence);
}

/** Calls `press` for every key until the returned function is called, which leaves the terminal as it was. */
export function readKeys(input: TerminalInput, press: (key: Key) => void): () => void {
  const read = (text: string | Buffer) => {
    for (const key of keysIn(text.toString())) press(key);
  };
  input.setRawMode?.(true);
  input.on('data', read);
  return () => {
    input.off('data', read);
    input.setRawMode?.(false);
    input.pause();
  };
}
