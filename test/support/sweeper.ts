/**
 * Ends what a test started when the test itself is killed, by SIGKILL too: also processes in sessions of their own, which
 * are to outlive what started them and which no process group holds. They are known by a mark in their environment.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { killMarked } from './owner.ts';

const MARK = 'AEROSTAT_TEST_OF';

/**
 * Waits for the end of a pipe that nothing is written to, kills what has the mark until nothing has it any more, and
 * removes the directory. Killed processes may have started others meanwhile, so it looks again.
 */
const SWEEP = `trap '' HUP INT TERM
read -r _
passes=0
while [ "$passes" -lt 100 ]; do
  found=$(grep -lsaF -- "$1" /proc/[0-9]*/environ)
  [ -n "$found" ] || break
  for file in $found; do pid=\${file#/proc/}; kill -KILL "\${pid%/environ}" 2>/dev/null; done
  passes=$((passes + 1))
  sleep 0.05
done
rm -rf -- "$2" || rm -rf -- "$2"`;

/** A worker of a test run goes on with its tests when the run is killed: no program hears how they end. */
const endWithTheRun = () => process.exit(1);

export class Sweeper {
  /** For the processes that are to be ended with us. */
  readonly env: NodeJS.ProcessEnv;
  readonly #words: string;
  readonly #guard: ChildProcess;

  /** @param directory the test's own; its path is in the mark, and it goes with the processes */
  constructor(directory: string) {
    this.#words = `${MARK}=${directory}/`;
    this.env = { ...process.env, [MARK]: `${directory}/` };
    // In a session of its own: it is to outlive a terminal, and signals to our group. The mark is not in its environment.
    this.#guard = spawn('/bin/sh', ['-c', SWEEP, 'aerostat-sweeper', this.#words, directory], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    this.#guard.unref();
    process.once('disconnect', endWithTheRun);
    this.#guard.stdin?.on('error', () => {});
  }

  /** Ends the processes at once, and removes the directory. */
  async close(): Promise<void> {
    process.removeListener('disconnect', endWithTheRun);
    killMarked(this.#words);
    const ended = once(this.#guard, 'exit');
    this.#guard.stdin?.end();
    await ended;
  }
}
