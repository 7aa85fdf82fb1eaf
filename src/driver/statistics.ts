/**
 * The statistics queue (VIRTIO 1.4, 5.5.6.3): one buffer of numbers about the guest's memory, which the host keeps and
 * returns when it wants newer ones.
 */
import {
  encodeStatistics,
  STATISTIC_BYTES,
  STATISTIC_NAMES,
  type Statistics,
} from '../balloon/statistics.ts';
import type { KernelMemory } from '../memory/kernel-memory.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import type { DriverRing } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';
import type { QueuePart } from './queue-part.ts';

/** D14: always the same tags, and all that there are: those that this guest cannot have (swap, hugetlbfs) are 0. */
function statisticsOf(kernel: KernelMemory): Statistics {
  const figures = kernel.statistics();
  return {
    swapInBytes: 0,
    swapOutBytes: 0,
    majorFaults: figures.majorFaults,
    minorFaults: figures.minorFaults,
    freeBytes: figures.freeBytes,
    totalBytes: figures.totalBytes,
    availableBytes: figures.availableBytes,
    cacheBytes: figures.cacheBytes,
    hugetlbAllocations: 0,
    hugetlbFailures: 0,
    oomKills: figures.oomKills,
    allocationStalls: figures.allocStalls,
    asyncScannedPages: figures.asyncScans,
    directScannedPages: figures.directScans,
    asyncReclaimedPages: figures.asyncReclaims,
    directReclaimedPages: figures.directReclaims,
  };
}

export class StatisticsPart implements QueuePart {
  readonly #ring: DriverRing;
  readonly #kernel: KernelMemory;
  readonly #place: Stretch;
  readonly #bytes = new Uint8Array(STATISTIC_NAMES.length * STATISTIC_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  /** The buffer is ours, because it came while the guest was about to stand still. */
  #owned = false;
  #paused = false;
  #stopped = false;

  /** @throws DriverProbeError when the guest has no memory for the buffer */
  constructor(ring: DriverRing, memory: DriverMemory, kernel: KernelMemory) {
    const place = memory.allocate(this.#bytes.length);
    if (place === undefined) throw new DriverProbeError('the guest has no memory for its statistics');
    this.#ring = ring;
    this.#kernel = kernel;
    this.#place = place;
  }

  /** D12: one buffer after the start. */
  start(): void {
    this.#post();
    this.turn();
  }

  turn(): void {
    do {
      while (this.#ring.takeUsed()) this.#owned = true;
      // docs/conformance.md, D11 and D12: there is one buffer, and it goes back only after it came.
      if (this.#owned && !this.#paused && !this.#stopped) this.#post();
    } while (!this.#stopped && this.#ring.enableInterrupts());
  }

  pause(): void {
    this.#paused = true;
  }

  /** The host keeps the buffer for as long as it likes. */
  get quiet(): boolean {
    return true;
  }

  resume(): void {
    this.#paused = false;
    this.turn();
  }

  stop(): void {
    this.#stopped = true;
  }

  abandon(): void {}

  #post(): void {
    const { segments, memory, world } = this.#ring;
    this.#owned = false;
    const length = encodeStatistics(this.#view, statisticsOf(this.#kernel));
    memory.write(this.#place.address, this.#bytes, 0, length);
    segments.clear().addReadable(this.#place.address, length);
    this.#ring.add(0);
    world.counters.statisticsBuffers++;
    this.#ring.flush();
  }
}
