/**
 * One guest whose hypervisor has a balloon device of its own, under the contract of ours: targets, progress, statistics
 * and their age. A hypervisor tells less than our device does: what it does not tell is null, never guessed, and what it
 * cannot do is refused with words. How a hypervisor is asked is guest-machine.ts's.
 */
import {
  type GuestChanges,
  type GuestEvent,
  type GuestEventType,
  type GuestStatus,
  type StatisticsSample,
  type StuckStatus,
  statusOf,
} from '../control/contract.ts';
import { checkNoDefinition, checkOneTarget, GuestStateError, UnconfirmedError } from '../control/errors.ts';
import { obstacleOf } from '../control/guest-state.ts';
import { FOREIGN_BYTES_MIN, isNear, needsForce } from '../control/judgement.ts';
import { STATISTICS_TIMEOUT_MS } from '../control/limits.ts';
import { spareOf } from '../control/memory-use.ts';
import type { SilenceRule } from '../control/policy.ts';
import { TargetLease } from '../hosting/target-lease.ts';
import { TargetTimer } from '../hosting/target-timer.ts';
import { TargetWatch } from '../hosting/target-watch.ts';
import type { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import { formatSize } from '../sys/size.ts';
import type { GuestMachine, MachineStatistics } from './guest-machine.ts';

const STATISTICS_POLL_MS = 50;
/** Hypervisors ask for statistics every so many whole seconds. */
const INTERVAL_UNIT_MS = 1000;

/** Timers that keep no process alive. */
const timers = {
  schedule(ms: number, run: () => void) {
    const timer = setTimeout(run, ms).unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

const BY_ANOTHER =
  'its target was changed by another: its balloon holds more than it was asked for from here';

const delay = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** A sample that was met at `atMs`, on the clock of this process. */
interface Seen {
  /** By the hypervisor's clock; null for none yet. */
  readonly updatedMs: number | null;
  readonly changed: boolean;
  readonly atMs: number;
  readonly balloonedBytes: number | null;
}

export class HypervisorGuest {
  readonly name: string;
  readonly #machine: GuestMachine;
  readonly #emit: (event: GuestEvent) => void;
  readonly #clock = new TargetTimer(isNear);
  /** Only whether it gets on: what the driver is shown is its hypervisor's. */
  readonly #watch = new TargetWatch(isNear);
  /** What we asked for last. Hypervisors do not tell their target, so that of others is not known. */
  #targetBytes: number | null = null;
  /** Only orders that came this way are known: QEMU does not tell of those of others. */
  readonly lease = new TargetLease(timers, onSilence => this.#ranOut(onSilence));
  /** The most that our orders can have made of the balloon; null where we gave none. */
  #orderedBytes: number | null = null;
  #isAnothers = false;
  #memoryBytes: number | null = null;
  #lastError: string | null = null;
  /** What the guest's balloon held when it was looked at last. */
  #actualBytes: number | null = null;
  /** The newest sample that was met; `changed` when another was met before it, so that it is known when it came. */
  #seen: Seen | undefined;
  /** New statistics that are on their way, for all who want some. */
  #asking: Promise<MachineStatistics> | undefined;

  constructor(name: string, machine: GuestMachine, emit: (event: GuestEvent) => void) {
    this.name = name;
    this.#emit = emit;
    this.#machine = machine;
    machine.listen({
      connection: lost => this.#connectionChanged(lost),
      balloon: leftBytes => this.#balloonChanged(leftBytes),
      reset: () => this.#tell('reset', {}),
      state: () => this.#tellState(),
    });
  }

  async status(): Promise<GuestStatus> {
    const { memoryBytes, leftBytes, hasBalloon, state, features, residentBytes, trouble } =
      await this.#machine.look();
    this.#memoryBytes = memoryBytes;
    const actualBytes = leftBytes === null ? null : memoryBytes - leftBytes;
    if (actualBytes !== null) this.#noteActual(actualBytes);
    return statusOf(this.name, {
      socketPath: this.#machine.path,
      connected: hasBalloon,
      state,
      residentBytes,
      profile: hasBalloon ? 'virtio' : null,
      features,
      memoryBytes,
      targetBytes: this.#targetBytes,
      targetOwner: this.#targetBytes === null ? null : this.lease.owner,
      actualBytes,
      // A page is given back before it is acknowledged.
      pendingBytes: hasBalloon ? 0 : null,
      progress: this.#clock.progress,
      stuck: this.#stuck,
      lastError: trouble ?? this.#lastError ?? (this.#isAnothers ? BY_ANOTHER : null),
    });
  }

  /** Interval first: should the hypervisor then refuse the target, the interval is put back. */
  async change(changes: GuestChanges): Promise<GuestStatus> {
    checkOneTarget(changes);
    const { discard, pollIntervalMs, lease, force = false } = changes;
    if (discard !== undefined) {
      throw new GuestStateError(`the hypervisor of ${this.name} decides itself when its memory goes back`);
    }
    const machine = this.#machine;
    if (!machine.hasDefinition) checkNoDefinition(this.name, changes);
    await machine.expectBalloon();
    const { memoryBytes } = await machine.memory();
    if (changes.memoryBytes !== undefined && changes.memoryBytes > memoryBytes) {
      throw new GuestStateError(
        `${this.name} has ${formatSize(memoryBytes)} of memory and cannot keep ${formatSize(changes.memoryBytes)}`,
      );
    }
    // A hypervisor keeps what is left, not what was wished for: it is reckoned once.
    const targetBytes =
      changes.memoryBytes === undefined ? changes.targetBytes : memoryBytes - changes.memoryBytes;
    if (targetBytes !== undefined && !(targetBytes >= 0 && targetBytes < memoryBytes)) {
      throw new GuestStateError(
        `${this.name} has ${formatSize(memoryBytes)} of memory; its balloon cannot hold ${formatSize(targetBytes)}`,
      );
    }
    if (targetBytes !== undefined && !force) await this.#checkSpare(targetBytes, memoryBytes);
    const before = pollIntervalMs === undefined ? 0 : await machine.interval();
    if (pollIntervalMs !== undefined) {
      await machine.setInterval(Math.ceil(pollIntervalMs / INTERVAL_UNIT_MS), changes.persist);
    }
    try {
      if (targetBytes !== undefined) {
        await this.#setTarget(targetBytes, memoryBytes, changes.persist);
        this.lease.ordered(lease);
      }
    } catch (error) {
      if (pollIntervalMs !== undefined && machine.connected)
        await machine.setInterval(before, changes.persist);
      throw error;
    }
    return this.status();
  }

  /** @throws UnconfirmedError above what the guest says that it can spare */
  async #checkSpare(targetBytes: number, memory: number): Promise<void> {
    const sample = await this.#sampleOf(await this.#machine.statistics());
    const held = { actualBytes: await this.#queryActual(), balloonedBytes: null };
    const doubt = needsForce(held, { memory, ...spareOf(sample) }, targetBytes);
    if (doubt !== undefined) throw new UnconfirmedError(this.name, targetBytes, doubt, sample.ageMs);
  }

  async #setTarget(targetBytes: number, memoryBytes: number, persist?: boolean): Promise<void> {
    const { leftBytes } = await this.#machine.memory();
    await this.#machine.setLeft(memoryBytes - targetBytes, persist);
    this.#memoryBytes = memoryBytes;
    this.#targetBytes = targetBytes;
    const actualBytes = leftBytes === null ? Number.NaN : memoryBytes - leftBytes;
    this.#orderedBytes = Math.max(targetBytes, actualBytes || 0);
    this.#isAnothers = false;
    this.#clock.set(targetBytes, actualBytes);
    this.#watch.aim(targetBytes, actualBytes, monotonicMs());
    this.#tell('target', { targetBytes });
  }

  #ranOut(onSilence: SilenceRule): void {
    const released = onSilence === 'release' && this.#memoryBytes !== null;
    // A monitor that was lost meanwhile is told of elsewhere.
    if (released) this.#setTarget(0, this.#memoryBytes ?? 0).catch(() => {});
    this.#tell('policy', { silent: true, released });
  }

  async statistics(options: { freshMs?: number; timeoutMs?: number } = {}): Promise<StatisticsSample> {
    const { freshMs, timeoutMs = STATISTICS_TIMEOUT_MS } = options;
    const stats = await this.#machine.statistics();
    const sample = await this.#sampleOf(stats);
    const dated = this.#seen?.changed === true && sample.ageMs !== null;
    if (freshMs === undefined || (dated && (sample.ageMs ?? 0) <= freshMs)) return sample;
    const { state, features } = await this.#machine.look();
    const obstacle = obstacleOf(state);
    if (obstacle !== undefined) {
      throw new GuestStateError(`${this.name} gives no statistics now: ${obstacle}`);
    }
    if (features !== null && !features.includes('stats-vq')) {
      throw new GuestStateError(`${this.name} gives no statistics: its driver did not take that feature`);
    }
    // One at a time: another would take the interval of the first for the hypervisor's own, and leave it behind.
    this.#asking ??= this.#ask(stats.updatedMs, timeoutMs).finally(() => {
      this.#asking = undefined;
    });
    return this.#sampleOf(await this.#asking);
  }

  /**
   * Hypervisors date samples by the clock of its host, which may be an hour off or be set: the age counts, on a clock of ours,
   * from when a sample was seen to be another. Only of the first that is met the date is all that there is.
   */
  async #sampleOf({ updatedMs, statistics }: MachineStatistics): Promise<StatisticsSample> {
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
    const { memoryBytes, leftBytes } = await this.#machine.memory();
    return leftBytes === null ? null : memoryBytes - leftBytes;
  }

  close(): void {
    this.lease.close();
    this.#machine.close();
  }

  /** Makes the hypervisor ask the guest now, which it does when its interval goes from none to one. */
  async #ask(before: number | null, timeoutMs: number): Promise<MachineStatistics> {
    const machine = this.#machine;
    const deadline = monotonicMs() + timeoutMs;
    const interval = await machine.interval();
    await machine.setInterval(0);
    await machine.setInterval(Math.max(1, interval));
    try {
      for (;;) {
        const stats = await machine.statistics();
        // Samples are dated in whole seconds; one of the same second is told apart by the next.
        if (stats.updatedMs !== before) return stats;
        if (monotonicMs() >= deadline) {
          throw new GuestStateError(
            `${this.name} gave no statistics within ${timeoutMs} ms; does its driver run?`,
          );
        }
        await delay(STATISTICS_POLL_MS);
      }
    } finally {
      if (interval === 0 && machine.connected) await machine.setInterval(0);
    }
  }

  #connectionChanged(lost: AerostatError | null): void {
    this.#lastError = lost?.message ?? null;
    // Another guest may be the next there.
    this.#targetBytes = null;
    this.#orderedBytes = null;
    this.#isAnothers = false;
    this.lease.forget();
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
    this.#machine.memory().then(
      ({ memoryBytes }) => {
        this.#memoryBytes = memoryBytes;
        this.#balloonChanged(left);
      },
      () => {}, // Lost meanwhile, which is told elsewhere.
    );
  }

  #noteActual(actualBytes: number): void {
    this.#actualBytes = actualBytes;
    this.#noteOthers(actualBytes);
    this.#watch.actual(actualBytes, monotonicMs());
    const before = this.#clock.progress;
    this.#clock.actual(actualBytes);
    this.#clock.drained(0);
    const after = this.#clock.progress;
    if (before?.reachedMs !== null || after?.reachedMs == null) return;
    this.#tell('target-reached', { targetBytes: this.#targetBytes, reachedMs: after.reachedMs });
  }

  /** A guest takes memory back of itself; that its balloon grows, it was asked for. */
  #noteOthers(actualBytes: number): void {
    const target = this.#targetBytes;
    if (target === null || this.#orderedBytes === null) return;
    if (isNear(actualBytes, target)) this.#orderedBytes = target;
    if (this.#isAnothers || actualBytes <= this.#orderedBytes + FOREIGN_BYTES_MIN) return;
    this.#isAnothers = true;
    this.#tell('target', { targetBytes: null, by: 'another', actualBytes });
  }

  /** The hypervisor says that its machine was stopped or goes on; what that makes of the guest is asked for. */
  #tellState(): void {
    this.#machine.state().then(
      state => this.#tell('state', { state }),
      () => {}, // The hypervisor was lost meanwhile, which is told elsewhere.
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
}
