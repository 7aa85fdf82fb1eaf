/**
 * Closes descriptors on native threads that no other thread waits for. Closing can take as long as a foreign process likes: a file of a
 * FUSE file system asks its owner, the last descriptor of a memory file frees gigabytes, a TCP socket lingers, a pipe
 * waits for its mutex. A thread of the C library whose whole program is `close` costs some tens of microseconds.
 *
 * A descriptor's number is free again at once; what may last is the thread. {@link Shed.unfinished} says how many do,
 * for the code that has to bound them.
 */
import { libc, optionalFunction, symbolAddress } from './libc.ts';
import { Arena } from './mapping.ts';
import { monotonicMs } from './monotonic.ts';

/** Such a thread runs one system call, and perhaps a signal handler. */
const STACK_BYTES = 256 * 1024;
/** pthread_attr_t has 56 bytes on 64-bit Linux, 64 with some processors. */
const ATTRIBUTES_AT = 64;
const ATTRIBUTES_BYTES = 128;

interface Closing {
  readonly shed: Shed;
  readonly thread: number;
  readonly sinceMs: number;
}

/** Those of all sheds of this thread, the oldest first. */
let closings: Closing[] = [];

function reap(): void {
  if (closings.length > 0) closings = closings.filter(({ thread }) => tryJoin?.(thread, 0) !== 0);
}

/** Closings of this thread that have not ended yet; for leak tests. */
export function closingsUnderWay(): number {
  reap();
  return closings.length;
}

const create = optionalFunction(
  'int pthread_create(intptr_t thread, intptr_t attributes, intptr_t program, intptr_t argument)',
);
const tryJoin = optionalFunction('int pthread_tryjoin_np(uint64_t thread, intptr_t result)');
const initialize = optionalFunction('int pthread_attr_init(intptr_t attributes)');
const setStack = optionalFunction('int pthread_attr_setstacksize(intptr_t attributes, uint64_t bytes)');
const closeProgram = symbolAddress('close');

const scratch = new Arena(ATTRIBUTES_AT + ATTRIBUTES_BYTES);
const attributes = scratch.address + ATTRIBUTES_AT;
initialize?.(attributes);
setStack?.(attributes, STACK_BYTES);

export class Shed {
  /** Closes the descriptor `number`, which its owner has given up. */
  close(number: number): void {
    reap();
    const started =
      create !== undefined &&
      tryJoin !== undefined &&
      closeProgram !== 0 &&
      create(scratch.address, attributes, closeProgram, number) === 0;
    if (started) {
      const thread = Number(scratch.view.getBigUint64(0, true));
      closings.push({ shed: this, thread, sinceMs: monotonicMs() });
    } else {
      // No thread to be had: better to wait than to keep what a stranger sent.
      libc.close(number);
    }
  }

  /** Closings that have not ended yet. */
  get unfinished(): number {
    reap();
    return closings.filter(({ shed }) => shed === this).length;
  }

  /** For how long the oldest of them has lasted; 0 when there is none. */
  get oldestMs(): number {
    reap();
    const oldest = closings.find(({ shed }) => shed === this);
    return oldest === undefined ? 0 : monotonicMs() - oldest.sinceMs;
  }
}
