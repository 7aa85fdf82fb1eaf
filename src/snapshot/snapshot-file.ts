/**
 * The file that a snapshot is written into: beside its name, and under it only when all of it is on the disk. What goes
 * into it is elsewhere; it is a connection of a migration on which nothing is answered.
 */
import { randomBytes } from 'node:crypto';
import { constants, rmSync } from 'node:fs';
import { type FileHandle, lstat, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ByteChannel } from '../migration/byte-channel.ts';
import { lockDescriptor } from '../sys/lock.ts';
import { SnapshotCancelled, SnapshotError, whyNot } from './errors.ts';
import { beginsLikeSnapshot } from './header.ts';

/** What a guest has in its memory is for its user alone. */
const MODE = 0o600;
const MAGIC_BYTES = 8;
/** A part that is new may be taken for one that is left, until it is locked; that does not happen so often in a row. */
const PARTS_MAX = 5;
const PART_ID_BYTES = 6;

export class SnapshotFile implements ByteChannel {
  readonly path: string;
  readonly #part: string;
  readonly #handle: FileHandle;
  #bytes = 0;
  #state: 'writing' | 'finishing' | 'done' | 'abandoned' = 'writing';
  #finishing: Promise<void> | undefined;
  /** Why nothing more is written, and how the caller hears of it that waits for the disk. */
  #failure: Error | undefined;
  #tell: (error: Error) => void = () => {};
  readonly #leave = () => rmSync(this.#part, { force: true });

  private constructor(path: string, part: string, handle: FileHandle) {
    this.path = path;
    this.#part = part;
    this.#handle = handle;
    // A process that a signal ends leaves nothing behind, either.
    process.once('exit', this.#leave);
  }

  /**
   * Opens a file beside `path`, an absolute path. What a writer that was killed has left there of that name is removed.
   * @throws SnapshotError when nothing can be written there, or something else than a snapshot would be replaced
   */
  static async create(path: string, header: Uint8Array): Promise<SnapshotFile> {
    await refuseOthers(path);
    await removeLeftParts(path);
    const { part, handle } = await openPart(path);
    const file = new SnapshotFile(path, part, handle);
    try {
      await file.write(header);
    } catch (error) {
      file.abandon();
      throw error;
    }
    return file;
  }

  /** So much is in it. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @throws SnapshotError when the disk takes no more; SnapshotCancelled */
  write(bytes: Uint8Array): Promise<void> {
    return this.#unlessFailed(this.#write(bytes));
  }

  /** A disk that hangs must not keep a caller: it hears of it when the file is given up. */
  #unlessFailed(work: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      this.#tell = reject;
      work.then(resolve, reject);
    });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    try {
      // A disk that is nearly full takes a part, and says why only when it takes nothing.
      for (let at = 0; at < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, at);
        at += bytesWritten;
        this.#bytes += bytesWritten;
      }
    } catch (error) {
      throw new SnapshotError(whyNot(this.path, error), { cause: error });
    }
  }

  /**
   * All of it is on the disk and under its name when this resolves; a file of that name is replaced.
   * @throws SnapshotError; SnapshotCancelled when it was abandoned meanwhile
   */
  finish(): Promise<void> {
    this.#finishing ??= this.#finish();
    return this.#finishing;
  }

  async #finish(): Promise<void> {
    if (this.#state === 'writing') this.#state = 'finishing';
    try {
      await this.#unlessFailed(this.#handle.sync());
      await this.#handle.close();
      if (this.#state !== 'finishing') throw new SnapshotCancelled();
      await this.#rename();
    } catch (error) {
      this.abandon();
      if (error instanceof SnapshotCancelled || error instanceof SnapshotError) throw error;
      throw new SnapshotError(whyNot(this.path, error), { cause: error });
    }
  }

  async #rename(): Promise<void> {
    // From here on it cannot be called off.
    this.#state = 'done';
    try {
      await rename(this.#part, this.path);
    } catch (error) {
      this.#leave();
      throw error;
    } finally {
      process.removeListener('exit', this.#leave);
    }
    await syncDirectory(dirname(this.path));
  }

  /** Nothing of it is left, unless it is there already. Returns whether it will not be. */
  abandon(): boolean {
    if (this.#state === 'done') return false;
    if (this.#state === 'abandoned') return true;
    this.#state = 'abandoned';
    this.#fail(new SnapshotCancelled());
    process.removeListener('exit', this.#leave);
    this.#leave();
    // Not waited for: the disk may hang.
    void this.#handle.close().catch(() => {});
    return true;
  }

  listen(): void {}

  close(): void {}

  /** The disk has taken nothing for too long. */
  destroy(): void {
    this.#fail(new SnapshotError(`the disk of ${this.path} takes nothing any more`));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#tell(this.#failure);
  }
}

/** A file beside `path` that is locked for as long as it is written, where its file system has locks. */
async function openPart(path: string): Promise<{ part: string; handle: FileHandle }> {
  for (let left = PARTS_MAX; ; ) {
    const id = randomBytes(PART_ID_BYTES).toString('hex');
    const part = join(dirname(path), `.${basename(path)}.${id}.part`);
    try {
      const handle = await open(part, 'wx', MODE);
      const locked = await lockDescriptor(handle.fd);
      left--;
      // Another writer may have looked at it before it was locked, and removed it.
      if (left === 0 || (locked && (await isThere(part)))) return { part, handle };
      await rm(part, { force: true });
      await handle.close();
    } catch (error) {
      throw new SnapshotError(whyNot(dirname(path), error), { cause: error });
    }
  }
}

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

/**
 * Removes the parts of snapshots of this name that no process writes: their lock is free. What cannot be opened or locked
 * stays, as does what begins like something else.
 */
async function removeLeftParts(path: string): Promise<void> {
  const [before, after] = [`.${basename(path)}.`, '.part'];
  const length = before.length + 2 * PART_ID_BYTES + after.length;
  // Why a directory cannot be read, the attempt to write in it says.
  const names = await readdir(dirname(path)).catch(() => []);
  for (const name of names) {
    if (name.length !== length || !name.startsWith(before) || !name.endsWith(after)) continue;
    await removeUnlessWritten(join(dirname(path), name)).catch(() => {});
  }
}

async function removeUnlessWritten(part: string): Promise<void> {
  const handle = await open(part, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (!(await handle.stat()).isFile() || !(await lockDescriptor(handle.fd))) return;
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
    if (bytesRead === 0 || beginsLikeSnapshot(buffer.subarray(0, bytesRead))) await rm(part, { force: true });
  } finally {
    await handle.close();
  }
}

/** Only a snapshot is replaced: a name that was mistyped must cost no other file. */
async function refuseOthers(path: string): Promise<void> {
  try {
    const status = await lstat(path).catch(error => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (status === undefined) return;
    if (status.isFile() && (await firstBytes(path, beginsLikeSnapshot))) return;
  } catch (error) {
    throw new SnapshotError(whyNot(path, error), { cause: error });
  }
  throw new SnapshotError(`${path} is there, and is no snapshot; remove it, or give another name`);
}

async function firstBytes(path: string, judge: (bytes: Uint8Array) => boolean): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
    return judge(buffer.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}

/** What a directory says that cannot be synced, or only by others: its names are on the disk when it likes. */
const NO_SYNC = ['EINVAL', 'ENOTSUP', 'EACCES', 'EPERM'];

/** The new name is on the disk, too. */
async function syncDirectory(path: string): Promise<void> {
  try {
    const handle = await open(path, 'r');
    await handle.sync().finally(() => handle.close());
  } catch (error) {
    if (!NO_SYNC.includes((error as { code?: string }).code ?? '')) throw error;
  }
}
