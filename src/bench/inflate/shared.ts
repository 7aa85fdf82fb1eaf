/**
 * Profile `shared` in `bench inflate`: the host takes the balloon's bytes in huge frames out of an allocator that the guest
 * has lent, and the guest does nothing. What the others spend on lists is here the changing of the frames' words
 * (`decodingMs`); what the discards cost is apart (`discardingMs`), and so is the time that the guest's thread had meanwhile
 * (`guestMs`).
 */
import { FRAME_BYTES } from '../../balloon/shared-frames.ts';
import { CLAIM_BYTES_MAX } from '../../memory/pending-state.ts';
import { AerostatError } from '../../sys/error.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BENCH_GUEST, BenchDaemon } from '../bench-daemon.ts';
import { GuestThread } from '../guest-thread.ts';
import { progressOf, reachTarget } from '../reach.ts';
import type { BackingName } from './backings.ts';
import { memoryEffect } from './memory-effect.ts';
import type { InflateSample } from './sample.ts';
import type { FrameState, FromSharedGuest, SharedGuestData, ToSharedGuest } from './shared-protocol.ts';

interface SharedMeasureOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly touched: boolean;
  readonly backing?: BackingName;
  /** Times that the balloon is filled and emptied before the one that counts. */
  readonly warm?: number;
  readonly signal: AbortSignal;
}

/** Boots a guest and a daemon, holds the balloon's bytes, gives them back, and takes the floor. */
export async function measureShared(options: SharedMeasureOptions): Promise<InflateSample> {
  const { memoryBytes, balloonBytes, touched, warm = 0, backing = 'memfd', signal } = options;
  const bytes = Math.floor(balloonBytes / FRAME_BYTES) * FRAME_BYTES;
  // What is free would be taken back now and then, and what is measured found gone.
  const daemon = await BenchDaemon.start({
    profile: 'shared',
    discard: 'auto',
    without: ['page-reporting'],
    evictionMs: 0,
  });
  const guest = new SharedGuest({ socketPath: daemon.socketPath, memoryBytes, backing, touched }, signal);
  try {
    const { control } = daemon;
    const started = await guest.state();
    let firstMs = Number.NaN;
    for (let time = 0; time < warm; time++) {
      const { drainedMs } = progressOf(await reachTarget(control, bytes, signal));
      if (time === 0) firstMs = drainedMs;
      await reachTarget(control, 0, signal);
      await guest.ask('touch');
    }
    const before = await control.guest(BENCH_GUEST);
    const decodedMs = await daemon.decodeMs();
    const writeNsBefore = await guest.write((memoryBytes - bytes) / FRAME_BYTES);
    const idle = await guest.ask('state');
    const effect = memoryEffect(backing, idle.memoryFd);
    const full = await reachTarget(control, bytes, signal);
    const taken = await guest.ask('state');
    const decodingMs = (await daemon.decodeMs()) - decodedMs;
    const seen = effect();
    const writeNsAfter = await guest.write(Number.MAX_SAFE_INTEGER);
    const emptied = await reachTarget(control, 0, signal);
    await guest.ask('touch');
    const way = await reachTarget(control, CLAIM_BYTES_MAX, signal);
    await reachTarget(control, 0, signal);
    const floor = await guest.floor();
    if (taken.held * FRAME_BYTES !== bytes || started.held > 0)
      throw new AerostatError(
        'AEROSTAT_BENCH',
        `the host holds ${taken.held} frames of ${bytes / FRAME_BYTES}`,
      );
    const { drainedMs } = progressOf(full);
    return {
      elapsedMs: drainedMs,
      firstMs: warm === 0 ? drainedMs : firstMs,
      wayMs: progressOf(way).drainedMs,
      // The question itself is among it.
      guestMs: Math.max(0, taken.ranMs - idle.ranMs),
      deflateMs: progressOf(emptied).reachedMs,
      allocatingMs: 0,
      encodingMs: 0,
      waitingMs: 0,
      decodingMs,
      discardingMs: full.counters.discardMs - before.counters.discardMs,
      floorMs: floor.ms,
      kicks: taken.woken - idle.woken,
      buffers: 0,
      listBytes: 0,
      runs: floor.runs,
      punches: full.counters.punches - before.counters.punches,
      fragmentation: 0,
      effect: { ...seen, givenBytes: bytes, incompleteBytes: 0, writeNsBefore, writeNsAfter },
    };
  } finally {
    await guest.end();
    await daemon.close();
  }
}

class SharedGuest extends GuestThread<ToSharedGuest, FromSharedGuest> {
  constructor(data: SharedGuestData, signal: AbortSignal) {
    super(workerUrl('./shared-guest', import.meta.url), data, signal);
  }

  /** What it says next of its frames. */
  async state(): Promise<FrameState> {
    return (await this.next('state')).state;
  }

  ask(question: 'state' | 'touch'): Promise<FrameState> {
    this.tell({ ask: question });
    return this.state();
  }

  async write(frames: number): Promise<number> {
    this.tell({ ask: 'write', frames });
    return (await this.next('written')).writeNs;
  }

  floor(): Promise<{ readonly ms: number; readonly runs: number }> {
    this.tell({ ask: 'floor' });
    return this.next('floor');
  }

  override async end(): Promise<void> {
    if (!this.over) this.tell({ ask: 'end' });
    await super.end();
  }
}
