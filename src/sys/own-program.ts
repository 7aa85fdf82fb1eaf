/** How a process starts another one of this very program. */
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));

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
