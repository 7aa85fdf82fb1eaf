/**
 * The balloon device as a state machine: a back-end feeds it with features, configuration writes, regions and rings, and
 * it calls a {@link DeviceHost} for what reaches outside. It has no sockets, no threads and no clock of its own
 * but the one for time stamps, so the same code runs in a daemon and in a simulation.
 *
 * The guest is hostile: a buffer that makes no sense costs a counter and comes back with length 0, a ring that
 * makes no sense is stopped, and nothing that a guest writes throws out of here.
 */
import { PAGE_POISON, type QueueRole } from '../balloon/features.ts';
import { PageListError } from '../balloon/page-list.ts';
import type { PageListFormat } from '../balloon/page-list-format.ts';
import { listFormat, type Profile, queueRoles } from '../balloon/profiles.ts';
import type { Statistics } from '../balloon/statistics.ts';
import { type GuestMemory, MemoryAccessError, type MemoryRegion } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { SystemError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { Doorbell, StopReason, VirtioDevice } from '../virtio/device.ts';
import { type DeviceQueue, initialState, VirtqueueError } from '../virtio/queue.ts';
import { DeviceCounters } from './counters.ts';
import { DeviceConfig, namesActual } from './device-config.ts';
import type { DeviceHost } from './device-host.ts';
import type { DeviceObserver } from './device-observer.ts';
import { HintChannel } from './hint-channel.ts';
import { Inflation } from './inflation.ts';
import { PageAccounts } from './page-accounts.ts';
import { Reporting } from './reporting.ts';
import { RequestChannel } from './request-channel.ts';
import { RunningQueue } from './running-queue.ts';
import { StatisticsQueue } from './statistics-queue.ts';
import { BATCHES_PER_TURN, workOf } from './turn.ts';

export interface BalloonDeviceOptions {
  readonly profile: Profile;
  /** Feature bits that are offered: some of the profile's, and those of the rings. */
  readonly features: bigint;
  readonly host: DeviceHost;
  readonly observer?: DeviceObserver;
  /** Takes the pages of its memory that the guest says it does not use; they are never discarded. */
  readonly unusedPages: PageSink;
}

/** What a device shows and remembers beside its account. */
export interface DeviceFigures {
  readonly targetPages: number;
  readonly actualPages: number;
  readonly poisonValue: number;
  readonly hintId: number;
  readonly statistics: Statistics;
}

export class BalloonDevice implements VirtioDevice {
  readonly profile: Profile;
  readonly features: bigint;
  readonly counters = new DeviceCounters();
  readonly accounts = new PageAccounts(this.counters);
  readonly inflation = new Inflation(this.accounts, this.counters);
  readonly reporting: Reporting;
  readonly statistics: StatisticsQueue;
  readonly hints: HintChannel;
  readonly requests: RequestChannel;
  readonly #host: DeviceHost;
  readonly #observer: DeviceObserver;
  readonly #config: DeviceConfig;
  readonly #queues: (RunningQueue | undefined)[] = [];
  #driverFeatures = 0n;
  /** The inflate ring ran since the driver began. */
  #begun = false;
  #actualKnown = false;
  #roles: readonly QueueRole[] = [];
  #format: PageListFormat;
  /** All that is pending is to be discarded by other threads, and somebody waits for that. */
  #draining = false;
  /** Somebody waits until nothing is under way: no ring is served meanwhile. */
  #settling = false;
  /** Rings that were to be served meanwhile. */
  readonly #postponed = new Set<number>();
  /** Discards of other threads that had failed when that was reported last. */
  #failuresReported = 0;

  constructor({ profile, features, host, observer = {}, unusedPages }: BalloonDeviceOptions) {
    this.profile = profile;
    this.features = features;
    this.#host = host;
    this.#observer = observer;
    if (host.discardSoon !== undefined) this.accounts.discardElsewhere();
    this.reporting = new Reporting(this.accounts, this.counters, account => host.reportsOpened?.(account));
    this.#config = new DeviceConfig(profile.configBytes);
    this.#format = profile.format;
    this.statistics = new StatisticsQueue(
      this.counters,
      () => this.accounts.balloonedPages,
      () => host.statisticsArrived(),
    );
    // A list can name pages that nobody has; whoever keeps the pages would keep room for them.
    const unused = this.accounts.within(unusedPages);
    this.hints = new HintChannel(profile, this.counters, unused, () => this.#hintChanged());
    this.requests = new RequestChannel(profile, this.counters, unused, () => host.requestAnswered());
    this.#negotiated(0n);
  }

  /**
   * Rings that the profile knows, whether their features are offered or not: drivers ask for all that they know,
   * whatever they negotiate, and Linux 7 takes this number for a limit.
   */
  get queueCount(): number {
    return queueRoles(this.profile, this.profile.featureMask).length;
  }

  /** Balloon and ring features that the driver took. */
  get driverFeatures(): bigint {
    return this.#driverFeatures;
  }

  /** The target in 4 KiB pages. */
  get targetPages(): number {
    return this.#config.targetPages;
  }

  /** Sets the target, as far as its field can say it, and tells the driver. */
  set targetPages(pages: number) {
    const before = this.shownTargetPages;
    this.#config.targetPages = pages;
    if (this.shownTargetPages !== before) this.#host.configChanged();
  }

  /** What the driver sees of the target. */
  get shownTargetPages(): number {
    return this.#config.shownTargetPages;
  }

  /** The driver is shown no more than this of any target; Infinity for all of it. */
  set targetLimitPages(pages: number) {
    const before = this.shownTargetPages;
    this.#config.targetLimitPages = pages;
    if (this.shownTargetPages !== before) this.#host.configChanged();
  }

  /** What the guest says that its balloon holds, in 4 KiB pages; reported, never trusted. */
  get actualPages(): number {
    return this.#config.actualPages;
  }

  /** Whether that is known: not before a driver said so, if it ran before this device did. */
  get actualKnown(): boolean {
    return this.#actualKnown;
  }

  /** Whether the inflate ring ran since the driver began. */
  get begun(): boolean {
    return this.#begun;
  }

  get poisonValue(): number {
    return this.#config.poisonValue;
  }

  setFeatures(features: bigint): void {
    this.#negotiated(features);
  }

  readConfig(offset: number, into: Uint8Array): void {
    this.#observer.configRead?.(offset, into.length);
    this.#config.read(offset, into);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.actualPages;
    this.#actualKnown ||= namesActual(offset, bytes.length);
    if (!this.#config.write(offset, bytes)) return;
    this.#updatePoison();
    if (this.actualPages !== before) this.#host.actualChanged(this.actualPages);
  }

  regionAdded(region: MemoryRegion): void {
    this.#host.accountOpened(this.accounts.open(region));
    this.#observer.regionAdded?.(region);
  }

  /** Calls `letGo` when nobody discards in the region any more: before it returns, or before the device is settled. */
  regionRemoved(region: MemoryRegion, letGo: () => void = () => {}): void {
    this.accounts.close(region, letGo);
    this.#observer.regionRemoved?.(region);
  }

  /** Ring `index` runs from now on; {@link serveQueue} serves it. Rings without a role are left alone. */
  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell): void {
    const role = this.#roles[index];
    if (role === undefined) return;
    const known = this.#begun;
    this.#queues[index] = new RunningQueue(index, role, queue, memory, doorbell);
    if (role === 'inflate') {
      this.#begin(queue);
      this.#hold(false);
    }
    if (role === 'stats') this.statistics.start();
    if (role === 'hint') this.hints.startQueue();
    if (role === 'request') this.requests.start();
    if (role === 'reporting' || role === 'hinting') this.reporting.running = true;
    this.#observer.queueStarted?.(role, known);
  }

  /**
   * Ring `index` stands still until it is resumed or stopped: a pause begins like that, and so may another driver. Of
   * what was acknowledged nothing is discarded meanwhile, since another driver may use those pages.
   */
  suspendQueue(index: number): void {
    const running = this.#queues[index];
    if (running === undefined) return;
    running.suspended = true;
    if (running.walk.active) this.#leaveUnfinished(running);
    if (running.role === 'inflate') this.#hold(true);
    this.#observer.queueSuspended?.(running.role);
  }

  resumeQueue(index: number): void {
    const running = this.#queues[index];
    if (running === undefined) return;
    running.suspended = false;
    if (running.role === 'inflate') this.#hold(false);
    this.#observer.queueResumed?.(running.role);
  }

  /**
   * Lets go of ring `index`. `paused`: what was acknowledged is finished, so that all that the guest gave away
   * is back at the host; `abandoned`: what is pending is the guest's again and keeps its memory; `undecided`: it is as
   * it was while the ring was suspended.
   */
  stopQueue(index: number, reason: StopReason): void {
    const running = this.#queues[index];
    if (running === undefined) return;
    this.#queues[index] = undefined;
    this.#stop(running, reason);
    this.#observer.queueStopped?.(running.role, reason);
  }

  #stop(running: RunningQueue, reason: StopReason): void {
    // Only when a guest or a front-end is given up in the middle of a batch: whoever stops in order lets it settle first.
    if (running.kept && isReporting(running.role)) this.reporting.forget();
    if (running.walk.active) this.#leaveUnfinished(running);
    switch (running.role) {
      case 'inflate':
      case 'deflate':
        if (reason === 'undecided') return;
        if (running.role === 'inflate') this.accounts.held = false;
        if (reason === 'paused') this.#drain();
        else this.#forget();
        return;
      case 'stats':
        if (reason === 'paused' && this.#released(running, this.statistics)) return;
        this.statistics.reset();
        return;
      case 'hint':
        this.hints.stopQueue();
        return;
      case 'request':
        if (reason === 'paused' && this.#released(running, this.requests)) return;
        this.requests.reset();
        return;
      case 'reporting':
      case 'hinting':
        this.reporting.running = false;
        return;
    }
  }

  /** A list of which a part is taken is taken again, whole, when the ring goes on: that changes nothing that it did. */
  #leaveUnfinished({ queue, chain, walk, role }: RunningQueue): void {
    walk.drop();
    queue.undoPop(chain);
    if (role === 'inflate') this.inflation.leave();
  }

  /**
   * A paused ring is saved as "all taken is returned", so the buffer that is kept goes back first. False when the
   * ring is no longer in guest memory, and nothing can go back.
   */
  #released(running: RunningQueue, keeper: StatisticsQueue | RequestChannel): boolean {
    try {
      if (keeper.release(running)) this.#publish(running);
      return true;
    } catch (error) {
      if (!isRingFault(error)) throw error;
      return false;
    }
  }

  /**
   * Serves what is available on ring `index`. Returns true when there may be more than one turn's share: call
   * again after the others.
   */
  serveQueue(index: number, work?: number): boolean {
    const running = this.#queues[index];
    if (running === undefined || running.suspended) return false;
    if (this.#settling) {
      this.#postponed.add(index);
      return false;
    }
    this.counters.kicks++;
    const { budget } = this.accounts;
    budget.begin(work);
    try {
      if (!this.#returnKept(running)) return false;
      for (let batch = 0; batch < BATCHES_PER_TURN && !budget.over; batch++) {
        if (!this.#serveBatch(running)) return false;
      }
      return true;
    } catch (error) {
      this.#stopBroken(running, error);
      return false;
    } finally {
      budget.end();
    }
  }

  /**
   * Rings that can be served on: their discards are over, or nobody waits any more for the device to settle. To be asked
   * whenever threads that discard have news.
   */
  *resumable(): Iterable<number> {
    if (this.#settling) return;
    for (const running of [...this.#queues]) if (running?.kept === true) yield running.index;
    const postponed = [...this.#postponed];
    this.#postponed.clear();
    yield* postponed;
  }

  /**
   * Whether nothing is under way: no batch that waits for discards, no drain, no discard that others have to be told of.
   * Where it is not so, no ring is served until it is, and threads that discard have news when it may be. Always so where
   * the device discards by itself.
   */
  settle(): boolean {
    this.#settling = false;
    if (!this.accounts.elsewhere) return true;
    let settled = this.accounts.quiet;
    for (const running of this.#queues) {
      if (running !== undefined && !this.#triesToReturn(running)) settled = false;
    }
    if (this.#draining) {
      // In this order: what is discarded after the first line rings.
      this.accounts.watchDrain();
      if (this.accounts.pendingPages > 0) settled = false;
      else {
        this.#draining = false;
        this.accounts.haste = false;
      }
    }
    this.#settling = !settled;
    this.#reportFailures();
    return settled;
  }

  /** Reports what failed in threads that discard since this was asked last. */
  reportFailures(): void {
    const errno = this.accounts.elsewhere ? this.accounts.lastErrno : 0;
    if (errno === 0) return;
    const failures = this.accounts.discards.failures + this.accounts.reportDiscards.failures;
    if (failures === this.#failuresReported) return;
    this.#failuresReported = failures;
    this.#host.discardFailed(new SystemError('fallocate', errno));
  }

  #triesToReturn(running: RunningQueue): boolean {
    try {
      return running.suspended || this.#returnKept(running);
    } catch (error) {
      this.#stopBroken(running, error);
      return true;
    }
  }

  /** Asks the guest for statistics; {@link DeviceHost.statisticsArrived} tells when they came. */
  requestStatistics(): void {
    const running = this.#queues.find(queue => queue?.role === 'stats');
    if (running === undefined || running.suspended) return;
    try {
      if (this.statistics.request(running)) this.#publish(running);
    } catch (error) {
      this.#stopBroken(running, error);
    }
  }

  /** Sends a request, at once or when the guest posts its buffer for it. */
  sendRequest(command: number): void {
    const running = this.#queues.find(queue => queue?.role === 'request');
    if (running === undefined || running.suspended) return;
    try {
      if (this.requests.send(running, command)) this.#publish(running);
    } catch (error) {
      this.#stopBroken(running, error);
    }
  }

  /** Has a ring stopped whose indices or place are nonsense. Throws an error that is no ring's fault again. */
  #stopBroken(running: RunningQueue, error: unknown): void {
    if (!isRingFault(error)) throw error;
    this.counters.brokenRings++;
    running.doorbell.fail(error);
  }

  /** Discards all that is pending: before it returns, or before the device is settled. */
  drain(): void {
    this.#drain();
  }

  /**
   * Goes on where another device stopped, with its account: `runs` are pairs of page frame and pages, in rising order,
   * all of them guest memory. Before any ring runs.
   */
  resumeFrom(
    { targetPages, actualPages, poisonValue, hintId, statistics }: DeviceFigures,
    runs: Uint32Array,
  ): void {
    this.#begun = true;
    this.#actualKnown = true;
    this.inflation.adopt(runs);
    this.#drain();
    if (hintId !== 0) this.hints.resumeAfter(hintId);
    this.statistics.sample = statistics;
    this.#config.targetPages = targetPages;
    this.#config.actualPages = actualPages;
    this.#config.poisonValue = poisonValue;
    this.#config.hintCommandId = this.hints.commandId;
    this.#updatePoison();
  }

  /** The driver starts over: nothing of it is remembered but the totals. The target stays, it is the host's. */
  reset(): void {
    for (let index = 0; index < this.#queues.length; index++) this.stopQueue(index, 'abandoned');
    this.#forget();
    this.accounts.held = false;
    this.#actualKnown = false;
    this.hints.reset();
    this.statistics.reset();
    this.requests.reset();
    this.#config.actualPages = 0;
    this.#config.poisonValue = 0;
    this.#config.hintCommandId = this.hints.commandId;
    this.#negotiated(0n);
    this.counters.resets++;
    this.#observer.reset?.();
  }

  #negotiated(features: bigint): void {
    this.#driverFeatures = features;
    this.#roles = queueRoles(this.profile, features);
    this.#format = listFormat(this.profile, features);
    this.inflation.negotiated(features);
    this.#updatePoison();
  }

  #updatePoison(): void {
    const poisons = (this.#driverFeatures & PAGE_POISON & this.profile.featureMask) !== 0n;
    this.reporting.keepContents = this.profile.name === 'virtio' && poisons && this.poisonValue !== 0;
  }

  /** One batch: take all that is available, act, return all of it, interrupt once. True when there is more. */
  #serveBatch(running: RunningQueue): boolean {
    const { queue, memory, walk } = running;
    const moves = running.role === 'inflate' || running.role === 'deflate';
    const outsideBefore = this.accounts.pagesOutside;
    if (moves) this.counters.acknowledgeTimes.begin();
    let taken = 0;
    queue.suppressKicks(memory);
    for (; taken < queue.size && !this.accounts.budget.over; taken++) {
      if (!walk.active && !this.#takeBuffer(running)) break;
      if (!this.#goOn(running)) break;
    }
    const outside = this.accounts.pagesOutside - outsideBefore;
    if (outside > 0) {
      this.#host.badInput(
        `${outside} pages on the ${running.role} queue are not guest memory, or came too often`,
      );
    }
    if (moves) this.inflation.beforeAcknowledging();
    if (!this.#mayReturn(running)) {
      running.kept = true;
      running.keptBuffers = taken;
      running.keptSinceMs = moves ? this.counters.acknowledgeTimes.sinceMs : 0;
      this.inflation.takeMarked();
      this.#host.discardSoon?.();
      return false;
    }
    this.#publish(running);
    if (moves && taken > 0) this.counters.acknowledgeTimes.end(taken);
    if (moves && this.inflation.takeMarked()) this.#host.pendingMarked();
    this.#reportFailures();
    return queue.requestKicks(memory) || walk.active;
  }

  /** Whether all discards are over that have to be before the ring's batch is returned. */
  #mayReturn({ role }: RunningQueue): boolean {
    if (!this.accounts.elsewhere) return true;
    if (role === 'inflate') return this.inflation.mayAcknowledge();
    if (role === 'deflate') return this.accounts.quiet;
    if (!isReporting(role)) return true;
    if (!this.reporting.mayAcknowledge()) return false;
    this.reporting.acknowledging();
    return true;
  }

  /** Returns the batch that was kept, if there is one and nothing speaks against it any more; false if it stays. */
  #returnKept(running: RunningQueue): boolean {
    if (!running.kept) return true;
    if (!this.#mayReturn(running)) return false;
    running.kept = false;
    this.#publish(running);
    if (!isReporting(running.role) && running.keptBuffers > 0) {
      this.counters.acknowledgeTimes.count(monotonicMs() - running.keptSinceMs, running.keptBuffers);
    }
    this.#reportFailures();
    return true;
  }

  /** Takes the next buffer, and begins its list or is done with it. False when there is none. */
  #takeBuffer(running: RunningQueue): boolean {
    const { queue, memory, chain } = running;
    if (!queue.pop(memory, chain)) return false;
    this.counters.buffers++;
    this.accounts.budget.spent += workOf(chain);
    if (chain.fault !== undefined) this.#badBuffer(running, chain.fault);
    else this.#serveChain(running);
    return true;
  }

  #serveChain(running: RunningQueue): void {
    const { queue, memory, chain, role, walk } = running;
    try {
      switch (role) {
        case 'inflate':
          running.readList();
          this.inflation.inflate(walk, this.#format);
          break;
        case 'deflate':
          running.readList();
          this.inflation.deflate(walk, this.#format);
          break;
        case 'reporting':
        case 'hinting':
          running.readList();
          this.reporting.report(walk, this.profile.freePages.format);
          break;
        case 'hint':
          running.readList();
          this.hints.take(walk, this.accounts);
          break;
        case 'stats':
          this.statistics.take(running);
          return;
        case 'request':
          if (!this.requests.take(running, this.accounts)) return;
          break;
      }
    } catch (error) {
      if (!(error instanceof PageListError)) throw error;
      this.#badBuffer(running, error.message);
      return;
    }
    if (!walk.active) queue.pushUsed(memory, chain, 0);
  }

  /** Goes on with the list that was begun; false when it needs another turn. */
  #goOn({ queue, memory, chain, role, walk }: RunningQueue): boolean {
    if (!walk.active) return true;
    const moves = role === 'inflate' || role === 'deflate';
    if (!(moves ? this.inflation.goOn(walk) : walk.goOn(this.accounts))) return false;
    if (role === 'request') this.requests.answered();
    queue.pushUsed(memory, chain, 0);
    return true;
  }

  #badBuffer(running: RunningQueue, reason: string): void {
    this.counters.badBuffers++;
    this.#host.badInput(`a buffer on the ${running.role} queue was refused: ${reason}`);
    // Rings that are in order take buffers back in no other: the sample that is kept came before this one.
    if (running.role === 'stats') this.statistics.request(running);
    running.queue.pushUsed(running.memory, running.chain, 0);
  }

  /** Shows the driver what was returned, and interrupts it if it wants that. */
  #publish(running: RunningQueue): void {
    if (!running.queue.publish(running.memory)) return;
    this.counters.notifications++;
    running.doorbell.interrupt();
  }

  /** A ring that starts in the middle has a driver whose balloon was filled before, and nothing here knows with what. */
  #begin({ nextAvail }: DeviceQueue): void {
    if (this.#begun) return;
    this.#begun = true;
    const fresh = nextAvail === initialState(this.#driverFeatures).nextAvail;
    this.accounts.partial = !fresh;
    this.#actualKnown ||= fresh;
  }

  /** Nothing is in the balloon, as far as the account knows. */
  #forget(): void {
    this.accounts.forget();
    this.accounts.partial = false;
    this.#begun = false;
  }

  /** Sees to it that nothing that is pending is discarded, or lets it be discarded again. */
  #hold(held: boolean): void {
    if (this.accounts.held === held) return;
    this.accounts.held = held;
    if (!held && this.accounts.pendingPages > 0) this.#host.pendingMarked();
  }

  #drain(): void {
    if (this.accounts.elsewhere) {
      this.#draining = true;
      this.accounts.haste = true;
      this.#host.discardSoon?.();
      return;
    }
    this.inflation.drain();
    this.#reportFailures();
  }

  #reportFailures(): void {
    const failure = this.inflation.failure ?? this.reporting.failure;
    if (failure === undefined) return;
    this.inflation.failure = undefined;
    this.reporting.failure = undefined;
    this.#host.discardFailed(failure);
  }

  #hintChanged(): void {
    const shown = this.#config.hintCommandId;
    this.#config.hintCommandId = this.hints.commandId;
    if (shown !== this.hints.commandId) this.#host.configChanged();
    this.#host.hintChanged();
  }
}

const isReporting = (role: QueueRole): boolean => role === 'reporting' || role === 'hinting';

/** Whether a ring or its memory is to blame: its indices are nonsense, or it lies in no memory that can be mapped. */
const isRingFault = (error: unknown): error is Error =>
  error instanceof VirtqueueError || error instanceof MemoryAccessError || error instanceof SystemError;
