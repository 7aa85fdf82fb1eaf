/**
 * One guest of the daemon: its socket, the vhost-user conversation on it, the balloon device behind it, and
 * what is known about it for those who ask. Lives in a data-plane thread. Whatever goes wrong with one guest
 * ends here: the connection is dropped and the next front-end is waited for.
 */

import { featureNames, type Profile } from '../balloon/profiles.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import type { DiscardMode } from '../device/inflation.ts';
import type { PageAccount } from '../device/page-account.ts';
import { FileBacking } from '../memory/backing.ts';
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../memory/page.ts';
import { PageSet } from '../memory/page-set.ts';
import { AerostatError } from '../sys/error.ts';
import { OwnedFd, writeShort } from '../sys/fd.ts';
import { monotonicMs, type Reactor, type Timer, type Watch } from '../sys/poll.ts';
import { UnixListener, UnixSocket } from '../sys/socket.ts';
import type { RingDoorbell, StopReason, VhostUserBackend } from '../vhost-user/backend.ts';
import { BackendSession } from '../vhost-user/backend-session.ts';
import { Connection } from '../vhost-user/connection.ts';
import { BACKEND_REQUEST, FLAG_VERSION, HEADER, VhostUserError } from '../vhost-user/protocol.ts';
import { featureNames as ringFeatureNames } from '../virtio/features.ts';
import type {
  GuestCounters,
  GuestEventType,
  GuestStatus,
  HintAction,
  HintStatus,
  StatisticsSample,
} from './control.ts';
import { GuestStateError } from './control.ts';
import type { DiscardLink } from './discard-link.ts';
import { LogLimiter } from './log-limiter.ts';
import { type MapSources, mapSources } from './map-sources.ts';
import { offer } from './offer.ts';
import type { GuestOptions, LogLevel } from './options.ts';
import { TargetClock } from './target-clock.ts';
import type { GuestSocket } from './worker-protocol.ts';

/**
 * Messages of one front-end that are served in a row before other guests have their turn. A conversation has
 * some forty of them.
 */
const MESSAGES_PER_TURN = 32;

export interface GuestHostWorld {
  readonly reactor: Reactor;
  readonly discards: DiscardLink;
  emit(guest: string, type: GuestEventType, detail: Record<string, string | number | boolean | null>): void;
  log(
    guest: string,
    level: LogLevel,
    message: string,
    detail?: Record<string, string | number | boolean | null>,
  ): void;
}

interface Waiter {
  readonly resolve: (sample: StatisticsSample) => void;
  readonly timer: Timer;
}

export class GuestHost implements VhostUserBackend {
  readonly name: string;
  readonly features: bigint;
  readonly device: BalloonDevice;
  /** Pages that the guest said it does not use, in the hint session or answer that came last. */
  readonly unusedPages = new PageSet(PFN_LIMIT);
  readonly #world: GuestHostWorld;
  readonly #options: GuestOptions;
  readonly #profile: Profile;
  readonly #limiter = new LogLimiter(monotonicMs);
  readonly #clock = new TargetClock();
  readonly #waiters = new Set<Waiter>();
  #listener: UnixListener | undefined;
  #listenerWatch: Watch | undefined;
  #connection: Connection | undefined;
  #connectionWatch: Watch | undefined;
  #session: BackendSession | undefined;
  #channel: OwnedFd | undefined;
  #pollIntervalMs: number;
  #pollTimer: Timer | undefined;
  #badRequests = 0;
  #connections = 0;
  #lastError: string | null = null;

  constructor(options: GuestOptions, socket: GuestSocket, world: GuestHostWorld) {
    this.name = options.name;
    this.#options = options;
    this.#world = world;
    this.#pollIntervalMs = options.pollIntervalMs;
    const offered = offer(options.profile, options.without);
    this.#profile = offered.profile;
    this.device = new BalloonDevice({
      profile: this.#profile,
      features: offered.balloon,
      host: this.#deviceHost(),
      unusedPages: this.unusedPages,
    });
    this.features = offered.balloon | offered.rings;
    this.device.inflation.mode = options.discard;
    this.device.targetPages = options.targetBytes / PAGE_SIZE;
    if (socket.listening) this.#listen(new UnixListener(new OwnedFd(socket.fd)));
    else this.#serve(new UnixSocket(new OwnedFd(socket.fd)));
  }

  // The front-end's socket --------------------------------------------------------------------------------

  #listen(listener: UnixListener): void {
    this.#listener = listener;
    this.#listenerWatch = this.#world.reactor.watch(listener.fd, () => this.#accept());
  }

  #accept(): void {
    // One socket is one guest: others wait in the backlog until this one is gone.
    if (this.#connection !== undefined) return;
    try {
      const socket = this.#listener?.accept();
      if (socket !== undefined) this.#serve(socket);
    } catch (error) {
      this.#fault('accept', error);
    }
  }

  #serve(socket: UnixSocket): void {
    const connection = new Connection(socket);
    this.#connection = connection;
    this.#connections++;
    this.#session = new BackendSession(this, {
      reactor: this.#world.reactor,
      refused: (error, context) => this.#refused(error, context),
      backendChannel: fd => this.#setChannel(fd),
    });
    this.#connectionWatch = this.#world.reactor.watch(connection.fd, ready => {
      try {
        if (ready.writable) connection.flush();
        if (ready.readable || ready.hungUp) this.#receive(connection);
      } catch (error) {
        // Whatever of the front-end's cannot be followed any further; what it sent is refused with it.
        if (error instanceof VhostUserError) this.#badRequests++;
        this.#fault('connection', error);
        this.#disconnect();
      }
    });
    // Stop listening while a front-end is here, so that those who wait do not wake us.
    this.#listenerWatch?.stop();
    this.#world.emit(this.name, 'connected', {});
    this.#log('info', 'front-end connected');
  }

  #receive(connection: Connection): void {
    for (let served = 0; served < MESSAGES_PER_TURN; served++) {
      const received = connection.receive();
      if (received.kind === 'wait') break;
      if (received.kind === 'closed') {
        this.#disconnect();
        return;
      }
      const reply = this.#session?.serve(received.message);
      if (reply !== undefined) connection.send(reply.request, reply.flags, reply.payload);
      // A message may have ended the conversation.
      if (this.#connection !== connection) return;
    }
    if (this.#connectionWatch !== undefined) this.#connectionWatch.wantWrite = connection.backlogged;
  }

  #disconnect(): void {
    if (this.#connection === undefined) return;
    this.#connectionWatch?.stop();
    this.#connectionWatch = undefined;
    this.#session?.close();
    this.#session = undefined;
    this.#connection.close();
    this.#connection = undefined;
    this.#pollTimer?.cancel();
    this.#clock.forget();
    this.#world.emit(this.name, 'disconnected', {});
    this.#log('info', 'front-end disconnected');
    const listener = this.#listener;
    if (listener !== undefined) {
      this.#listenerWatch = this.#world.reactor.watch(listener.fd, () => this.#accept());
    }
  }

  #setChannel(fd: OwnedFd | undefined): void {
    this.#channel?.close();
    this.#channel = fd;
    fd?.setNonBlocking();
  }

  #notifyConfig(): void {
    if (this.#channel === undefined) {
      // The driver reads the configuration when it starts; later changes need the channel.
      if (this.#session !== undefined && this.#session.ringsRunning > 0) {
        this.#problem(
          'no-channel',
          'the front-end offers no channel for configuration changes; the guest sees new targets when its driver starts',
        );
      }
      return;
    }
    const message = HEADER.encode({ request: BACKEND_REQUEST.CONFIG_CHANGE, flags: FLAG_VERSION, size: 0 });
    // A full channel holds notices that the front-end has not read yet; any of them makes it read again.
    if (writeShort(this.#channel, message) === 'gone') this.#setChannel(undefined);
  }

  // VhostUserBackend --------------------------------------------------------------------------------------

  get queueCount(): number {
    return this.device.queueCount;
  }

  setFeatures(features: bigint): void {
    this.device.setFeatures(features);
  }

  readConfig(offset: number, into: Uint8Array): void {
    this.device.readConfig(offset, into);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.device.writeConfig(offset, bytes);
  }

  regionAdded(region: MemoryRegion): void {
    this.device.regionAdded(region);
    if (region.backing instanceof FileBacking && !region.backing.sealed) {
      this.#log('debug', 'guest memory can be shrunk by its front-end, which would end this daemon', {
        sizeBytes: region.size,
      });
    }
  }

  regionRemoved(region: MemoryRegion): void {
    this.device.regionRemoved(region);
  }

  startQueue(
    index: number,
    queue: Parameters<BalloonDevice['startQueue']>[1],
    memory: GuestMemory,
    doorbell: RingDoorbell,
  ): void {
    this.device.startQueue(index, queue, memory, doorbell);
    if (index !== 0) return;
    this.#world.emit(this.name, 'ready', {});
    this.#clock.set(this.device.targetPages, this.device.actualPages);
    this.#schedulePoll();
  }

  stopQueue(index: number, reason: StopReason): void {
    this.device.stopQueue(index, reason);
  }

  serveQueue(index: number): void {
    if (!this.device.serveQueue(index)) return;
    this.#world.reactor.schedule(0, () => this.serveQueue(index));
  }

  reset(): void {
    this.device.reset();
    this.#world.emit(this.name, 'reset', {});
  }

  // The device's reaching out -----------------------------------------------------------------------------

  #deviceHost(): ConstructorParameters<typeof BalloonDevice>[0]['host'] {
    return {
      configChanged: () => this.#notifyConfig(),
      accountOpened: (account: PageAccount) => this.#world.discards.add(account),
      pendingMarked: () => this.#world.discards.wake(),
      badInput: reason => this.#problem('bad-input', reason),
      discardFailed: error => this.#problem('discard', `memory could not be given back: ${error.message}`),
      ringBroken: (index, error) => this.#session?.breakRing(index, error),
      actualChanged: pages => this.#actualChanged(pages),
      statisticsArrived: () => this.#statisticsArrived(),
      hintChanged: () => this.#world.emit(this.name, 'hint', { state: this.hintStatus().state }),
      requestAnswered: () => this.#world.emit(this.name, 'hint', { state: 'answered' }),
    };
  }

  /** What the guest says of its balloon is shown, not trusted: it may even be impossible. */
  #actualChanged(pages: number): void {
    const memoryPages = (this.#session?.memory.size ?? 0) / PAGE_SIZE;
    if (pages > memoryPages) {
      this.#badRequests++;
      this.#problem(
        'actual',
        `the guest says that its balloon holds ${pages} pages; its memory has ${memoryPages}`,
      );
    }
    this.#clock.actual(pages);
    this.#world.emit(this.name, 'actual', { actualBytes: pages * PAGE_SIZE });
  }

  #refused(error: Error, { request, ringIndex }: { request?: string; ringIndex?: number }): void {
    this.#badRequests++;
    const subject = request === undefined ? `ring ${ringIndex} refused` : 'request refused';
    this.#problem(request ?? 'ring', `${subject}: ${error.message}`);
  }

  #fault(kind: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.#problem(kind, message, error instanceof AerostatError ? 'warn' : 'error');
  }

  /** Notes what is wrong: always in the status, in the log once in a while. */
  #problem(kind: string, message: string, level: LogLevel = 'warn'): void {
    this.#lastError = message;
    const suppressed = this.#limiter.admit(kind);
    if (suppressed === undefined) return;
    this.#log(level, message, suppressed === 0 ? undefined : { suppressed });
    this.#world.emit(this.name, 'error', { message });
  }

  #log(level: LogLevel, message: string, detail?: Record<string, string | number | boolean | null>): void {
    this.#world.log(this.name, level, message, detail);
  }

  // Steering ----------------------------------------------------------------------------------------------

  setTarget(targetBytes: number): void {
    const pages = Math.floor(targetBytes / PAGE_SIZE);
    this.#clock.set(pages, this.device.actualPages);
    this.device.targetPages = pages;
    this.#world.emit(this.name, 'target', { targetBytes: pages * PAGE_SIZE });
  }

  setDiscard(mode: DiscardMode): void {
    this.device.inflation.mode = mode;
  }

  setPollInterval(intervalMs: number): void {
    this.#pollIntervalMs = intervalMs;
    this.#schedulePoll();
  }

  #schedulePoll(): void {
    this.#pollTimer?.cancel();
    this.#pollTimer = undefined;
    if (this.#pollIntervalMs <= 0 || this.#connection === undefined) return;
    this.#pollTimer = this.#world.reactor.schedule(this.#pollIntervalMs, () => {
      this.device.requestStatistics();
      this.#schedulePoll();
    });
  }

  /** Resolves with a sample that is at most `freshMs` old; with any, if that is null. */
  statistics(freshMs: number | null, timeoutMs: number): Promise<StatisticsSample> {
    const newest = this.sample();
    if (freshMs === null) return Promise.resolve(newest);
    if (newest.ageMs !== null && newest.ageMs <= freshMs) return Promise.resolve(newest);
    if (!this.device.statistics.running) {
      throw new GuestStateError(
        `${this.name} has no statistics queue: ${this.connected ? 'its driver did not take the feature' : 'no guest is connected'}`,
      );
    }
    return new Promise((resolve, reject) => {
      const timer = this.#world.reactor.schedule(timeoutMs, () => {
        this.#waiters.delete(waiter);
        reject(
          new GuestStateError(
            `${this.name} did not send statistics within ${timeoutMs} ms; it may be busy or stopped`,
          ),
        );
      });
      const waiter: Waiter = { resolve, timer };
      this.#waiters.add(waiter);
      this.device.requestStatistics();
    });
  }

  /** The newest statistics. */
  sample(): StatisticsSample {
    const { sample, sampledMs } = this.device.statistics;
    return { statistics: sample, ageMs: sampledMs === null ? null : monotonicMs() - sampledMs };
  }

  #statisticsArrived(): void {
    const sample = this.sample();
    for (const waiter of this.#waiters) {
      waiter.timer.cancel();
      waiter.resolve(sample);
    }
    this.#waiters.clear();
    this.#world.emit(this.name, 'statistics', { freeBytes: sample.statistics.freeBytes });
  }

  hint(action: HintAction): HintStatus {
    const { hints } = this.device;
    if (!hints.running) {
      throw new GuestStateError(
        `${this.name} takes no hint sessions: ${this.connected ? 'its driver did not take the feature' : 'no guest is connected'}`,
      );
    }
    if (action === 'start') {
      this.unusedPages.clear();
      hints.start();
    } else if (action === 'stop') {
      hints.stop();
    } else {
      hints.done();
    }
    return this.hintStatus();
  }

  hintStatus(): HintStatus {
    const { hints } = this.device;
    return {
      state: hints.running ? hints.phase : 'unsupported',
      commandId: hints.session.id,
      hintedBytes: this.unusedPages.pages * PAGE_SIZE,
      ranges: hints.ranges,
    };
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  status(): GuestStatus {
    const { device } = this;
    const memory = this.#session?.memory;
    const hasMemory = memory !== undefined && memory.regions.length > 0;
    const { bytes, lastMs } = device.inflation.discards;
    const pendingPages = device.accounts.pendingPages;
    if (pendingPages === 0) this.#clock.drained(lastMs);
    return {
      name: this.name,
      socketPath: this.#options.socketPath ?? null,
      connected: this.connected,
      profile: this.#profile.name,
      features: [
        ...featureNames(this.#profile, device.features),
        ...ringFeatureNames(device.features & ~this.#profile.featureMask),
      ],
      discard: device.inflation.mode,
      memoryBytes: hasMemory ? memory.size : null,
      targetBytes: device.targetPages * PAGE_SIZE,
      actualBytes: this.connected ? device.actualPages * PAGE_SIZE : null,
      balloonedBytes: device.accounts.balloonedPages * PAGE_SIZE,
      pendingBytes: pendingPages * PAGE_SIZE,
      discardedBytes: bytes,
      reportedBytes: device.reporting.totals.bytes,
      residentBytes: hasMemory ? residentBytes(memory) : null,
      counters: this.#counters(),
      progress: this.#clock.progress,
      hint: this.hintStatus(),
      lastError: this.#lastError,
    };
  }

  mapSources(): MapSources {
    return mapSources(this.#session?.memory.regions ?? [], this.device.accounts.all, this.unusedPages);
  }

  #counters(): GuestCounters {
    const { counters, inflation, reporting, accounts } = this.device;
    const discards = inflation.discards;
    const punches = discards.punches + reporting.totals.punches;
    const punchFailures = discards.failures + reporting.totals.failures;
    return {
      ...counters,
      keptPages: accounts.keptPages,
      runs: punches + punchFailures,
      punches,
      punchFailures,
      badRequests: this.#badRequests,
      connections: this.#connections,
    };
  }

  /** Gives back what is pending and lets go of everything. */
  close(): void {
    this.device.drain();
    for (const waiter of this.#waiters) waiter.timer.cancel();
    this.#waiters.clear();
    this.#listenerWatch?.stop();
    this.#listener?.close();
    this.#listener = undefined;
    this.#disconnect();
  }
}

/** What the host holds for the guest: regions that show the same file count it once. */
function residentBytes(memory: GuestMemory): number {
  const files = new Map<string, number>();
  for (const { backing } of memory.regions) {
    if (backing instanceof FileBacking) files.set(backing.identity, backing.residentBytes());
  }
  return [...files.values()].reduce((total, bytes) => total + bytes, 0);
}
