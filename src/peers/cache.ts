/**
 * Files that are made once and kept: initramfs archives, unpacked kernels. The cache can be removed at any
 * time.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { AerostatError } from '../sys/error.ts';

/**
 * A directory that only we can write: what lies there is booted without another look. A shared /tmp is
 * where another user could have put it before us.
 */
export function cacheDirectory(): string {
  const own = process.getuid?.() ?? 0;
  const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  for (const path of [join(cacheHome, 'aerostat'), join(tmpdir(), `aerostat-${own}`)]) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const status = lstatSync(path);
      if (!status.isDirectory() || status.uid !== own) continue;
      chmodSync(path, 0o700);
      return path;
    } catch {
      // No home, or one that is read-only: the next.
    }
  }
  throw new AerostatError(
    'AEROSTAT_CACHE',
    'no directory for a cache of our own; set XDG_CACHE_HOME to one that can be written',
  );
}

/** A name beside `path` that no other process uses, for what is to take its place when it is complete. */
export const draftOf = (path: string): string => join(dirname(path), `.${randomBytes(8).toString('hex')}`);

/** Another process that reads `path` sees the whole file or none. */
export function writeAtomically(path: string, content: Uint8Array): void {
  const draft = draftOf(path);
  try {
    writeFileSync(draft, content, { mode: 0o600 });
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}
