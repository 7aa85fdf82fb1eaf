/**
 * A lock between processes: a file that one of them holds at a time (flock). It is free again when its holder ends,
 * in whatever way. What it protects, its users know.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { SystemError } from './error.ts';
import { koffi } from './koffi.ts';
import { errno, libc } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const EAGAIN = 11;

export interface FileLock {
  release(): void;
  /** Frees the lock and removes its file. */
  remove(): void;
}

/** Takes the lock; undefined when another holds it. The file says who does, see {@link lockHolder}. */
export function tryLock(path: string): FileLock | undefined {
  for (;;) {
    const fd = openSync(path, 'a+', 0o600);
    if (libc.flock(fd, LOCK_EX | LOCK_NB) === -1) {
      const failed = errno();
      closeSync(fd);
      if (failed === EAGAIN) return undefined;
      throw new SystemError('flock', failed, path);
    }
    // Its last holder may have removed the file that we opened before.
    if (statSync(path, { throwIfNoEntry: false })?.ino !== fstatSync(fd).ino) {
      closeSync(fd);
      continue;
    }
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`);
    let held = true;
    const release = () => {
      if (held) closeSync(fd);
      held = false;
    };
    const remove = () => {
      if (held) unlinkSync(path);
      release();
    };
    return { release, remove };
  }
}

let flock: ReturnType<ReturnType<ReturnType<typeof koffi>['load']>['func']> | undefined;

/**
 * Locks an open file until it is closed, in a thread of the pool, for a file's server may take its time. False when another
 * has it locked, and where files cannot be locked.
 */
export function lockDescriptor(fd: number): Promise<boolean> {
  flock ??= koffi().load('libc.so.6').func('int flock(int fd, int operation)');
  const { async: later } = flock;
  return new Promise(resolve => {
    later(fd, LOCK_EX | LOCK_NB, (error: unknown, result: number) => resolve(error === null && result === 0));
  });
}

/** Process id of the lock's holder, for words; undefined when it cannot be told. */
export function lockHolder(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'latin1'));
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}
