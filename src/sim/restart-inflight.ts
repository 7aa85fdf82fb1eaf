/**
 * Memory in which a front-end keeps what is in flight while its guest is kept, too: what outlives each back-end of it, and
 * whether the two say the same of every ring, at whichever moment a back-end died.
 */
import { RING_LOGS_AT } from '../keeping/guest-file.ts';
import { FileBacking } from '../memory/file-backing.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { inflightRegionBytes, SPLIT_REGION } from '../vhost-user/inflight-layout.ts';
import { recoverPacked } from '../vhost-user/packed-inflight.ts';
import { INFLIGHT_AREA } from '../vhost-user/protocol.ts';
import { RingPlace } from '../vhost-user/ring-place.ts';
import { recoverSplit } from '../vhost-user/split-inflight.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import type { QueueConfig } from '../virtio/queue.ts';
import { RING_LOG_BYTES, RingLog } from '../virtio/ring-log.ts';
import { stateFromVringBase } from '../virtio/vring-base.ts';
import type { SimBacking } from './sim-backing.ts';
import { ViolationError } from './sim-checks.ts';

/** Rings and lists lie below it, and all that a back-end writes into guest memory. */
export const WRITTEN_BYTES = 20 * 4096;

/** Where the two are that are held against each other. */
interface KeptPlaces {
  /** What is kept of the guest. */
  readonly file: Uint8Array<ArrayBuffer>;
  readonly backing: SimBacking;
}

export class SimInflight {
  readonly #backing: FileBacking;
  readonly #size: number;
  readonly #configs: readonly QueueConfig[];

  /** The back-end's reply to GET_INFLIGHT_FD, and the descriptor that came with it, of which it takes ownership. */
  constructor(reply: DataView, fd: OwnedFd | undefined, configs: readonly QueueConfig[]) {
    const { size, offset } = INFLIGHT_AREA.read(reply);
    if (fd === undefined)
      throw new ViolationError('memory for what is in flight came without its descriptor');
    this.#backing = new FileBacking(fd, offset, size, { partialPage: true });
    this.#size = size;
    this.#configs = configs;
  }

  /** What gives it to a back-end; the descriptor is its receiver's. */
  get given(): { readonly payload: Uint8Array; readonly fd: OwnedFd } {
    const [{ size: queueSize }] = this.#configs;
    const area = { size: this.#size, offset: 0, queues: this.#configs.length, queueSize };
    return { payload: INFLIGHT_AREA.encode(area), fd: this.#backing.fd.duplicate() };
  }

  get bytes(): Uint8Array {
    return this.#backing.window(0).u8;
  }

  /** Looks at each ring as a back-end would that knows one of the two; nothing is changed by it. */
  check(world: KeptPlaces, memory: GuestMemory): void {
    for (const [index, config] of this.#configs.entries()) {
      const bytes = inflightRegionBytes(hasFeature(config.features, RING_PACKED), config.size);
      const region = this.bytes.slice(index * bytes, (index + 1) * bytes);
      const view = new DataView(region.buffer);
      // A ring that never began.
      if (SPLIT_REGION.read(view).version === 0) continue;
      const noted = placeOf(world, () => noteOf(view, config, memory));
      const kept = placeOf(world, () => keptOf(world, index, config, memory));
      if (noted === kept) continue;
      throw new ViolationError(
        `ring ${index} stands at ${noted} by what is in flight, and at ${kept} by what is kept`,
      );
    }
  }

  close(): void {
    this.#backing.close();
  }
}

function noteOf(region: DataView, config: QueueConfig, memory: GuestMemory): number {
  const packed = hasFeature(config.features, RING_PACKED);
  return (packed ? recoverPacked : recoverSplit)(region, config, memory).nextUsed;
}

function keptOf(world: KeptPlaces, index: number, config: QueueConfig, memory: GuestMemory): number {
  const log = new RingLog(new DataView(world.file.buffer), RING_LOGS_AT + index * RING_LOG_BYTES);
  const { base } = RingPlace.unreturned(config, memory, log);
  return stateFromVringBase(memory, config, base).nextUsed;
}

/** The place, and what guest memory is when it is found: a descriptor that is half written is put right. */
function placeOf({ backing }: KeptPlaces, find: () => number): string {
  const memory = backing.window().u8;
  const before = memory.slice(0, WRITTEN_BYTES);
  try {
    const place = find();
    let sum = 0;
    for (let at = 0; at < WRITTEN_BYTES; at++) sum = (Math.imul(sum, 31) + memory[at]) | 0;
    return `${place} (memory ${sum >>> 0})`;
  } finally {
    memory.set(before);
  }
}
