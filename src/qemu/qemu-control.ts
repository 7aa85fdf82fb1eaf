/**
 * Guests of QEMU's under the same contract as those of ours, over their monitors (QMP). QEMU tells less than our
 * device does: what it does not tell is null, never guessed, and what it cannot do is refused with words.
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
  UnknownGuestError,
} from '../control/contract.ts';
import { checkOneTarget } from '../control/errors.ts';
import { isNear, needsForce } from '../control/judgement.ts';
import { spareOf } from '../control/memory-use.ts';
import type { MigrationAnswer, MigrationOrder, MigrationStatus } from '../control/migrations.ts';
import type { GuestControl } from '../control/operations.ts';
import { TargetClock } from '../hosting/target-clock.ts';
import { TargetWatch } from '../hosting/target-watch.ts';
import type { QmpConnectionError } from '../peers/qemu/errors.ts';
import { migrateAway, queryLastMigration } from '../peers/qemu/migration.ts';
import { QmpMonitor, type QmpMonitorOptions } from '../peers/qemu/monitor.ts';
import {
  cancelMigration,
  findBalloon,
  guestStatsInterval,
  onQemuEvent,
  type QemuGuestStats,
  type QemuVirtioStatus,
  queryBalloon,
  queryGuestStats,
  queryMemoryBackends,
  queryMemorySize,
  queryVirtioStatus,
  setBalloon,
  setGuestStatsInterval,
} from '../peers/qemu/qmp-commands.ts';
import { monotonicMs } from '../sys/poll.ts';
import { formatSize } from '../sys/size.ts';
import { featureName, statisticsOf } from './names.ts';
import { ProcessMemory } from './process-memory.ts';
import { QemuMigrations } from './qemu-migrations.ts';

export interface QemuGuestOptions extends QmpMonitorOptions {
  readonly name: string;
  /** Path of the monitor's Unix socket (`-qmp unix:PATH,server=on,wait=off`). */
  readonly qmpPath: string;
}

const STATISTICS_POLL_MS = 50;
/** QEMU asks for statistics every so many whole seconds. */
const INTERVAL_UNIT_MS = 1000;

/** Why no balloon is at work in a QEMU that answers; undefined where one is. */
function troubleOf(balloon: string | undefined, virtio: QemuVirtioStatus | null): string | undefined {
  if (balloon === undefined) return NO_BALLOON;
  if (virtio?.broken === true) return 'QEMU stopped the device after an error';
  return virtio?.driverReady === false ? 'no driver is at work in the guest yet' : undefined;
}

const NO_BALLOON = 'its QEMU has no balloon device; start it with -device virtio-balloon-pci';

const delay = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** A sample that was met at `atMs`, on the clock of this process. */
interface Seen {
  /** By QEMU's clock; null for none yet. */
  readonly updatedMs: number | null;
  readonly changed: boolean;
  readonly atMs: number;
  readonly balloonedBytes: number | null;
}

/** One QEMU. */
class QemuHostedGuest {
  readonly name: string;
  readonly monitor: QmpMonitor;
  readonly #emit: (event: GuestEvent) => void;
  readonly #clock = new TargetClock(isNear);
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
  }

  async status(): Promise<GuestStatus> {
    const { monitor } = this;
    const [memoryBytes, left, balloon, backends] = await Promise.all([
      queryMemorySize(monitor),
      queryBalloon(monitor),
      findBalloon(monitor),
      queryMemoryBackends(monitor),
    ]);
    const residentBytes = await this.#processMemory.residentBytes(monitor.pid, backends);
    const virtio = balloon === undefined ? null : await queryVirtioStatus(monitor, balloon);
    this.#memoryBytes = memoryBytes;
    const actualBytes = left === null ? null : memoryBytes - left;
    if (actualBytes !== null) this.#noteActual(actualBytes);
    return this.#describe({
      // A QEMU whose guest has no driver at work is reached, and its balloon is not.
      connected: balloon !== undefined && virtio?.driverReady !== false,
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
      lastError: troubleOf(balloon, virtio) ?? this.#lastError,
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
    const virtio = await queryVirtioStatus(this.monitor, balloon);
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

export class QemuControl implements GuestControl {
  readonly #guests: ReadonlyMap<string, QemuHostedGuest>;
  readonly #listeners = new Set<(event: GuestEvent) => void>();
  readonly #migrations: QemuMigrations;

  /** Begins to connect to every guest's monitor, and goes on trying. `anyDestination`: see {@link QemuMigrations}. */
  constructor(guests: readonly QemuGuestOptions[], { anyDestination = false } = {}) {
    const emit = (event: GuestEvent) => {
      for (const listener of this.#listeners) listener(event);
    };
    this.#guests = new Map(guests.map(options => [options.name, new QemuHostedGuest(options, emit)]));
    this.#migrations = new QemuMigrations(
      {
        expect: name => void this.#find(name),
        moveAway: async (name, options) => migrateAway(this.#find(name).monitor, options),
        lastMove: async name => queryLastMigration(this.#find(name).monitor),
        cancelMove: async name => cancelMigration(this.#find(name).monitor),
        emit,
      },
      anyDestination,
    );
  }

  /** @throws QmpConnectionError when one of them cannot be reached; a {@link CombinedControl} lists it instead */
  guests(): Promise<readonly GuestStatus[]> {
    return Promise.all([...this.#guests.values()].map(guest => guest.status()));
  }

  /** @throws QmpConnectionError when it cannot be reached */
  async guest(name: string): Promise<GuestStatus> {
    return this.#find(name).status();
  }

  /**
   * The interval is rounded up to whole seconds, which is what QEMU counts in.
   * @throws QmpConnectionError when QEMU cannot be reached: it keeps targets, but not for a guest that is not there
   */
  async change(name: string, changes: GuestChanges = {}): Promise<GuestStatus> {
    return this.#find(name).change(changes);
  }

  async statistics(
    name: string,
    options?: { freshMs?: number; timeoutMs?: number },
  ): Promise<StatisticsSample> {
    return this.#find(name).statistics(options);
  }

  /** Of the guests that can be reached and have a balloon. */
  async samples(): Promise<Readonly<Record<string, StatisticsSample>>> {
    const guests = [...this.#guests.values()];
    const samples = await Promise.allSettled(guests.map(guest => guest.statistics()));
    const known: Record<string, StatisticsSample> = {};
    for (const [index, sample] of samples.entries()) {
      if (sample.status === 'fulfilled') known[guests[index].name] = sample.value;
    }
    return known;
  }

  async map(name: string): Promise<never> {
    throw new GuestStateError(`QEMU does not tell what is where in the memory of ${this.#find(name).name}`);
  }

  async hintStatus(name: string): Promise<never> {
    throw new GuestStateError(`the hypervisor of ${this.#find(name).name} tells nothing of free page hints`);
  }

  async hint(name: string): Promise<never> {
    throw new GuestStateError(
      `QEMU asks ${this.#find(name).name} for free page hints itself, and only while it migrates the guest`,
    );
  }

  async request(name: string): Promise<never> {
    throw new GuestStateError(
      `${this.#find(name).name} takes no requests: QEMU's device has no queue for them`,
    );
  }

  migration(name: string): Promise<MigrationAnswer> {
    return this.#migrations.migration(name);
  }

  migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    return this.#migrations.migrate(name, order);
  }

  cancelMigration(name: string): Promise<MigrationAnswer> {
    return this.#migrations.cancelMigration(name);
  }

  subscribe(listener: (event: GuestEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Lets go of all monitors; the guests go on. Idempotent. */
  close(): void {
    for (const guest of this.#guests.values()) guest.close();
    this.#listeners.clear();
  }

  #find(name: string): QemuHostedGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, [...this.#guests.keys()]);
    return guest;
  }
}
