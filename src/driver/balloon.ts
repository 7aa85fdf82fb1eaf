/**
 * The balloon while its device runs: from DRIVER_OK until the device is reset. Brings the channels, the guest's
 * callbacks and the timers together into turns of work. Probing and removing are balloon-driver.ts's.
 */
import { CONFIG } from '../balloon/config-space.ts';
import { DEFLATE_ON_OOM } from '../balloon/features.ts';
import type { HintResponderState } from '../balloon/hint-session.ts';
import { listFormat } from '../balloon/profiles.ts';
import { MemoryAccessError } from '../memory/guest-memory.ts';
import { assert } from '../sys/error.ts';
import type { Timer } from '../sys/poll.ts';
import { hasFeature } from '../virtio/features.ts';
import { VirtqueueError } from '../virtio/queue.ts';
import type { InterruptedQueue } from '../virtio/transport.ts';
import type { BalloonOptions } from './balloon-options.ts';
import { BalloonPages } from './balloon-pages.ts';
import { ConfigLink } from './config-link.ts';
import type { DriverRing } from './driver-ring.ts';
import { Fill } from './fill.ts';
import { HintsPart } from './hints.ts';
import { Leak } from './leak.ts';
import { channelOptions, fillOrderMax, fillPagesMax } from './options.ts';
import { PageChannel } from './page-channel.ts';
import type { QueuePart } from './queue-part.ts';
import { createParts } from './queue-parts.ts';

export class Balloon {
  readonly features: bigint;
  readonly pages: BalloonPages;
  readonly #options: BalloonOptions;
  readonly #inflation: PageChannel;
  readonly #deflation: PageChannel;
  readonly #fill: Fill;
  readonly #leak: Leak;
  #config: ConfigLink;
  readonly #parts: ReadonlyMap<number, QueuePart>;
  readonly #hints: HintsPart | undefined;
  readonly #unregister: (() => void)[] = [];
  #running = false;
  #draining = false;
  #working = false;
  #away = false;
  #halted = false;
  #turnTimer: Timer | undefined;
  #retryTimer: Timer | undefined;

  /** @throws DriverProbeError when the guest has no memory for the lists */
  constructor(options: BalloonOptions) {
    const { kernel, profile, tuning, world, features, memory } = options;
    const { scheduler, counters } = world;
    this.#options = options;
    this.features = features;
    const format = listFormat(profile, features);
    const pages = new BalloonPages(
      kernel,
      hasFeature(features, DEFLATE_ON_OOM),
      options.former !== undefined,
    );
    this.pages = pages;
    this.#fill = new Fill({
      kernel,
      pages,
      scheduler,
      counters,
      orderMax: fillOrderMax(format, tuning),
      batchPagesMax: fillPagesMax(format, tuning),
      onShortage: () => this.#backOff(),
    });
    this.#leak = new Leak({ pages, scheduler, counters });
    const channel = channelOptions(format, tuning, kernel.pages.length);
    try {
      const zeroed = hasFeature(features, profile.zeroing.inflated) ? this.#noteZeroed : undefined;
      this.#inflation = new PageChannel(this.#ring('inflate'), this.#fill, memory, { ...channel, zeroed });
      this.#deflation = new PageChannel(this.#ring('deflate'), this.#leak, memory, channel);
      this.#parts = createParts(options);
    } catch (error) {
      // A guest that does not go on has no use for its pages.
      if (options.former === undefined) pages.abandon([]);
      throw error;
    }
    this.#hints = [...this.#parts.values()].find(part => part instanceof HintsPart);
    this.#config = this.#newConfigLink();
  }

  /** The host made zeros of a page that it takes into the balloon. */
  readonly #noteZeroed = (pfn: number): void => {
    this.#options.world.counters.zeroedPages++;
    this.pages.zeros.note(pfn);
  };

  #newConfigLink(): ConfigLink {
    const { profile, world, onProgress, onBroken } = this.#options;
    return new ConfigLink({
      transport: world.transport,
      counters: world.counters,
      configBytes: profile.configBytes,
      onRead: config => this.#configured(config),
      onTold: onProgress,
      onError: onBroken,
    });
  }

  /** The device runs. */
  start(): void {
    const { kernel } = this.#options;
    this.#running = true;
    this.pages.movable = true;
    this.pages.onMove = () => this.#moved();
    if (hasFeature(this.features, DEFLATE_ON_OOM)) {
      this.#unregister.push(kernel.addOomNotifier({ name: 'balloon', release: () => this.#release() }));
    }
    this.#guard(() => {
      for (const part of this.#parts.values()) part.start();
    });
    this.onConfigChange();
  }

  /** The target is reached, and the host knows. */
  get settled(): boolean {
    const { pages } = this;
    return !this.#away && this.#config.idle && pages.still && pages.actual === pages.target;
  }

  get rings(): readonly DriverRing[] {
    return this.#options.rings;
  }

  /** The device is gone, and another is expected. */
  get away(): boolean {
    return this.#away;
  }

  /** The guest has no memory to give: the balloon stays as it is for a while. */
  get backingOff(): boolean {
    return this.#fill.paused;
  }

  /** Whatever the host wishes, gives all pages back by deflating them; {@link settled} when that is done. */
  drain(): void {
    this.#draining = true;
    for (const part of this.#parts.values()) part.stop();
    this.#aim(0);
  }

  /**
   * Begins nothing any more, for the guest is about to stand still; {@link quiet} once all that was begun is through.
   * Buffers that the host keeps of itself stay there until its rings stop.
   */
  pause(): void {
    this.#halt(true);
    for (const part of this.#parts.values()) part.pause();
    this.#inflation.withdraw();
    this.#deflation.withdraw();
    this.#work();
  }

  /** After {@link pause}: the host returns nothing any more but what it kept. */
  get quiet(): boolean {
    const { pages } = this;
    const parts = [...this.#parts.values()];
    const sent = this.#inflation.idle && this.#deflation.idle && !pages.moving;
    return (
      sent && pages.inflating + pages.deflating === 0 && this.#config.quiet && parts.every(part => part.quiet)
    );
  }

  /** After {@link pause}, the rings being stopped: takes what the host had kept. False when it still keeps something. */
  collect(): boolean {
    this.#guard(() => {
      for (const part of this.#parts.values()) part.turn();
    });
    return this.#options.rings.every(({ queue }) => queue.outstandingCount === 0);
  }

  /** Goes on after {@link pause}. */
  resume(): void {
    this.#halt(false);
    this.#guard(() => {
      for (const part of this.#parts.values()) part.resume();
    });
    this.onConfigChange();
    this.#work();
  }

  readonly takeHintsBack = (): void => this.#hints?.takeBack();

  /** How far the hint session has come, where there are such. */
  get hintState(): HintResponderState | null {
    return this.#hints?.state ?? null;
  }

  #halt(halted: boolean): void {
    this.#halted = halted;
    this.#fill.halted = halted;
    this.#leak.halted = halted;
  }

  onConfigChange(): void {
    if (this.#running && !this.#away && !this.#halted) this.#config.refresh();
  }

  /** `queue` is null when the transport does not know which it is. */
  onInterrupt(queue: InterruptedQueue): void {
    if (!this.#running) return;
    this.#options.world.counters.interrupts++;
    const part = queue === null ? undefined : this.#parts.get(queue);
    if (part !== undefined) this.#guard(() => part.turn());
    else if (queue === null) this.poll();
    else this.#work();
    if (this.#halted) this.#options.onProgress();
  }

  /** Looks at every ring. */
  poll(): void {
    if (!this.#running) return;
    this.#guard(() => {
      for (const part of this.#parts.values()) part.turn();
    });
    this.#work();
  }

  /**
   * The device is gone; {@link deviceReplaced} follows. What it returned before counts, all else waits. Returns where
   * each ring goes on: at its first buffer that was not returned.
   */
  deviceLost(): ReadonlyMap<number, number> {
    const { rings } = this.#options;
    this.#away = true;
    this.#config.close();
    this.#guard(() => {
      this.#inflation.deviceLost();
      this.#deflation.deviceLost();
      for (const part of this.#parts.values()) {
        part.turn();
        part.deviceLost?.();
      }
    });
    // What was only prepared is in the balloon still, of which the next host knows nothing.
    this.#deflation.withdraw();
    this.pages.recall();
    return new Map(rings.map(ring => [ring.index, ring.base]));
  }

  /** Another device has taken up the rings. It knows nothing of the balloon yet. */
  deviceReplaced(): void {
    this.#away = false;
    this.#config = this.#newConfigLink();
    this.onConfigChange();
    this.poll();
  }

  /** One turn of inflation and deflation. */
  #work(): void {
    if (!this.#running || this.#working || this.#away) return;
    this.#working = true;
    try {
      this.#guard(() => this.#resize());
    } finally {
      this.#working = false;
    }
    this.#progressed();
  }

  /**
   * Lets go of everything and gives every page back. Only when the device touches none any more: it was reset, or it
   * is gone.
   */
  abandon(): void {
    this.stop();
    for (const part of this.#parts.values()) part.abandon();
    this.pages.abandon([...this.#inflation.inFlight, ...this.#deflation.inFlight]);
  }

  /** Does nothing any more; what it holds stays out of the guest's use. */
  stop(): void {
    this.#running = false;
    this.pages.movable = false;
    this.#config.close();
    for (const part of this.#parts.values()) part.stop();
    this.#turnTimer?.cancel();
    this.#retryTimer?.cancel();
    for (const unregister of this.#unregister.splice(0)) unregister();
  }

  #configured(config: DataView): void {
    if (!this.#running) return;
    if (this.#draining) {
      // What the host wishes counts no more, but a caller waits for this reading to be over.
      this.#progressed();
      return;
    }
    const hints = this.#hints;
    if (hints !== undefined) {
      this.#guard(() => hints.onConfig(config.getUint32(CONFIG.offset.freePageHintCommandId, true)));
    }
    this.#aim(config.getUint32(CONFIG.offset.numPages, true));
  }

  #aim(target: number): void {
    const { pages } = this;
    if (target !== pages.target) {
      // What was prepared for the old target may be wrong for the new one (docs/conformance.md, D4 and D5).
      this.#inflation.withdraw();
      this.#deflation.withdraw();
    }
    pages.target = target;
    pages.resizing = target !== pages.actual || !pages.still;
    this.#resume();
    this.#work();
  }

  #resize(): void {
    const { pages } = this;
    for (;;) {
      const inflation = this.#inflation.turn();
      const deflation = this.#deflation.turn();
      if (inflation === 'more' || deflation === 'more') {
        this.#turnTimer?.cancel();
        this.#turnTimer = this.#options.world.scheduler.schedule(0, () => this.#work());
        return;
      }
      if (inflation === 'waiting' || deflation === 'waiting') return;
      // A guest that is about to stand still leaves its balloon as it is, but for pages that are half on their way.
      if (this.#halted && !pages.moving) return;
      // What is through may have been in the way of something else.
      if ((this.#fill.paused || pages.missing === 0) && pages.surplus === 0 && pages.still) return;
    }
  }

  #progressed(): void {
    const { pages } = this;
    if (pages.still && pages.actual === pages.target) pages.resizing = false;
    if (this.#running) this.#config.report(pages.actual);
    this.#options.onProgress();
  }

  /** Inflation goes on when the host says something, or after a while. */
  #backOff(): void {
    const { world, tuning } = this.#options;
    this.#fill.paused = true;
    this.#retryTimer?.cancel();
    this.#retryTimer = world.scheduler.schedule(tuning.retryMs, () => {
      this.#resume();
      this.#work();
    });
  }

  #resume(): void {
    this.#fill.paused = false;
    this.#retryTimer?.cancel();
  }

  /** The guest is out of memory (docs/conformance.md, D5). Returns the pages that it has already, or will have soon. */
  #release(): number {
    const { world, tuning } = this.#options;
    // There is no host that would have to know.
    if (this.#away) return this.pages.freeRecalled(tuning.oomPages);
    // What the host has not heard of is there at once.
    const withdrawn = this.#inflation.withdraw();
    // A guest that tries again before the host has answered would empty the balloon.
    const { coming } = this.#leak;
    const pages = coming > 0 ? 0 : this.#leak.demand(tuning.oomPages);
    if (withdrawn + pages === 0) return coming;
    world.counters.oomReleases++;
    world.counters.oomPages += withdrawn + pages;
    // Do not fill while leaking: the two would undo each other.
    this.#backOff();
    this.#guard(() => this.#deflation.turn());
    this.#progressed();
    return withdrawn + coming + pages;
  }

  /** Compaction moved a page: tells both sides of it, and asks the guest, which is busy, for nothing. */
  #moved(): void {
    this.#options.world.counters.movedPages++;
    this.#fill.quiet = true;
    this.#guard(() => {
      this.#inflation.turn();
      this.#deflation.turn();
    });
    this.#fill.quiet = false;
  }

  /** Ends the driver's work when the device breaks the protocol. */
  #guard(turn: () => void): void {
    try {
      turn();
    } catch (error) {
      if (!(error instanceof VirtqueueError || error instanceof MemoryAccessError)) throw error;
      this.stop();
      this.#options.onBroken(error);
    }
  }

  #ring(role: 'inflate' | 'deflate'): DriverRing {
    const ring = this.#options.rings.find(candidate => candidate.role === role);
    assert(ring !== undefined, `no ring for ${role}`);
    return ring;
  }
}
