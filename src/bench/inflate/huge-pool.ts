/**
 * The host's pool of huge pages, raised for a measurement and put back after it, also when the process that asked for it is
 * killed: what puts it back is a process of its own, that waits for this one to let go of a pipe.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { AerostatError } from '../../sys/error.ts';
import { HUGE_PAGE_BYTES, HUGE_PAGE_POOL } from './backings.ts';

const SIZE = `${HUGE_PAGE_POOL}/nr_hugepages`;

/**
 * Takes out what was put in, of which it hears, and not what is in the pool beside: others may have raised it meanwhile, or
 * put it back.
 */
const PUT_BACK =
  'added=$(cat); test -n "$added" || added=$1; left=$(($(cat "$2") - added)); echo $((left > 0 ? left : 0)) > "$2"';

/**
 * Raises the pool so that `bytes` are free in it; what comes back takes them out again.
 * @throws AerostatError AEROSTAT_BENCH where that may not be done, or the host has not as much memory in huge pages
 */
export async function raisePool(bytes: number): Promise<() => Promise<void>> {
  const read = (name: string): number => Number(readFileSync(`${HUGE_PAGE_POOL}/${name}`, 'latin1'));
  const pages = Math.ceil(bytes / HUGE_PAGE_BYTES);
  try {
    const missing = pages - read('free_hugepages');
    if (missing <= 0) return async () => {};
    const before = read('nr_hugepages');
    const keeper = spawn('sh', ['-c', PUT_BACK, 'sh', String(missing), SIZE], {
      stdio: ['pipe', 'ignore', 'ignore'],
      // Ctrl-C is not for it.
      detached: true,
    });
    const exited = once(keeper, 'exit');
    await once(keeper, 'spawn');
    const putBack = async (): Promise<void> => {
      keeper.stdin.end();
      await exited;
    };
    try {
      writeFileSync(SIZE, String(before + missing));
      keeper.stdin.write(String(read('nr_hugepages') - before));
      if (read('free_hugepages') >= pages) return putBack;
    } catch (error) {
      await putBack();
      throw error;
    }
    await putBack();
    throw new Error(`the host has no ${pages} huge pages`);
  } catch (error) {
    throw new AerostatError(
      'AEROSTAT_BENCH',
      `the pool of huge pages cannot be raised: ${(error as Error).message}`,
      { cause: error },
    );
  }
}
