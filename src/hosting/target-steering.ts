/**
 * The target of one guest: what its host wishes, what its driver is shown of that, how long the driver takes, and whether
 * it gets there. What may be wished for is judged here as well, before anything changes. Knows no sockets.
 */
import type { GuestChanges, StatisticsSample, StuckStatus, TargetProgress } from '../control/contract.ts';
import { checkNoDefinition, checkOneTarget, GuestStateError, UnconfirmedError } from '../control/errors.ts';
import { isNear, needsForce } from '../control/judgement.ts';
import { spareOf } from '../control/memory-use.ts';
import type { SilenceRule } from '../control/policy.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';
import { formatSize } from '../sys/size.ts';
import { BootGrace } from './boot-grace.ts';
import type { GuestEvents } from './guest-events.ts';
import { TargetLease } from './target-lease.ts';
import { TargetTimer } from './target-timer.ts';
import { TargetWatch } from './target-watch.ts';

interface SteeredGuest {
  readonly name: string;
  readonly device: BalloonDevice;
  /** Bytes of its memory; 0 while it has shown none. */
  readonly memoryBytes: () => number;
  readonly sample: () => StatisticsSample;
  /** How long a driver that has just started does not see the target; 0 for not at all. */
  readonly bootGraceMs: number;
}

/** Whose ring started: a driver that begins, one that ran before this device did, one that is known already. */
type StartedDriver = 'fresh' | 'found' | 'known';

/** Front-ends that cut memory anew take regions out and put them back one by one: a target follows what is left of that. */
const MEMORY_SETTLES_MS = 50;

export class TargetSteering {
  readonly #guest: SteeredGuest;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #events: Pick<GuestEvents, 'emit' | 'changed' | 'hurry' | 'problem'>;
  readonly #clock = new TargetTimer((actual, target) => this.#isThere(actual, target));
  readonly #watch = new TargetWatch((actual, target) => this.#isThere(actual, target));
  readonly #grace: BootGrace;
  #timer: Timer | undefined;
  #timerDueMs = 0;
  #following = false;
  #toldStuck = false;
  /** What the guest is to keep, where its target was given like that. */
  #wishedMemoryBytes: number | null = null;
  #memoryTimer: Timer | undefined;
  readonly lease: TargetLease;

  constructor(
    guest: SteeredGuest,
    reactor: Pick<Reactor, 'schedule'>,
    events: Pick<GuestEvents, 'emit' | 'changed' | 'hurry' | 'problem'>,
  ) {
    this.#guest = guest;
    this.#reactor = reactor;
    this.#events = events;
    this.lease = new TargetLease(reactor, onSilence => this.#ranOut(onSilence));
    this.#grace = new BootGrace(guest.bootGraceMs, reactor, () => {
      if (this.#following) this.#aim();
      this.#follow();
    });
    this.show();
  }

  /**
   * Whether a target may be set; nothing has changed yet.
   * @throws GuestStateError for more than the guest's memory; UnconfirmedError above what it can spare, unless it is forced
   */
  check(changes: GuestChanges): void {
    checkOneTarget(changes);
    const { targetBytes: named, memoryBytes, force = false } = changes;
    const { name, device } = this.#guest;
    checkNoDefinition(name, changes);
    const memory = this.#guest.memoryBytes();
    // Kept for a guest that is not there yet.
    if (memory === 0) return;
    if (memoryBytes !== undefined && memoryBytes > memory) {
      throw new GuestStateError(
        `${name} has ${formatSize(memory)} of memory and cannot keep ${formatSize(memoryBytes)}`,
      );
    }
    const targetBytes = memoryBytes === undefined ? named : memory - memoryBytes;
    if (targetBytes === undefined) return;
    if (targetBytes > memory) {
      throw new GuestStateError(
        `${name} has ${formatSize(memory)} of memory; its balloon cannot hold ${formatSize(targetBytes)}`,
      );
    }
    if (force) return;
    const sample = this.#guest.sample();
    const [actualBytes, balloonedBytes] = [device.actualPages, device.accounts.balloonedPages].map(
      pages => pages * PAGE_SIZE,
    );
    const use = { memory, ...spareOf(sample) };
    const doubt = needsForce({ actualBytes, balloonedBytes }, use, targetBytes);
    if (doubt !== undefined) throw new UnconfirmedError(name, targetBytes, doubt, sample.ageMs);
  }

  /** `wishedMemoryBytes` is what the guest is to keep, where the target is given like that. The lease stays as it is. */
  set(targetBytes: number, wishedMemoryBytes: number | null = null): void {
    this.#wishedMemoryBytes = wishedMemoryBytes;
    this.#memoryTimer?.cancel();
    this.#memoryTimer = undefined;
    const { device } = this.#guest;
    // A device whose guest has lent its allocator is there before this returns.
    const startedMs = monotonicMs();
    device.targetPages = Math.floor(targetBytes / PAGE_SIZE);
    // What the device could take of it: its field has 32 bits.
    const pages = device.targetPages;
    this.#clock.set(pages, this.#known(device.actualPages), startedMs);
    if (this.#following) this.#watchOut();
    this.#toldStuck = false;
    this.#events.emit('target', { targetBytes: pages * PAGE_SIZE });
    this.#follow();
  }

  /** The guest is to keep so much of the memory that it has, and will have; of one that has none yet nothing is wanted. */
  keep(memoryBytes: number): void {
    this.set(Math.max(0, this.#guest.memoryBytes() - memoryBytes), memoryBytes);
  }

  /** The policy whose target it is says nothing any more. */
  #ranOut(onSilence: SilenceRule): void {
    const released = onSilence === 'release';
    if (released) this.set(0);
    this.#events.changed('policy', () => ({ silent: true, released }));
  }

  get wishedMemoryBytes(): number | null {
    return this.#wishedMemoryBytes;
  }

  /** Memory was added to the guest or removed from it. */
  memoryChanged(): void {
    if (this.#wishedMemoryBytes === null || this.#memoryTimer !== undefined) return;
    this.#memoryTimer = this.#reactor.schedule(MEMORY_SETTLES_MS, () => this.#followMemory());
  }

  #followMemory(): void {
    this.#memoryTimer?.cancel();
    this.#memoryTimer = undefined;
    const memory = this.#guest.memoryBytes();
    // What a guest that is gone leaves is no memory that it could keep.
    if (this.#wishedMemoryBytes === null || memory === 0) return;
    const targetBytes = Math.max(0, memory - this.#wishedMemoryBytes);
    if (Math.floor(targetBytes / PAGE_SIZE) !== this.#guest.device.targetPages)
      this.keep(this.#wishedMemoryBytes);
  }

  /** A driver is there, which follows the target from now on, or from the end of its grace. */
  begin(driver: StartedDriver): void {
    if (driver === 'fresh') this.#grace.started();
    else if (driver === 'found') this.#grace.end();
    this.#followMemory();
    this.#following = true;
    this.#aim();
    this.#follow();
  }

  /** The driver has answered a request for statistics: it is up, and its grace is over. */
  answered(): void {
    if (this.#following) this.#grace.end();
  }

  /** The driver is gone, and another may start. */
  awaitDriver(): void {
    this.#grace.awaitDriver();
    this.rest();
  }

  #aim(): void {
    const { targetPages, actualPages } = this.#guest.device;
    this.#clock.set(targetPages, this.#known(actualPages));
    this.#watchOut();
    this.#toldStuck = false;
  }

  /** A driver that does not see the target yet cannot be stuck on its way there. */
  #watchOut(): void {
    const { targetPages, actualPages } = this.#guest.device;
    if (!this.#grace.holds) this.#watch.aim(targetPages, this.#known(actualPages), monotonicMs());
  }

  /** The driver that rested follows it again, and its clock goes on. */
  resume(): void {
    this.#following = true;
    this.#watchOut();
    this.#follow();
  }

  /** What the guest says of its balloon; NaN, which is at no target, while it has not said anything. */
  #known(actualPages: number): number {
    return this.#guest.device.actualKnown ? actualPages : Number.NaN;
  }

  /** No driver follows it, for now. */
  rest(): void {
    this.#following = false;
    this.#watch.rest();
    this.#follow();
  }

  /** The guest is gone, and so is how it got on. */
  forget(): void {
    this.#memoryTimer?.cancel();
    this.#memoryTimer = undefined;
    this.awaitDriver();
    this.#clock.forget();
  }

  /** The driver goes on where another device stopped, whose target was given as what the guest is to keep, or null. */
  resumed(wishedMemoryBytes: number | null): void {
    this.#grace.end();
    this.#wishedMemoryBytes = wishedMemoryBytes;
    this.lease.forget();
    this.#clock.set(this.#guest.device.targetPages, this.#known(this.#guest.device.actualPages));
  }

  /** The guest says that its balloon holds `pages`. */
  actual(pages: number): void {
    this.#events.changed('actual', () => ({ actualBytes: this.#guest.device.actualPages * PAGE_SIZE }));
    this.#watch.actual(pages, monotonicMs());
    this.#follow();
    // Linux writes it after every 256 pages. Who watches wants to know of the way now and then, of the end at once.
    if (!this.#clock.actual(pages)) return;
    this.#events.hurry('actual');
    const reachedMs = this.#clock.progress?.reachedMs ?? null;
    const targetBytes = this.#guest.device.targetPages * PAGE_SIZE;
    // A guest that resets its device reaches the same target again, as often as it likes.
    this.#events.changed('target-reached', () => ({ targetBytes, reachedMs }));
  }

  /**
   * Shows the driver what it may see of the target: no more than its guest has memory, nor than it can hold, nor than it
   * holds already during its grace.
   */
  show(): void {
    // What the driver reads has to be true of the memory that it has.
    if (this.#memoryTimer !== undefined && !this.#following) this.#followMemory();
    const { device } = this.#guest;
    const memoryPages = this.#guest.memoryBytes() / PAGE_SIZE;
    const tooLarge = memoryPages > 0 && device.targetPages > memoryPages;
    // It came before the guest did, or memory was taken out since: nothing more is taken than is held.
    const held = tooLarge ? Math.min(device.actualPages, memoryPages) : Number.POSITIVE_INFINITY;
    const graced = this.#grace.holds ? device.actualPages : Number.POSITIVE_INFINITY;
    device.targetLimitPages = Math.min(this.#watch.limit, held, graced);
    if (!tooLarge) return;
    const [target, memory] = [device.targetPages * PAGE_SIZE, memoryPages * PAGE_SIZE].map(formatSize);
    this.#events.problem(
      'target',
      `the target of ${target} is not followed: the guest has ${memory} of memory`,
    );
  }

  get progress(): TargetProgress | null {
    return this.#clock.progress;
  }

  /** Nothing is pending; the last discard ended at `lastMs`. */
  drained(lastMs: number): void {
    this.#clock.drained(lastMs);
  }

  get stuck(): StuckStatus | null {
    const nowMs = monotonicMs();
    const sinceMs = this.#watch.stuckSinceMs(nowMs);
    if (sinceMs === null) return null;
    const { swings, retryAtMs } = this.#watch;
    const forMs = nowMs - sinceMs;
    return {
      sinceMs: Date.now() - forMs,
      forMs,
      swings,
      retryInMs: retryAtMs === null ? null : Math.max(0, retryAtMs - nowMs),
    };
  }

  #isThere(actualPages: number, targetPages: number): boolean {
    const granularityBytes = this.#guest.device.inflation.granularityPages * PAGE_SIZE;
    return isNear(actualPages * PAGE_SIZE, targetPages * PAGE_SIZE, granularityBytes);
  }

  /** Acts on what the watch has found, and looks again when it may find more. */
  #follow(): void {
    this.show();
    this.#tellStuck();
    const { dueMs, swings } = this.#watch;
    // What is stuck, and was told to be, is waited for no more: the guest says when it gets on.
    if (dueMs === null || (this.#toldStuck && !swings)) {
      this.#stopTimer();
      return;
    }
    // The balloon moves all the time; a timer that comes too early finds nothing, and is set anew.
    if (this.#timer !== undefined && this.#timerDueMs <= dueMs) return;
    this.#stopTimer();
    this.#timerDueMs = dueMs;
    this.#timer = this.#reactor.schedule(Math.max(1, dueMs - monotonicMs()), () => {
      this.#timer = undefined;
      this.#watch.look(monotonicMs());
      this.#follow();
    });
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #tellStuck(): void {
    const { stuck } = this;
    if (stuck === null) this.#toldStuck = false;
    if (stuck === null || this.#toldStuck) return;
    this.#toldStuck = true;
    const { targetPages, shownTargetPages, actualPages } = this.#guest.device;
    this.#events.changed('stuck', () => ({
      targetBytes: targetPages * PAGE_SIZE,
      shownBytes: shownTargetPages * PAGE_SIZE,
      actualBytes: actualPages * PAGE_SIZE,
      swings: stuck.swings,
    }));
  }
}
