/**
 * A snapshot's file as the source of a migration: read from its beginning to its end, each section judged as one that
 * came over a network, and the guest run only when all of it was there. The file is hostile until then.
 */

import { type FileHandle, open } from 'node:fs/promises';
import type { ByteChannel, ByteTaker } from '../migration/byte-channel.ts';
import { MigrationDestination } from '../migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../migration/destination-link.ts';
import type { DestinationOptions } from '../migration/destination-shapes.ts';
import { FEATURES_HERE } from '../migration/features.ts';
import type { Hello } from '../migration/stream/messages.ts';
import { StreamError } from '../migration/stream/section.ts';
import { deferred } from '../sys/deferred.ts';
import { SnapshotFileError, whyNot } from './errors.ts';
import { decodeHeader, HeaderRefused, SNAPSHOT_HEADER_BYTES, type SnapshotHeader } from './header.ts';

/** Read at once. */
const CHUNK_BYTES = 2 ** 20;

/** Where the bytes of a snapshot come from. */
export interface SnapshotBytes {
  /** Fills `into` from where the last call ended; returns how many bytes that were, 0 at the end. */
  read(into: Uint8Array): Promise<number>;
}

interface RestoreOptions extends Omit<DestinationOptions, 'observer'> {
  /** For words. */
  readonly path: string;
  readonly signal?: AbortSignal;
  /** Bytes of the file that were read so far. */
  readonly onRead?: (bytes: number) => void;
}

/** A snapshot's file, open, whose header was read. */
export class OpenSnapshot implements SnapshotBytes {
  readonly path: string;
  readonly header: SnapshotHeader;
  /** Bytes of the file. */
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, size: number, header: SnapshotHeader) {
    this.path = path;
    this.#handle = handle;
    this.size = size;
    this.header = header;
  }

  /** @throws SnapshotFileError when it cannot be read, or is no snapshot */
  static async open(path: string): Promise<OpenSnapshot> {
    let handle: FileHandle;
    try {
      handle = await open(path, 'r');
    } catch (error) {
      throw new SnapshotFileError(path, whyNot(path, error), { cause: error });
    }
    try {
      const status = await handle.stat();
      // A pipe would be waited for, and a device has no end.
      if (!status.isFile()) throw new HeaderRefused('it is no file; give one that aerostat snapshot wrote');
      const bytes = new Uint8Array(SNAPSHOT_HEADER_BYTES);
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, null);
      return new OpenSnapshot(path, handle, status.size, decodeHeader(bytes.subarray(0, bytesRead)));
    } catch (error) {
      await handle.close();
      if (error instanceof HeaderRefused) throw new SnapshotFileError(path, error.message);
      throw new SnapshotFileError(path, whyNot(path, error), { cause: error });
    }
  }

  async read(into: Uint8Array): Promise<number> {
    return (await this.#handle.read(into, 0, into.length, null)).bytesRead;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/**
 * Reads all of it and runs the guest.
 * @throws SnapshotFileError when it is damaged, cut short or not whole, or what the machine throws; the machine is
 *   abandoned then
 */
export async function restoreSnapshot(
  header: SnapshotHeader,
  bytes: SnapshotBytes,
  options: RestoreOptions,
): Promise<void> {
  const { path, signal } = options;
  const destination = new MigrationDestination(options);
  const channel = new FileChannel();
  let failure: Error | undefined;
  let ended = false;
  let take: (message: DestinationMessage) => void = () => {};
  const link = new DestinationLink(channel, message => {
    failure ??= refusalInFile(message, header);
    if (failure !== undefined) channel.destroy();
    if (failure !== undefined || message.kind === 'closed') return;
    if (message.kind === 'memory') channel.holdUntilAnswered();
    if (message.kind === 'end') ended = true;
    take(message);
  });
  take = destination.accept(link);
  try {
    await channel.feed(bytes, options);
    if (failure !== undefined) throw failure;
    signal?.throwIfAborted();
    if (!ended && destination.phase !== 'failed') throw new StreamError('truncated', 'its end is missing');
  } catch (error) {
    destination.cancel('it could not be read');
    await destination.outcome.catch(() => {});
    throw signal?.aborted ? signal.reason : inWords(path, error as Error);
  }
  // Its states are being read; no other process has the guest, so there is nothing to wait for after that.
  await channel.answered(() => destination.phase !== 'loading' && destination.phase !== 'receiving');
  if (destination.phase === 'ready') take({ kind: 'go' });
  await destination.outcome.catch(error => {
    throw inWords(path, error as Error);
  });
}

/** What a stream may be that comes over a network, and a snapshot's may not. */
export function refusalInFile(message: DestinationMessage, header: SnapshotHeader): Error | undefined {
  if (message.kind === 'closed') return message.error;
  if (message.kind === 'go' || message.kind === 'cancel') {
    return new StreamError('order', `it goes on with ${message.kind} after its end`);
  }
  return message.kind === 'hello' ? refusalOfHello(message.hello, header) : undefined;
}

function refusalOfHello({ id, purpose, connections, features }: Hello, header: SnapshotHeader) {
  if (Buffer.compare(id, header.id) !== 0) return new StreamError('order', 'it is made of two snapshots');
  if (purpose !== 'migrate' || connections !== 1) {
    return new StreamError('order', 'its stream is not that of a snapshot');
  }
  if ((features & ~FEATURES_HERE) === 0) return undefined;
  return new HeaderRefused(
    'it is compressed, and neither this Node nor this host has zstd; install libzstd.so.1 (libzstd1 on Debian and Ubuntu, libzstd elsewhere)',
  );
}

/** What the stream's rules are called when they are broken by a file. */
function inWords(path: string, error: Error): Error {
  if (error instanceof HeaderRefused) return new SnapshotFileError(path, error.message);
  if (error instanceof StreamError) {
    const why = error.fault === 'truncated' ? 'it is cut short' : `it is damaged (${error.detail})`;
    const remedy = 'restore another copy of it, or take a new snapshot';
    return new SnapshotFileError(path, `${why}; ${remedy}`, { cause: error });
  }
  return error;
}

/** The file as a connection: its bytes come one way, and what is answered only says when the next may come. */
class FileChannel implements ByteChannel {
  #taker: ByteTaker | undefined;
  #over = false;
  #held = false;
  #change = deferred();

  /** Nothing more is given out until there is an answer. */
  holdUntilAnswered(): void {
    this.#held = true;
  }

  async feed(bytes: SnapshotBytes, { path, signal, onRead }: RestoreOptions): Promise<void> {
    const chunk = new Uint8Array(CHUNK_BYTES);
    let total = 0;
    while (!this.#over && !signal?.aborted) {
      const count = await bytes.read(chunk).catch(error => {
        throw new SnapshotFileError(path, whyNot(path, error), { cause: error });
      });
      if (count === 0) break;
      await this.#give(chunk.subarray(0, count));
      total += count;
      onRead?.(total);
    }
    if (!this.#over && !signal?.aborted) this.#taker?.closed();
  }

  async #give(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length && !this.#over; ) {
      await this.answered(() => !this.#held);
      const { direct } = this.#taker ?? {};
      const part = chunk.subarray(at, at + (direct?.space.length ?? 0));
      if (part.length === 0) return;
      direct?.space.set(part);
      direct?.filled(part.length);
      at += part.length;
    }
  }

  /** Resolves when `judge` says so, which is asked at each answer, or when the connection is over. */
  async answered(judge: () => boolean): Promise<void> {
    while (!this.#over && !judge()) await this.#change.promise;
  }

  async write(): Promise<void> {
    this.#held = false;
    this.#tell();
  }

  listen(taker: ByteTaker): void {
    this.#taker = taker;
  }

  close(): void {
    this.destroy();
  }

  destroy(): void {
    this.#over = true;
    this.#tell();
  }

  #tell(): void {
    const { resolve } = this.#change;
    this.#change = deferred();
    resolve();
  }
}
