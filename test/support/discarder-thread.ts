/** A thread of a test that discards what is pending in one account, as its script does it, and is steered by shared words. */
import { Worker } from 'node:worker_threads';
import type { PageAccount } from '../../src/device/page-account.ts';
import type { FileBacking } from '../../src/memory/file-backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';

export interface DiscarderThread {
  /** What they mean is the script's. */
  readonly words: Int32Array;
  /** Settles when the thread has ended. */
  readonly ended: Promise<unknown>;
}

/** Starts `script`, which runs the compiled code. The account's memory is a file. */
export function startDiscarder(script: URL, { pending, region }: PageAccount): DiscarderThread {
  const control = new SharedArrayBuffer(12);
  const { fd } = region.backing as FileBacking;
  const worker = new Worker(script, {
    workerData: {
      shared: pending.shared,
      units: pending.units,
      unitBytes: PAGE_SIZE,
      fd: fd.number,
      control,
    },
  });
  const ended = new Promise(resolve => worker.once('exit', resolve));
  return { words: new Int32Array(control), ended };
}
