/**
 * What a driver remembers of the buffers that the device has, by id, in its own memory: whatever the device writes
 * into the rings, a buffer comes back once and with no more bytes than it has room for.
 */
import { type OutstandingBuffer, type UsedBuffer, VirtqueueError } from './queue.ts';

export class OutstandingBuffers {
  readonly #tokens: Float64Array;
  /** 0 for an id that is not outstanding. */
  readonly #descriptorCounts: Uint16Array;
  readonly #writableBytes: Float64Array;
  #count = 0;

  constructor(size: number) {
    this.#tokens = new Float64Array(size);
    this.#descriptorCounts = new Uint16Array(size);
    this.#writableBytes = new Float64Array(size);
  }

  get count(): number {
    return this.#count;
  }

  add(id: number, token: number, descriptorCount: number, writableBytes: number): void {
    this.#tokens[id] = token;
    this.#descriptorCounts[id] = descriptorCount;
    this.#writableBytes[id] = writableBytes;
    this.#count++;
  }

  /** Buffers as {@link toArray} gave them. Returns how many descriptors they have. */
  restore(buffers: readonly OutstandingBuffer[]): number {
    let descriptors = 0;
    for (const { id, token, descriptorCount, writableBytes } of buffers) {
      this.add(id, token, descriptorCount, writableBytes);
      descriptors += descriptorCount;
    }
    return descriptors;
  }

  /** @throws VirtqueueError when the device does not have such a buffer */
  require(id: number): void {
    if (id < this.#descriptorCounts.length && this.#descriptorCounts[id] !== 0) return;
    throw new VirtqueueError(`the device returned buffer ${id}, which it does not have`);
  }

  /**
   * Takes out a buffer that is there and describes it in `used`. Returns its number of descriptors. Where the device
   * claims to have written more than it could, as old ones did, the driver is told what it could.
   */
  remove(id: number, written: number, used: UsedBuffer): number {
    const descriptorCount = this.#descriptorCounts[id];
    used.token = this.#tokens[id];
    used.written = Math.min(written, this.#writableBytes[id]);
    this.#descriptorCounts[id] = 0;
    this.#count--;
    return descriptorCount;
  }

  clear(visit: (token: number) => void): void {
    for (const { token } of this.toArray()) visit(token);
    this.#descriptorCounts.fill(0);
    this.#count = 0;
  }

  toArray(): OutstandingBuffer[] {
    const buffers: OutstandingBuffer[] = [];
    this.#descriptorCounts.forEach((descriptorCount, id) => {
      if (descriptorCount === 0) return;
      buffers.push({
        id,
        token: this.#tokens[id],
        descriptorCount,
        writableBytes: this.#writableBytes[id],
      });
    });
    return buffers;
  }
}
