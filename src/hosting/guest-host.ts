/**
 * One guest of the daemon: its socket, the vhost-user conversation on it, the balloon device behind it, and
 * what is known about it for those who ask. Lives in a data-plane thread. Whatever goes wrong with one guest
 * ends here: the connection is dropped and the next front-end is waited for.
 */

import { randomInt } from 'node:crypto';
import { HINT_ID_MIN } from '../balloon/hint-session.ts';
import { queueRoles } from '../balloon/profiles.ts';
import type {
  DeviceGuestStatus,
  GuestChanges,
  GuestRequest,
  HintAction,
  HintStatus,
  RequestAnswer,
  StatisticsSample,
} from '../control/contract.ts';
import { GuestStateError } from '../control/contract.ts';
import { type GuestState, obstacleOf } from '../control/guest-state.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import type { DeviceHost } from '../device/device-host.ts';
import type { DeviceObserver } from '../device/device-observer.ts';
import { loadDevice, saveDevice } from '../device/saved-device.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../memory/page.ts';
import { PageSet } from '../memory/page-set.ts';
import { AerostatError, InvariantError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { shrinkSeal } from '../sys/file.ts';
import { processClock } from '../sys/monotonic.ts';
import type { Reactor, Timer } from '../sys/poll.ts';
import type { DiscardLane, DiscardLink } from '../threads/discard-link.ts';
import { VhostUserError } from '../vhost-user/protocol.ts';
import type { StopReason } from '../virtio/device.ts';
import { ConnectionNews } from './connection-news.ts';
import { type BalloonedRegion, FreePages } from './free-pages.ts';
import { FrontDoor } from './front-door.ts';
import { type ConversationCounters, deviceStatus, guestCounters } from './guest-counters.ts';
import { GuestLife } from './guest-life.ts';
import { GuestLoop } from './guest-loop.ts';
import { GuestNews, type NewsOutlet } from './guest-news.ts';
import { GuestRequests } from './guest-requests.ts';
import { HintLimit } from './hint-limit.ts';
import { KnownConfiguration } from './known-configuration.ts';
import { type MapSources, mapSources } from './map-sources.ts';
import { offer } from './offer.ts';
import type { GuestOptions } from './options.ts';
import { RemovedMemory } from './removed-memory.ts';
import { StatisticsPoll } from './statistics-poll.ts';
import { TargetSteering } from './target-steering.ts';
import type { GuestTurns, ThreadTurns } from './thread-turns.ts';
import type { GuestSocket } from './worker-protocol.ts';

/** Hint sessions begin at one of so many ids: enough that a daemon that is started anew meets none of its predecessor's. */
const FIRST_HINT_IDS = 2 ** 30;

/** A guest that leaves has what it gave away discarded first, for so long. */
const CLOSING_MS_MAX = 5000;
/** A front-end that sets up rings before there is a driver has done it so long after it came. */
const RINGS_SET_UP_MS_MAX = 2000;
const NOT_TAKEN = 'its driver did not take the feature';

export interface GuestHostWorld extends NewsOutlet {
  readonly reactor: Reactor;
  readonly discards: DiscardLink;
  /** Of all guests of the thread. */
  readonly turns: ThreadTurns;
}

export class GuestHost {
  readonly name: string;
  readonly device: BalloonDevice;
  /** Pages that the guest said it does not use, in the hint session or answer that came last. */
  readonly unusedPages = new PageSet(PFN_LIMIT);
  /** Where those pages go while the guest moves elsewhere. */
  readonly freePages = new FreePages(
    () => this.device,
    () => this.#door?.session?.memory,
  );
  readonly #world: GuestHostWorld;
  readonly #turns: GuestTurns;
  readonly #loop: GuestLoop;
  readonly #options: GuestOptions;
  readonly #news: GuestNews;
  readonly #target: TargetSteering;
  readonly #hintLimit: HintLimit;
  readonly #removed: RemovedMemory;
  readonly #connections: ConnectionNews;
  readonly #life = new GuestLife();
  /** Absent only while the rest of the guest is put together. */
  #door: FrontDoor | undefined;
  readonly #statistics: StatisticsPoll;
  readonly #requests: GuestRequests;
  readonly #conversation: ConversationCounters = { badRequests: 0, connections: 0 };
  readonly #known = new KnownConfiguration();
  /** By a driver that takes all features that are offered. */
  readonly #ringsNeeded: number;
  #ringsLook: Timer | undefined;
  /** Rings with more than a turn's share, which go on after the others. */
  readonly #busyRings = new Set<number>();
  readonly #lane: DiscardLane;
  /** Called when nothing is under way any more, each once. */
  #whenSettled: (() => void)[] = [];
  /** Files that were sealed, or could not be: they are not asked for again. */
  #sealed = false;
  /** A device that was saved elsewhere, and waits for the guest's memory. */
  #arriving: { saved: Uint8Array; resolve(): void; reject(error: Error): void } | undefined;

  constructor(options: GuestOptions, socket: GuestSocket, world: GuestHostWorld) {
    this.name = options.name;
    this.#options = options;
    this.#world = world;
    this.#turns = world.turns.join();
    this.#loop = new GuestLoop(world.reactor, this.#turns);
    this.#news = new GuestNews(options.name, world, world.reactor);
    this.#lane = world.discards.openLane();
    this.#connections = new ConnectionNews(this.#news, world.reactor);
    const offered = offer(options.profile, options.without);
    this.device = new BalloonDevice({
      profile: offered.profile,
      features: offered.balloon | offered.rings,
      host: this.#deviceHost(),
      observer: this.#observer(),
      clock: processClock,
      unusedPages: { add: (pfn, count) => this.#named(pfn, count) },
    });
    this.#ringsNeeded = queueRoles(offered.profile, offered.balloon).length;
    this.device.inflation.mode = options.discard;
    this.device.inflation.timed = options.timed ?? false;
    this.device.targetPages = options.targetBytes / PAGE_SIZE;
    this.device.hints.beginAt(randomInt(HINT_ID_MIN, HINT_ID_MIN + FIRST_HINT_IDS));
    const { name, device } = this;
    const steered = {
      name,
      device,
      memoryBytes: () => this.#door?.session?.memory.size ?? 0,
      sample: () => this.sample(),
      bootGraceMs: options.bootGraceMs ?? 0,
    };
    this.#target = new TargetSteering(steered, world.reactor, this.#news);
    const removedBytes = () => device.accounts.removedPages * PAGE_SIZE;
    this.#removed = new RemovedMemory(removedBytes, this.#news, world.reactor);
    this.#hintLimit = new HintLimit(world.reactor, limitMs => {
      this.#news.log('info', 'a hint session was ended, for nobody had ended it within its limit', {
        limitMs,
      });
    });
    this.#statistics = new StatisticsPoll(this.name, this.device, world.reactor, {
      intervalMs: options.pollIntervalMs,
      obstacle: () => obstacleOf(this.state),
    });
    this.#requests = new GuestRequests(this.name, this.device, world.reactor, {
      unusedPages: this.unusedPages,
      obstacle: () => obstacleOf(this.state),
    });
    this.#door = new FrontDoor(socket, this.device, this.#loop, {
      opened: () => this.#connected(),
      closed: error => this.#disconnected(error),
      refused: (error, context) => this.#refused(error, context),
      taken: () => this.#begin(),
      kicked: index => this.serveQueue(index),
      prepareMemory: files => this.#prepareMemory(files),
    });
  }

  #connected(): void {
    this.#conversation.connections++;
    this.#begin();
    this.#connections.opened();
  }

  /** Another front-end, or another device of the one that is there. */
  #begin(): void {
    this.#known.begin(this.device.hints.counters.hintBuffers);
    this.#ringsLook?.cancel();
    this.#ringsLook = this.#world.reactor.schedule(RINGS_SET_UP_MS_MAX, () => {
      const { session } = this.#door ?? {};
      const complaint = this.#known.complaintOfRings(session?.ringsSetUp ?? 0, this.#ringsNeeded);
      if (complaint !== undefined) this.#news.problem('rings', complaint);
    });
  }

  #disconnected(error: Error | undefined): void {
    this.#arriving?.reject(new GuestStateError('the front-end went before it had handed over the memory'));
    this.#arriving = undefined;
    this.#sealed = false;
    this.#statistics.stop();
    this.#requests.stop();
    this.#news.drop();
    this.#target.forget();
    this.#removed.gone();
    this.#hintLimit.cancel();
    this.#ringsLook?.cancel();
    if (error !== undefined) this.#fault(error);
    this.#connections.closed();
  }

  #notifyConfig(): void {
    // A driver reads the configuration when it starts; later changes need the front-end's channel.
    if ((this.#door?.configChanged() ?? true) || (this.#door?.session?.ringsRunning ?? 0) === 0) return;
    this.#news.problem(
      'no-channel',
      'the front-end offers no channel for configuration changes; the guest sees new targets when its driver starts',
    );
  }

  // What the back-end asks of this host, beside what it asks of the device ---------------------------------

  #prepareMemory(files: readonly OwnedFd[]): boolean {
    if (this.#lane.sealing) return false;
    const unsealed = this.#sealed ? [] : files.filter(file => shrinkSeal(file) === 'open');
    this.#sealed = false;
    if (unsealed.length === 0) return true;
    this.#sealed = true;
    this.#lane.seal(unsealed);
    return false;
  }

  /** A thread that discards has news. */
  progress(): void {
    this.#loop.step(this.#progress);
  }

  /** Does what somebody else asks of the guest; what it costs counts as the guest's. */
  charge<T>(run: () => T): T {
    return this.#loop.charge(run);
  }

  readonly #progress = (): void => {
    this.device.reportFailures();
    this.#door?.progress();
    if (this.#whenSettled.length > 0 && this.device.settle()) {
      for (const then of this.#whenSettled.splice(0)) then();
    }
    for (const index of this.device.resumable()) this.serveQueue(index);
  };

  /** Calls `then` when nothing is under way, at once if nothing is. */
  #afterSettling(then: () => void): void {
    if (this.#whenSettled.length === 0 && this.device.settle()) then();
    else this.#whenSettled.push(then);
  }

  /** Gives ring `index` a turn, and more after the others' while it needs them. */
  serveQueue(index: number): void {
    // A kick brings a ring that goes on anyway no turn of its own: with one more each time, it would have all of them.
    if (this.#busyRings.has(index)) return;
    try {
      const more = this.device.serveQueue(index, this.#turns.work);
      this.#checkConfiguration();
      if (!more) return;
    } catch (error) {
      // A bug of ours. It costs this guest its connection, and the others nothing.
      this.#door?.drop(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#busyRings.add(index);
    this.#loop.stepLater(() => {
      this.#busyRings.delete(index);
      this.serveQueue(index);
    });
  }

  #checkConfiguration(): void {
    const { accounts, hints, targetPages } = this.device;
    const complaint = this.#known.complaint({
      memoryBytes: this.#door?.session?.memory.size ?? 0,
      balloonedPages: accounts.balloonedPages,
      targetPages,
      hintBuffers: hints.counters.hintBuffers,
    });
    if (complaint !== undefined) this.#news.problem('configuration', complaint);
  }

  // What is noticed of the device -------------------------------------------------------------------------

  #observer(): DeviceObserver {
    return {
      configRead: (offset, length) => {
        this.#target.show();
        this.#known.read(offset, length);
      },
      regionAdded: ({ backing, size }) => {
        this.#target.memoryChanged();
        this.#removed.changed();
        this.#loadNow();
        if (backing.file?.sealed === false) {
          this.#news.log(
            'debug',
            'guest memory can be shrunk by its front-end, which would end this daemon',
            {
              sizeBytes: size,
            },
          );
        }
      },
      regionRemoved: () => {
        this.#target.memoryChanged();
        this.#removed.changed();
      },
      queueStarted: (role, known) => {
        if (role === 'inflate') this.#started(known);
      },
      queueSuspended: role => {
        if (role !== 'inflate') return;
        this.#target.rest();
        this.#stopped('paused');
      },
      queueResumed: role => {
        if (role !== 'inflate') return;
        this.#target.resume();
        this.#life.started();
        this.#stateChanged();
      },
      queueStopped: (role, reason) => {
        if (role !== 'inflate') return;
        if (reason === 'abandoned') this.#target.awaitDriver();
        else this.#target.rest();
        this.#stopped(reason);
      },
      reset: () => {
        this.#requests.stop();
        this.#life.ended();
        this.#target.awaitDriver();
        this.#news.changed('reset', () => ({}));
      },
    };
  }

  #started(known: boolean): void {
    this.#life.started();
    this.#stateChanged();
    if (this.device.accounts.partial) {
      this.#news.problem(
        'account',
        'the driver ran before this connection: what its balloon held then is not known until it starts anew',
      );
    }
    this.#news.changed('ready', () => ({}));
    this.#target.begin(known ? 'known' : this.device.accounts.partial ? 'found' : 'fresh');
    this.#statistics.start();
  }

  #stopped(reason: StopReason): void {
    if (reason === 'abandoned') this.#life.ended();
    else this.#life.paused();
    this.#stateChanged();
  }

  /** A front-end may disable and enable its rings as often as it likes. */
  #stateChanged(): void {
    this.#news.changed('state', () => ({ state: this.state }));
    const obstacle = obstacleOf(this.state);
    if (obstacle !== undefined) this.#statistics.dismiss(`${this.name} sends no statistics: ${obstacle}`);
  }

  // The device's reaching out -----------------------------------------------------------------------------

  #deviceHost(): DeviceHost {
    return {
      configChanged: () => this.#notifyConfig(),
      accountOpened: ({ region, pending }) => this.#lane.add(region, pending),
      reportsOpened: account => this.#lane.add(account.region, account.openReports()),
      pendingMarked: () => this.#lane.wake(),
      discardSoon: () => this.#lane.hurry(),
      badInput: reason => this.#news.problem('bad-input', reason),
      discardFailed: error =>
        this.#news.problem('discard', `memory could not be given back: ${error.message}`),
      actualChanged: pages => this.#actualChanged(pages),
      statisticsArrived: () => this.#statisticsArrived(),
      hintChanged: () => this.#hintChanged(),
      requestAnswered: () => {
        this.freePages.finished('request');
        this.#requests.answered();
        const answered = this.device.requests.progress?.done === true;
        this.#news.tell('hint', { state: answered ? 'answered' : 'unanswered' });
      },
    };
  }

  /** What the guest says of its balloon is shown, not trusted: it may even be impossible. */
  #actualChanged(pages: number): void {
    const memoryPages = (this.#door?.session?.memory.size ?? 0) / PAGE_SIZE;
    if (pages > memoryPages) {
      this.#conversation.badRequests++;
      this.#news.problem(
        'actual',
        `the guest says that its balloon holds ${pages} pages; its memory has ${memoryPages}`,
      );
    }
    this.#target.actual(pages);
  }

  #refused(error: Error, { request, ringIndex }: { request?: string; ringIndex?: number }): void {
    this.#conversation.badRequests++;
    const subject = request === undefined ? `ring ${ringIndex} refused` : 'request refused';
    this.#news.problem(request ?? 'ring', `${subject}: ${error.message}`);
  }

  #fault(error: Error): void {
    // A message that cannot be followed is refused with all that might have come after it.
    if (error instanceof VhostUserError) this.#conversation.badRequests++;
    const ours = !(error instanceof AerostatError) || error instanceof InvariantError;
    this.#news.problem('connection', error.message, ours ? 'error' : 'warn');
  }

  // Steering ----------------------------------------------------------------------------------------------

  /** All of it, or nothing. @throws GuestStateError, UnconfirmedError */
  change(changes: GuestChanges): void {
    this.#target.check(changes);
    const { targetBytes, memoryBytes, discard, pollIntervalMs } = changes;
    // The target last, so that the change that it starts goes by the new way of discarding.
    if (discard !== undefined) this.device.inflation.mode = discard;
    if (pollIntervalMs !== undefined) this.#statistics.intervalMs = pollIntervalMs;
    if (targetBytes !== undefined) this.#target.set(targetBytes);
    if (memoryBytes !== undefined) this.#target.keep(memoryBytes);
  }

  /** See {@link StatisticsPoll.fresh}. */
  statistics(freshMs: number | null, timeoutMs: number): Promise<StatisticsSample> {
    return this.#statistics.fresh(freshMs, timeoutMs);
  }

  /** The newest statistics. */
  sample(): StatisticsSample {
    return this.#statistics.sample;
  }

  #statisticsArrived(): void {
    this.#statistics.arrived();
    if (this.device.statistics.answered) this.#target.answered();
    this.#news.changed('statistics', () => ({ freeBytes: this.sample().statistics.freeBytes }));
  }

  /** A session that starts ends after `limitMs` if nobody ends it before. */
  hint(action: HintAction, limitMs: number): HintStatus {
    const { hints } = this.device;
    const obstacle = obstacleOf(this.state) ?? (hints.running ? undefined : NOT_TAKEN);
    if (obstacle !== undefined) throw new GuestStateError(`${this.name} takes no hint sessions: ${obstacle}`);
    if (action === 'start') {
      this.unusedPages.clear();
      hints.begin();
      this.#hintLimit.start(hints, limitMs);
    } else if (action === 'stop') {
      hints.end();
    } else {
      hints.done();
      this.#hintLimit.cancel();
    }
    return this.hintStatus();
  }

  /** See {@link GuestRequests.ask}. */
  request(request: GuestRequest, timeoutMs: number): Promise<RequestAnswer> {
    if (this.freePages.followed) {
      throw new GuestStateError(`${this.name} is moving, and asked for its free pages all the time`);
    }
    return this.#requests.ask(request, timeoutMs);
  }

  #named(pfn: number, count: number): void {
    this.unusedPages.add(pfn, count);
    this.freePages.add(pfn, count);
  }

  #hintChanged(): void {
    const { state } = this.hintStatus();
    if (state === 'stopped') this.freePages.finished('session');
    this.#news.tell('hint', { state, heldBytes: this.hintStatus().heldBytes });
  }

  hintStatus(): HintStatus {
    const { hints } = this.device;
    return {
      state: hints.running ? hints.phase : 'unsupported',
      commandId: hints.session.id,
      hintedBytes: this.unusedPages.pages * PAGE_SIZE,
      ranges: hints.ranges,
      heldBytes: hints.holding ? this.unusedPages.pages * PAGE_SIZE : 0,
      endsInMs: this.#hintLimit.endsInMs(hints.session.id),
    };
  }

  get connected(): boolean {
    return this.#door?.connected ?? false;
  }

  get state(): GuestState {
    return this.#life.state({
      connected: this.connected,
      pid: this.#door?.peerPid,
      askedMs: this.device.statistics.askedMs,
      kicks: this.device.kicks,
    });
  }

  status(): DeviceGuestStatus {
    const { device } = this;
    const figures = deviceStatus(device, this.#door?.session?.memory);
    if (figures.pendingBytes === 0) this.#target.drained(device.inflation.discards.lastMs);
    const counters = guestCounters(device, this.#conversation);
    // In this order: whoever reads that discards failed finds the reason beside it.
    device.reportFailures();
    return {
      name: this.name,
      socketPath: this.#options.socketPath ?? null,
      connected: this.connected,
      state: this.state,
      ...figures,
      wishedMemoryBytes: this.#target.wishedMemoryBytes,
      actualBytes: this.connected ? figures.actualBytes : null,
      counters,
      progress: this.#target.progress,
      stuck: this.#target.stuck,
      hint: this.hintStatus(),
      lastError: this.#news.lastProblem,
    };
  }

  mapSources(): MapSources {
    return mapSources(this.device.accounts.all, this.unusedPages);
  }

  balloon(): BalloonedRegion[] {
    return this.device.accounts.all.map(({ region, ballooned }) => ({
      firstPfn: region.firstPfn,
      pages: region.pageCount,
      ballooned: ballooned.expose(),
    }));
  }

  /** The device, whose rings have stopped. */
  save(): Uint8Array {
    return saveDevice(this.device, this.#target.wishedMemoryBytes);
  }

  /**
   * Goes on with a device that was saved elsewhere, once the front-end has handed over the memory; it has started no ring
   * then. Rejects with DeviceStateError, or when the front-end goes before.
   */
  load(saved: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#arriving = { saved, resolve, reject };
      if ((this.#door?.session?.memory.regions.length ?? 0) > 0) this.#loadNow();
    });
  }

  #loadNow(): void {
    const arriving = this.#arriving;
    if (arriving === undefined) return;
    this.#arriving = undefined;
    try {
      this.#target.resumed(loadDevice(this.device, arriving.saved));
      this.#afterSettling(arriving.resolve);
    } catch (error) {
      arriving.reject(error as Error);
    }
  }

  /** Gives back what is pending and lets go of everything. A file that keeps that from ending is given up after a while. */
  async close(): Promise<void> {
    await new Promise<void>(resolve => {
      this.device.drain();
      const patience = this.#world.reactor.schedule(CLOSING_MS_MAX, resolve);
      this.#afterSettling(() => {
        patience.cancel();
        resolve();
      });
    });
    this.#door?.close();
    this.#lane.close();
    this.#loop.close();
  }
}
