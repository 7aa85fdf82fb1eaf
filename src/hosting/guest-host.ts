/**
 * One hosted guest, put together: its socket, the vhost-user conversation on it, the balloon device behind it, and the parts
 * that steer and watch them. Lives in a data-plane thread. Whatever goes wrong with one guest ends here: the connection is
 * dropped and the next front-end is waited for.
 */

import { queueRoles } from '../balloon/profiles.ts';
import type { DeviceGuestStatus, GuestRequest, GuestState, RequestAnswer } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import { obstacleOf } from '../control/guest-state.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import type { DeviceHost } from '../device/device-host.ts';
import { loadDevice, saveDevice } from '../device/saved-device.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError, InvariantError } from '../sys/error.ts';
import { processClock } from '../sys/monotonic.ts';
import type { DiscardLane } from '../threads/discard-link.ts';
import { VhostUserError } from '../vhost-user/protocol.ts';
import { Acceptor, type AcceptorListener } from './acceptor.ts';
import { ArrivingDevice, checkFresh } from './arriving-device.ts';
import { AutomaticEviction } from './automatic-eviction.ts';
import { ConnectionEvents } from './connection-events.ts';
import { type DriverParts, DriverWatch } from './driver-watch.ts';
import { beginIdsAnywhere } from './first-ids.ts';
import type { BalloonedRegion } from './free-pages.ts';
import { FrontEndChecks } from './front-end-checks.ts';
import { type ConversationCounters, deviceStatus, guestCounters } from './guest-counters.ts';
import { GuestEvents } from './guest-events.ts';
import { GuestHints } from './guest-hints.ts';
import { GuestKeeping } from './guest-keeping.ts';
import { GuestLife } from './guest-life.ts';
import { GuestLoop } from './guest-loop.ts';
import { GuestRequests } from './guest-requests.ts';
import type { GuestHostWorld } from './guest-world.ts';
import { type MapSources, mapSources } from './map-sources.ts';
import { offeredFeatures } from './offered-features.ts';
import type { GuestOptions } from './options.ts';
import { RemovedMemory } from './removed-memory.ts';
import { RingTurns } from './ring-turns.ts';
import { StatisticsPoll, tellSample } from './statistics-poll.ts';
import { TargetSteering } from './target-steering.ts';
import type { GuestSocket } from './worker-protocol.ts';

/** A guest that leaves has what it gave away discarded first, for so long. */
const CLOSING_MS_MAX = 5000;

export class GuestHost {
  readonly name: string;
  readonly device: BalloonDevice;
  readonly hints: GuestHints;
  readonly target: TargetSteering;
  readonly statistics: StatisticsPoll;
  /** Its part of the thread's time. */
  readonly loop: GuestLoop;
  readonly rings: RingTurns;
  readonly #world: GuestHostWorld;
  readonly #options: GuestOptions;
  readonly #events: GuestEvents;
  readonly #removed: RemovedMemory;
  readonly #connections: ConnectionEvents;
  readonly #life = new GuestLife();
  /** Absent only while the rest of the guest is put together. */
  acceptor: Acceptor | undefined;
  readonly requests: GuestRequests;
  readonly #conversation: ConversationCounters = { badRequests: 0, connections: 0 };
  readonly #checks: FrontEndChecks;
  readonly #arriving: ArrivingDevice;
  readonly #eviction: AutomaticEviction;
  readonly lane: DiscardLane;
  readonly keeping: GuestKeeping | undefined;
  /** Called when nothing is under way any more, each once. */
  #whenSettled: (() => void)[] = [];

  constructor(given: GuestOptions, socket: GuestSocket, world: GuestHostWorld) {
    this.name = given.name;
    this.keeping = GuestKeeping.of(given, socket, world);
    const { guest: kept, options = given } = this.keeping ?? {};
    this.#options = options;
    this.#world = world;
    const turns = world.turns.join();
    this.loop = new GuestLoop(world.reactor, turns);
    this.#events = new GuestEvents(options.name, world, world.reactor);
    this.lane = world.discards.openLane(options.arriving);
    this.#connections = new ConnectionEvents(this.#events, world.reactor);
    const obstacle = () => obstacleOf(this.state);
    const memory = () => this.acceptor?.session?.memory;
    const hinted = { name: this.name, device: () => this.device, memory, obstacle };
    this.hints = new GuestHints(hinted, world.reactor, this.#events);
    const offered = offeredFeatures(options.profile, options.without, kept !== undefined);
    this.device = new BalloonDevice({
      profile: offered.profile,
      features: offered.balloon | offered.rings,
      host: this.#deviceHost(),
      observer: new DriverWatch(() => this.#driverParts()),
      clock: processClock,
      unusedPages: this.hints,
      accountPlace: kept,
    });
    this.#eviction = new AutomaticEviction(this.device, this.loop, options.evictionMs);
    this.device.inflation.mode = options.discard;
    if (options.timed === true) this.device.inflation.timeDecoding();
    this.device.targetPages = options.targetBytes / PAGE_SIZE;
    beginIdsAnywhere(this.device);
    const { name, device } = this;
    this.#arriving = new ArrivingDevice(device);
    this.rings = new RingTurns(device, turns, this.loop, {
      served: () => this.#checks.served(),
      failed: error => this.acceptor?.drop(error),
    });
    const checked = {
      device,
      lane: this.lane,
      ringsNeeded: queueRoles(offered.profile, offered.balloon).length,
      session: () => this.acceptor?.session,
    };
    this.#checks = new FrontEndChecks(checked, world.reactor, this.#events);
    const steered = {
      name,
      device,
      memoryBytes: () => memory()?.size ?? 0,
      sample: () => this.statistics.sample,
      bootGraceMs: options.bootGraceMs ?? 0,
    };
    this.target = new TargetSteering(steered, world.reactor, this.#events);
    const removedBytes = () => device.accounts.removedPages * PAGE_SIZE;
    this.#removed = new RemovedMemory(removedBytes, this.#events, world.reactor);
    this.statistics = new StatisticsPoll(this.name, this.device, world.reactor, {
      intervalMs: options.pollIntervalMs,
      obstacle,
    });
    this.requests = new GuestRequests(this.name, this.device, world.reactor, {
      unusedPages: this.hints.unusedPages,
      obstacle,
    });
    const found = this.keeping?.start(this, socket.listening);
    this.acceptor = new Acceptor(socket, device, this.loop, this.#frontEnds(), kept);
    if (found !== undefined) this.acceptor.takeUp(found.socket, found.session);
  }

  #frontEnds(): AcceptorListener {
    return {
      opened: goesOn => this.#connected(goesOn),
      closed: error => this.#disconnected(error),
      refused: (error, context) => this.#refused(error, context),
      taken: () => this.#checks.begin(),
      kicked: this.rings.serve,
      prepareMemory: files => this.#checks.prepareMemory(files),
      deviceState: { save: () => this.save(), load: saved => this.#loadFromFrontEnd(saved) },
    };
  }

  #connected(goesOn: boolean): void {
    this.#conversation.connections++;
    this.#checks.begin(goesOn);
    this.#connections.opened();
  }

  #disconnected(error: Error | undefined): void {
    this.#arriving.fail(new GuestStateError('the front-end went before it had handed over the memory'));
    this.#checks.end();
    this.statistics.stop();
    this.requests.stop();
    this.#events.drop();
    this.target.forget();
    this.#removed.gone();
    this.hints.forget();
    if (error !== undefined) this.#fault(error);
    this.#connections.closed();
  }

  #notifyConfig(): void {
    // A driver reads the configuration when it starts; later changes need the front-end's channel.
    if ((this.acceptor?.configChanged() ?? true) || (this.acceptor?.session?.ringsRunning ?? 0) === 0) return;
    this.#events.problem(
      'no-channel',
      'the front-end offers no channel for configuration changes; the guest sees new targets when its driver starts',
    );
  }

  /** A thread that discards has news. */
  progress(): void {
    this.loop.step(this.#progress);
  }

  readonly #progress = (): void => {
    this.device.reportFailures();
    this.acceptor?.progress();
    if (this.#whenSettled.length > 0 && this.device.settle()) {
      for (const then of this.#whenSettled.splice(0)) then();
    }
    for (const index of this.device.resumable()) this.rings.serve(index);
  };

  /** Calls `then` when nothing is under way, at once if nothing is. */
  afterSettling(then: () => void): void {
    if (this.#whenSettled.length === 0 && this.device.settle()) then();
    else this.#whenSettled.push(then);
  }

  #driverParts(): DriverParts {
    const { name, device } = this;
    return {
      name,
      device,
      state: () => this.state,
      life: this.#life,
      events: this.#events,
      target: this.target,
      removed: this.#removed,
      checks: this.#checks,
      statistics: this.statistics,
      requests: this.requests,
      memoryArrived: () => this.#loadNow(),
    };
  }

  // The device's reaching out -----------------------------------------------------------------------------

  #deviceHost(): DeviceHost {
    return {
      configChanged: () => this.#notifyConfig(),
      accountOpened: ({ region, pending }) => this.lane.add(region, pending),
      reportsOpened: account => this.lane.add(account.region, account.openReports()),
      pendingMarked: () => this.lane.marked(this.device.accounts.pendingPages * PAGE_SIZE),
      discardSoon: () => this.lane.hurry(),
      stepSoon: () => this.loop.stepLater(() => this.device.shared.step()),
      badInput: reason => this.#events.problem('bad-input', reason),
      discardFailed: error =>
        this.#events.problem('discard', `memory could not be given back: ${error.message}`),
      actualChanged: pages => this.#actualChanged(pages),
      statisticsArrived: () => this.#statisticsArrived(),
      hintChanged: () => {
        this.keeping?.guest.noteDevice();
        this.hints.changed();
      },
      requestAnswered: () => {
        this.requests.answered();
        this.hints.answered();
      },
    };
  }

  /** What the guest says of its balloon is shown, not trusted: it may even be impossible. */
  #actualChanged(pages: number): void {
    const memoryPages = (this.acceptor?.session?.memory.size ?? 0) / PAGE_SIZE;
    if (pages > memoryPages) {
      this.#conversation.badRequests++;
      this.#events.problem(
        'actual',
        `the guest says that its balloon holds ${pages} pages; its memory has ${memoryPages}`,
      );
    }
    this.target.actual(pages);
  }

  #refused(error: Error, { request, ringIndex }: { request?: string; ringIndex?: number }): void {
    this.#conversation.badRequests++;
    const subject = request === undefined ? `ring ${ringIndex} refused` : 'request refused';
    this.#events.problem(request ?? 'ring', `${subject}: ${error.message}`);
  }

  #fault(error: Error): void {
    // A message that cannot be followed is refused with all that might have come after it.
    if (error instanceof VhostUserError) this.#conversation.badRequests++;
    const ours = !(error instanceof AerostatError) || error instanceof InvariantError;
    this.#events.problem('connection', error.message, ours ? 'error' : 'warn');
  }

  // Steering ----------------------------------------------------------------------------------------------

  #statisticsArrived(): void {
    this.statistics.arrived();
    if (this.device.statistics.answered) this.target.answered();
    this.#events.changed('statistics', () => tellSample(this.statistics.sample));
  }

  /** See {@link GuestRequests.ask}. */
  request(request: GuestRequest, timeoutMs: number): Promise<RequestAnswer> {
    if (this.hints.freePages.followed) {
      throw new GuestStateError(`${this.name} is moving, and asked for its free pages all the time`);
    }
    return this.requests.ask(request, timeoutMs);
  }

  get connected(): boolean {
    return this.acceptor?.connected ?? false;
  }

  get state(): GuestState {
    return this.#life.state({
      connected: this.connected,
      pid: this.acceptor?.peerPid,
      askedMs: this.device.statistics.askedMs,
      kicks: this.device.kicks,
    });
  }

  status(): DeviceGuestStatus {
    const { device } = this;
    const figures = deviceStatus(device, this.acceptor?.session?.memory);
    if (figures.pendingBytes === 0) this.target.drained(device.inflation.discards.lastMs);
    const counters = guestCounters(device, this.#conversation);
    // In this order: a reader that sees failed discards finds the reason beside them.
    device.reportFailures();
    return {
      name: this.name,
      socketPath: this.#options.socketPath ?? null,
      connected: this.connected,
      state: this.state,
      ...figures,
      wishedMemoryBytes: this.target.wishedMemoryBytes,
      targetOwner: this.target.lease.owner,
      actualBytes: this.connected ? figures.actualBytes : null,
      counters,
      progress: this.target.progress,
      stuck: this.target.stuck,
      hint: this.hints.status,
      lastError: this.#events.lastProblem,
    };
  }

  mapSources(): MapSources {
    return mapSources(this.device.accounts.all, this.hints.unusedPages);
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
    return saveDevice(this.device, this.target.wishedMemoryBytes);
  }

  /**
   * Goes on with a device that was saved elsewhere, once the front-end has handed over the memory; it has started no ring
   * then. Rejects with DeviceStateError, or when the front-end goes before.
   */
  load(saved: Uint8Array): Promise<void> {
    const loaded = this.#arriving.expect(saved);
    if ((this.acceptor?.session?.memory.regions.length ?? 0) > 0) this.#loadNow();
    return loaded;
  }

  /** The front-end brings what another device knew of its guest, before or after the memory. @throws DeviceStateError */
  #loadFromFrontEnd(saved: Uint8Array): void {
    checkFresh(this.device, saved);
    if ((this.acceptor?.session?.memory.regions.length ?? 0) > 0) {
      this.target.resumed(loadDevice(this.device, saved));
      return;
    }
    this.#arriving.fail(new GuestStateError('another state came in its place'));
    this.load(saved).catch(error => this.#events.problem('device-state', error.message));
  }

  #loadNow(): void {
    this.#arriving.load((wishedMemoryBytes, settled) => {
      this.target.resumed(wishedMemoryBytes);
      this.afterSettling(settled);
    });
  }

  /**
   * Gives back what is pending and lets go of everything. A file that keeps that from ending is given up after a while. A
   * guest that `stays` is left to the next daemon, if it is kept.
   */
  async close({ stays = false } = {}): Promise<void> {
    await new Promise<void>(resolve => {
      this.device.drain();
      const patience = this.#world.reactor.schedule(CLOSING_MS_MAX, resolve);
      this.afterSettling(() => {
        patience.cancel();
        resolve();
      });
    });
    const left = stays && this.keeping !== undefined;
    if (left) this.acceptor?.leave();
    else this.acceptor?.close();
    if (!left) this.keeping?.close();
    this.target.lease.close();
    this.#eviction.close();
    this.lane.close();
    this.loop.close();
  }
}
