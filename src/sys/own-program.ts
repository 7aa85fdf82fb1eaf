/** How a process starts another one of this very program, or becomes another one itself. */
import { fileURLToPath } from 'node:url';
import { check, F_SETFD, libc } from './libc.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));

const STREAMS = [0, 1, 2];

/** Another one is installed when one of them is another file: a build writes the second alone. */
export const PROGRAM_FILES: readonly string[] = [
  PROGRAM,
  fileURLToPath(new URL('../../dist/program/main.cjs', import.meta.url)),
];

/**
 * Options of Node for this program, as in its first line. Node would start four threads that compile for V8: on a host of
 * few processors they compete with the guests and with the device itself.
 */
const NODE_OPTIONS: readonly string[] = ['--v8-pool-size=1'];

/** The command line that runs this program with `words`. */
export const ownCommandLine = (...words: readonly string[]): [string, ...string[]] => [
  process.execPath,
  ...NODE_OPTIONS,
  PROGRAM,
  ...words,
];

/**
 * This process runs `file` from now on, with the same number, streams and surroundings; nothing of what it runs now is left.
 * @throws SystemError, and all is as it was
 */
export function becomeProgram(file: string, words: readonly string[]): void {
  // Node has had them closed for what it starts.
  for (const stream of STREAMS) libc.fcntl(stream, F_SETFD, 0);
  check('execv', libc.execv(file, [file, ...words, null]), file);
}
