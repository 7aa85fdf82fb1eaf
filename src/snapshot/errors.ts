/** How snapshots fail: one that could not be written, and a file that cannot be restored. */
import { AerostatError } from '../sys/error.ts';

/** No snapshot was written; the guest runs on. */
export class SnapshotError extends AerostatError {
  constructor(why: string, options?: ErrorOptions) {
    super('AEROSTAT_SNAPSHOT', `no snapshot was written, and the guest runs on: ${why}`, options);
  }
}

/** The snapshot was called off; the guest runs on, and nothing of the file is left. */
export class SnapshotCancelled extends AerostatError {
  constructor() {
    super('AEROSTAT_SNAPSHOT_CANCELLED', 'the snapshot was called off; nothing of it is left');
  }
}

/** A file that is no snapshot, or not one that can be restored. */
export class SnapshotFileError extends AerostatError {
  constructor(path: string, why: string, options?: ErrorOptions) {
    super('AEROSTAT_SNAPSHOT_FILE', `${path} cannot be restored: ${why}`, options);
  }
}

/** What the kernel says of a file, in words for a person. */
export function whyNot(path: string, error: unknown): string {
  const code = (error as { code?: string }).code ?? '';
  const words: Record<string, string> = {
    ENOSPC: `there is no room left on the disk of ${path}; make room, give a file elsewhere, or give --compress`,
    EDQUOT: `the quota of the disk of ${path} is used up; make room, or give a file elsewhere`,
    ENOENT: `there is no ${path}`,
    ENOTDIR: `a part of ${path} is no directory`,
    EACCES: `${path} may not be opened by this user`,
    EPERM: `${path} may not be changed by this user`,
    EROFS: `the disk of ${path} cannot be written to`,
    EISDIR: `${path} is a directory`,
    EFBIG: `the file system of ${path} takes no file that large`,
    EIO: `the disk of ${path} does not work`,
    ENAMETOOLONG: `the name of ${path} is too long`,
  };
  return words[code] ?? `${path}: ${error instanceof Error ? error.message : String(error)}`;
}
