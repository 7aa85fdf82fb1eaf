/**
 * One guest of QEMU's, asked and steered by its monitor (QMP). QEMU tells less than our device does: what it does not tell
 * is null, never guessed, and what it cannot do is refused with words. Several under one contract are qemu-control.ts's.
 */
import {
  type GuestChanges,
  type GuestEvent,
  type GuestEventType,
  GuestStateError,
  type GuestStatus,
  STATISTICS_TIMEOUT_MS,
  type StatisticsSample,
  type StuckStatus,
  statusOf,
  UnconfirmedError,
} from '../control/contract.ts';
import { checkOneTarget } from '../control/errors.ts';
import { obstacleOf } from '../control/guest-state.ts';
import { isNear, needsForce } from '../control/judgement.ts';
import { spareOf } from '../control/memory-use.ts';
import { TargetTimer } from '../hosting/target-timer.ts';
import { TargetWatch } from '../hosting/target-watch.ts';
import type { QmpConnectionError } from '../peers/qemu/errors.ts';
import { QmpMonitor, type QmpMonitorOptions } from '../peers/qemu/monitor.ts';
import {
  findBalloon,
  guestStatsInterval,
  onQemuEvent,
  type QemuGuestStats,
  queryBalloon,
  queryGuestStats,
  queryMemoryBackends,
  queryMemorySize,
  queryStatus,
  queryVirtioStatus,
  setBalloon,
  setGuestStatsInterval,
} from '../peers/qemu/qmp-commands.ts';
import { monotonicMs } from '../sys/poll.ts';
import { formatSize } from '../sys/size.ts';
import { type QemuMachine, stateOf, troubleOf } from './machine-state.ts';
import { featureName, statisticsOf } from './names.ts';
import { ProcessMemory } from './process-memory.ts';

export interface QemuGuestOptions extends QmpMonitorOptions {
  readonly name: string;
  /** Path of the monitor's Unix socket (`-qmp unix:PATH,server=on,wait=off`). */
  readonly qmpPath: string;
}

const STATISTICS_POLL_MS = 50;
/** QEMU asks for statistics every so many whole seconds. */
const INTERVAL_UNIT_MS = 1000;

const delay = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** A sample that was met at `atMs`, on the clock of this process. */
interface Seen {
  /** By QEMU's clock; null for none yet. */
  readonly updatedMs: number | null;
  readonly changed: boolean;
  readonly atMs: number;
  readonly balloonedBytes: number | null;
}

export class QemuHostedGuest {
  readonly name: string;
  readonly monitor: QmpMonitor;
  readonly #emit: (event: GuestEvent) => void;
  readonly #clock = new TargetTimer(isNear);
  readonly #processMemory = new ProcessMemory();
  /** Only whether it gets on: what QEMU's driver is shown is QEMU's. */
  readonly #watch = new TargetWatch(isNear);
  /** What we asked for last. QEMU does not tell its target, so that of others is not known. */
  #targetBytes: number | null = null;
  #memoryBytes: number | null = null;
  #lastError: string | null = null;
  /** What the guest's balloon held when it was looked at last. */
  #actualBytes: number | null = null;
  /** The newest sample that was met; `changed` when another was met before it, so that it is known when it came. */
  #seen: Seen | undefined;
  /** New statistics that are on their way, for all who want some. */
  #asking: Promise<QemuGuestStats> | undefined;

  constructor({ name, qmpPath, ...options }: QemuGuestOptions, emit: (event: GuestEvent) => void) {
    this.name = name;
    this.#emit = emit;
    this.monitor = new QmpMonitor(qmpPath, options);
    this.monitor.onConnection(lost => this.#connectionChanged(lost));
    onQemuEvent(this.monitor, 'BALLOON_CHANGE', ({ actual }) => this.#balloonChanged(actual));
    onQemuEvent(this.monitor, 'RESET', () => this.#tell('reset', {}));
    onQemuEvent(this.monitor, 'STOP', () => this.#tellState());
    onQemuEvent(this.monitor, 'RESUME', () => this.#tellState());
  }

  async status(): Promise<GuestStatus> {
    const { monitor } = this;
    const [memoryBytes, left, machine, backends] = await Promise.all([
      queryMemorySize(monitor),
      queryBalloon(monitor),
      this.#machine(),
      queryMemoryBackends(monitor),
    ]);
    const { balloon, virtio } = machine;
    const residentBytes = await this.#processMemory.residentBytes(monitor.pid, backends);
    this.#memoryBytes = memoryBytes;
    const actualBytes = left === null ? null : memoryBytes - left;
    if (actualBytes !== null) this.#noteActual(actualBytes);
    return this.#describe({
      connected: balloon !== undefined,
      state: stateOf(machine),
      residentBytes,
      profile: balloon === undefined ? null : 'virtio',
      features: virtio === null ? null : virtio.features.map(featureName),
      memoryBytes,
      targetBytes: this.#targetBytes,
      actualBytes,
      // QEMU gives a page back before it acknowledges it.
      pendingBytes: balloon === undefined ? null : 0,
      progress: this.#clock.progress,
      stuck: this.#stuck,
      lastError: troubleOf(machine) ?? this.#lastError,
    });
  }

  /** Interval first: should QEMU then refuse the target, the interval is put back. */
  async change(changes: GuestChanges): Promise<GuestStatus> {
    checkOneTarget(changes);
    const { discard, pollIntervalMs, force = false } = changes;
    if (discard !== undefined) {
      throw new GuestStateError(`QEMU decides itself when the memory of ${this.name} goes back`);
    }
    const balloon = await this.#balloon();
    const memoryBytes = await queryMemorySize(this.monitor);
    if (changes.memoryBytes !== undefined && changes.memoryBytes > memoryBytes) {
      throw new GuestStateError(
        `${this.name} has ${formatSize(memoryBytes)} of memory and cannot keep ${formatSize(changes.memoryBytes)}`,
      );
    }
    // QEMU keeps what is left, not what was wished for: it is reckoned once.
    const targetBytes =
      changes.memoryBytes === undefined ? changes.targetBytes : memoryBytes - changes.memoryBytes;
    if (targetBytes !== undefined && !(targetBytes >= 0 && targetBytes < memoryBytes)) {
      throw new GuestStateError(
        `${this.name} has ${formatSize(memoryBytes)} of memory; its balloon cannot hold ${formatSize(targetBytes)}`,
      );
    }
    if (targetBytes !== undefined && !force) await this.#checkSpare(balloon, targetBytes, memoryBytes);
    const before = pollIntervalMs === undefined ? 0 : await guestStatsInterval(this.monitor, balloon);
    if (pollIntervalMs !== undefined) {
      await setGuestStatsInterval(this.monitor, balloon, Math.ceil(pollIntervalMs / INTERVAL_UNIT_MS));
    }
    try {
      if (targetBytes !== undefined) await this.#setTarget(targetBytes, memoryBytes);
    } catch (error) {
      if (pollIntervalMs !== undefined && this.monitor.connected) {
        await setGuestStatsInterval(this.monitor, balloon, before);
      }
      throw error;
    }
    return this.status();
  }

  /** @throws UnconfirmedError above what the guest says that it can spare */
  async #checkSpare(balloon: string, targetBytes: number, memory: number): Promise<void> {
    const sample = await this.#sampleOf(await queryGuestStats(this.monitor, balloon));
    const held = { actualBytes: await this.#queryActual(), balloonedBytes: null };
    const doubt = needsForce(held, { memory, ...spareOf(sample) }, targetBytes);
    if (doubt !== undefined) throw new UnconfirmedError(this.name, targetBytes, doubt, sample.ageMs);
  }

  async #setTarget(targetBytes: number, memoryBytes: number): Promise<void> {
    const left = await queryBalloon(this.monitor);
    await setBalloon(this.monitor, memoryBytes - targetBytes);
    this.#memoryBytes = memoryBytes;
    this.#targetBytes = targetBytes;
    const actualBytes = left === null ? Number.NaN : memoryBytes - left;
    this.#clock.set(targetBytes, actualBytes);
    this.#watch.aim(targetBytes, actualBytes, monotonicMs());
    this.#tell('target', { targetBytes });
  }

  async statistics(options: { freshMs?: number; timeoutMs?: number } = {}): Promise<StatisticsSample> {
    const { freshMs, timeoutMs = STATISTICS_TIMEOUT_MS } = options;
    const balloon = await this.#balloon();
    const stats = await queryGuestStats(this.monitor, balloon);
    const sample = await this.#sampleOf(stats);
    const dated = this.#seen?.changed === true && sample.ageMs !== null;
    if (freshMs === undefined || (dated && (sample.ageMs ?? 0) <= freshMs)) return sample;
    const machine = await this.#machine();
    const obstacle = obstacleOf(stateOf(machine));
    if (obstacle !== undefined) {
      throw new GuestStateError(`${this.name} gives no statistics now: ${obstacle}`);
    }
    const { virtio } = machine;
    if (virtio !== null && !virtio.features.includes('VIRTIO_BALLOON_F_STATS_VQ')) {
      throw new GuestStateError(`${this.name} gives no statistics: its driver did not take that feature`);
    }
    // One at a time: another would take the interval of the first for QEMU's own, and leave it behind.
    this.#asking ??= this.#ask(balloon, stats.updatedMs, timeoutMs).finally(() => {
      this.#asking = undefined;
    });
    return this.#sampleOf(await this.#asking);
  }

  /**
   * QEMU dates samples by the clock of its host, which may be an hour off or be set: the age counts, on a clock of ours,
   * from when a sample was seen to be another. Only of the first that is met the date is all that there is.
   */
  async #sampleOf(stats: QemuGuestStats): Promise<StatisticsSample> {
    const { updatedMs } = stats;
    const statistics = statisticsOf(stats);
    if (updatedMs === null) {
      this.#seen = { updatedMs, changed: false, atMs: monotonicMs(), balloonedBytes: null };
      return { statistics, ageMs: null, balloonedBytes: null };
    }
    if (this.#seen?.updatedMs !== updatedMs) {
      const changed = this.#seen !== undefined;
      const before = this.#actualBytes;
      const nowMs = monotonicMs();
      const seen = changed ? nowMs : nowMs - Math.max(0, Date.now() - updatedMs);
      this.#seen = { updatedMs, changed, atMs: seen, balloonedBytes: null };
      const now = changed ? await this.#queryActual() : null;
      const balloonedBytes = before === null || now === null ? null : Math.min(before, now);
      this.#seen = { updatedMs, changed, atMs: seen, balloonedBytes };
    }
    const { atMs, balloonedBytes } = this.#seen;
    return { statistics, ageMs: monotonicMs() - atMs, balloonedBytes };
  }

  async #queryActual(): Promise<number | null> {
    const [memoryBytes, left] = await Promise.all([
      queryMemorySize(this.monitor),
      queryBalloon(this.monitor),
    ]);
    return left === null ? null : memoryBytes - left;
  }

  close(): void {
    this.monitor.close();
  }

  /** Makes QEMU ask the guest now, which it does when its interval goes from none to one. */
  async #ask(balloon: string, before: number | null, timeoutMs: number): Promise<QemuGuestStats> {
    const { monitor } = this;
    const deadline = monotonicMs() + timeoutMs;
    const interval = await guestStatsInterval(monitor, balloon);
    await setGuestStatsInterval(monitor, balloon, 0);
    await setGuestStatsInterval(monitor, balloon, Math.max(1, interval));
    try {
      for (;;) {
        const stats = await queryGuestStats(monitor, balloon);
        // QEMU dates samples in whole seconds; one of the same second is told apart by the next.
        if (stats.updatedMs !== before) return stats;
        if (monotonicMs() >= deadline) {
          throw new GuestStateError(
            `${this.name} gave no statistics within ${timeoutMs} ms; does its driver run?`,
          );
        }
        await delay(STATISTICS_POLL_MS);
      }
    } finally {
      if (interval === 0 && monitor.connected) await setGuestStatsInterval(monitor, balloon, 0);
    }
  }

  async #machine(): Promise<QemuMachine> {
    const { monitor } = this;
    const [{ running }, balloon] = await Promise.all([queryStatus(monitor), findBalloon(monitor)]);
    const virtio = balloon === undefined ? null : await queryVirtioStatus(monitor, balloon);
    return { running, balloon, virtio };
  }

  /** The balloon device's path in QEMU. @throws GuestStateError when there is none */
  async #balloon(): Promise<string> {
    const path = await findBalloon(this.monitor);
    if (path !== undefined) return path;
    throw new GuestStateError(`${this.name} has no balloon; start its QEMU with -device virtio-balloon-pci`);
  }

  #connectionChanged(lost: QmpConnectionError | null): void {
    this.#lastError = lost?.message ?? null;
    // Another QEMU may be the next to listen there.
    this.#targetBytes = null;
    this.#memoryBytes = null;
    this.#actualBytes = null;
    this.#seen = undefined;
    this.#clock.forget();
    this.#watch.rest();
    this.#tell(lost === null ? 'connected' : 'disconnected', {});
  }

  #balloonChanged(left: number): void {
    if (this.#memoryBytes !== null) {
      this.#noteActual(this.#memoryBytes - left);
      this.#tell('actual', { actualBytes: this.#memoryBytes - left });
      return;
    }
    queryMemorySize(this.monitor).then(
      memoryBytes => {
        this.#memoryBytes = memoryBytes;
        this.#balloonChanged(left);
      },
      () => {}, // Lost meanwhile, which is told elsewhere.
    );
  }

  #noteActual(actualBytes: number): void {
    this.#actualBytes = actualBytes;
    this.#watch.actual(actualBytes, monotonicMs());
    const before = this.#clock.progress;
    this.#clock.actual(actualBytes);
    this.#clock.drained(0);
    const after = this.#clock.progress;
    if (before?.reachedMs !== null || after?.reachedMs == null) return;
    this.#tell('target-reached', { targetBytes: this.#targetBytes, reachedMs: after.reachedMs });
  }

  /** QEMU says that its machine was stopped or goes on; what that makes of the guest is asked for. */
  #tellState(): void {
    this.#machine().then(
      machine => this.#tell('state', { state: stateOf(machine) }),
      () => {}, // The monitor was lost meanwhile, which is told elsewhere.
    );
  }

  #tell(type: GuestEventType, detail: GuestEvent['detail']): void {
    this.#emit({ guest: this.name, type, timeMs: Date.now(), detail });
  }

  get #stuck(): StuckStatus | null {
    const nowMs = monotonicMs();
    const sinceMs = this.#watch.stuckSinceMs(nowMs);
    if (sinceMs === null) return null;
    const forMs = nowMs - sinceMs;
    return { sinceMs: Date.now() - forMs, forMs, swings: this.#watch.swings, retryInMs: null };
  }

  #describe(known: Partial<GuestStatus>): GuestStatus {
    return statusOf(this.name, { socketPath: this.monitor.path, ...known });
  }
}
