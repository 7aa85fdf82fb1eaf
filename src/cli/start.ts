/**
 * Where the program begins. Guests that are kept wait for a daemon's first data-plane thread: it starts before the command
 * line is loaded.
 */
import { setFlagsFromString } from 'node:v8';
import { startDataThreadEarly } from '../hosting/early-thread.ts';

if (process.argv[2] === 'device') {
  // What it has compiled is needed days later: V8 forgets code that some collections have found unused.
  if (process.argv.includes('--standby'))
    for (const flag of ['--no-flush-bytecode', '--no-memory-reducer']) setFlagsFromString(flag);
  if (process.argv.some(word => /^--keep(=|$)/.test(word))) startDataThreadEarly();
}
void import('./main.ts');
