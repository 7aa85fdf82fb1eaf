/**
 * The balloon device as a state machine: a back-end feeds it with features, configuration writes, regions and rings, and
 * it calls a {@link DeviceHost} for what reaches outside. It has no sockets, no threads and no clock of its own, so the
 * same code runs in a daemon and in a simulation. What a ring's buffers mean is a part's (`parts.ts`), how they are served
 * is `ring-server.ts`'s.
 *
 * The guest is hostile: a buffer that says nothing understandable costs a counter and comes back with length 0, a ring
 * whose indices are nonsense is stopped, and nothing that a guest writes throws out of here.
 */
import type { QueueRole } from '../balloon/features.ts';
import { type Profile, queueRoles } from '../balloon/profiles.ts';
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { SystemError } from '../sys/error.ts';
import type { MonotonicClock } from '../sys/monotonic.ts';
import { u32 } from '../sys/shape.ts';
import type { Doorbell, StopReason, VirtioDevice } from '../virtio/device.ts';
import type { DeviceQueue } from '../virtio/queue.ts';
import { DeviceCounters } from './counters.ts';
import { DeviceConfig } from './device-config.ts';
import type { DeviceHost } from './device-host.ts';
import type { DeviceObserver } from './device-observer.ts';
import type { Tenure } from './inflation.ts';
import { type AccountPlace, PageAccounts } from './page-accounts.ts';
import { type DevicePart, type PartWorld, type SavedFields, savedFields } from './part.ts';
import { createDeviceParts, type DeviceFigures, type DeviceParts, figuresOf } from './parts.ts';
import { RingServer } from './ring-server.ts';
import { RunningQueue } from './running-queue.ts';

export interface BalloonDeviceOptions {
  readonly profile: Profile;
  /** Feature bits that are offered: some of the profile's, and those of the rings. */
  readonly features: bigint;
  readonly host: DeviceHost;
  readonly clock: MonotonicClock;
  readonly observer?: DeviceObserver;
  /** Takes the pages of its memory that the guest says it does not use; they are never discarded. */
  readonly unusedPages: PageSink;
  /** Where its accounts are, if they are to outlive this process. */
  readonly accountPlace?: AccountPlace | undefined;
}

/** What a driver has said to a device, and been told, beside its rings. */
interface KeptConfig {
  readonly actualPages: number;
  readonly poisonValue: number;
  /** The id of the last hint session, 0 where there was none. */
  readonly hintId: number;
}

export class BalloonDevice implements VirtioDevice {
  readonly profile: Profile;
  readonly features: bigint;
  readonly accounts: PageAccounts;
  readonly parts: DeviceParts;
  readonly #world: PartWorld;
  readonly #observer: DeviceObserver;
  readonly #all: readonly DevicePart[];
  readonly #partOf = new Map<QueueRole, DevicePart>();
  readonly #rings: (RingServer | undefined)[] = [];
  #driverFeatures = 0n;
  #roles: readonly QueueRole[] = [];
  /** The device is to settle, and no ring is served until nothing is under way. */
  #settling = false;
  /** Rings that were to be served meanwhile. */
  readonly #postponed = new Set<number>();
  /** Discards of other threads that had failed when that was reported last. */
  #failuresReported = 0;

  constructor({
    profile,
    features,
    host,
    clock,
    observer = {},
    unusedPages,
    accountPlace,
  }: BalloonDeviceOptions) {
    this.profile = profile;
    this.features = features;
    this.#observer = observer;
    const counters = new DeviceCounters();
    this.accounts = new PageAccounts(counters, accountPlace);
    if (host.discardSoon !== undefined) this.accounts.discardElsewhere();
    this.#world = {
      profile,
      host,
      clock,
      config: new DeviceConfig(profile.configBytes),
      accounts: this.accounts,
      counters,
      // A list can name pages that do not exist; the receiver would make room for them.
      unusedPages: this.accounts.within(unusedPages),
      noteUnused: ({ region }, page, count) => unusedPages.add(region.firstPfn + page, count),
    };
    this.parts = createDeviceParts(this.#world);
    this.#all = Object.values(this.parts);
    for (const part of this.#all) for (const role of part.roles) this.#partOf.set(role, part);
    this.#negotiated(0n);
  }

  // Its parts, by name, for those who steer them ----------------------------------------------------------

  get inflation(): DeviceParts['inflation'] {
    return this.parts.inflation;
  }

  get statistics(): DeviceParts['statistics'] {
    return this.parts.statistics;
  }

  get hints(): DeviceParts['hints'] {
    return this.parts.hints;
  }

  get requests(): DeviceParts['requests'] {
    return this.parts.requests;
  }

  get reporting(): DeviceParts['reporting'] {
    return this.parts.reporting;
  }

  get shared(): DeviceParts['shared'] {
    return this.parts.shared;
  }

  /** What the device and its parts counted so far. */
  get counters(): DeviceFigures {
    return figuresOf(this.#world.counters, this.parts);
  }

  /** How often a ring was served because of a kick. */
  get kicks(): number {
    return this.#world.counters.kicks;
  }

  // Features and configuration ----------------------------------------------------------------------------

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

  setFeatures(features: bigint): void {
    this.#negotiated(features);
  }

  #negotiated(features: bigint): void {
    this.#driverFeatures = features;
    this.#roles = queueRoles(this.profile, features);
    for (const part of this.#all) part.negotiated?.(features);
  }

  /** The target in 4 KiB pages. */
  get targetPages(): number {
    return this.#world.config.targetPages;
  }

  /** Sets the target, as far as its field can say it, and tells the driver. */
  set targetPages(pages: number) {
    const { config } = this.#world;
    const before = config.driverPages;
    config.aim(pages, config.targetLimitPages);
    this.#aimed(before);
  }

  /** The driver saw `before` of the target. */
  #aimed(before: number): void {
    const { config, host } = this.#world;
    // What the host can take by itself is none of the driver's business.
    this.shared.follow();
    if (config.driverPages !== before) host.configChanged();
  }

  /** What is shown of the target: to the driver, but for what the host takes of it by itself. */
  get shownTargetPages(): number {
    return this.#world.config.shownTargetPages;
  }

  /** The driver is shown no more than this of any target; Infinity for all of it. */
  set targetLimitPages(pages: number) {
    const { config } = this.#world;
    const before = config.driverPages;
    config.aim(config.targetPages, pages);
    this.#aimed(before);
  }

  /**
   * What the guest says that its balloon holds, in 4 KiB pages; reported, never trusted. What the host holds of a shared
   * allocator is among it.
   */
  get actualPages(): number {
    const { actualPages, heldPages } = this.#world.config;
    return actualPages + heldPages;
  }

  /** Whether that is known: not before a driver said so, if it ran before this device did. */
  get actualKnown(): boolean {
    return this.#world.config.actualKnown;
  }

  get poisonValue(): number {
    return this.#world.config.poisonValue;
  }

  readConfig(offset: number, into: Uint8Array): void {
    this.#observer.configRead?.(offset, into.length);
    this.#world.config.read(offset, into);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.actualPages;
    if (!this.#world.config.write(offset, bytes)) return;
    if (this.actualPages !== before) this.#world.host.actualChanged(this.actualPages);
  }

  // Memory ------------------------------------------------------------------------------------------------

  regionAdded(region: MemoryRegion): void {
    this.#world.host.accountOpened(this.accounts.open(region));
    this.#observer.regionAdded?.(region);
  }

  /** Calls `released` when no thread discards in the region any more: before it returns, or before the device is settled. */
  regionRemoved(region: MemoryRegion, released: () => void = () => {}): void {
    this.accounts.close(region, released);
    this.#observer.regionRemoved?.(region);
  }

  // Rings -------------------------------------------------------------------------------------------------

  /** Ring `index` runs from now on; {@link serveQueue} serves it. Rings without a role are left alone. */
  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell): void {
    const role = this.#roles[index];
    const part = role && this.#partOf.get(role);
    if (role === undefined || part === undefined) return;
    const known = this.inflation.begun;
    const ring = new RunningQueue({ index, role, queue, memory, doorbell }, this.#world.counters);
    this.#rings[index] = new RingServer(ring, part, this.#world);
    part.start(ring);
    this.#observer.queueStarted?.(role, known);
  }

  /** Ring `index` stands still until it is resumed or stopped: a pause begins like that, and so may another driver. */
  suspendQueue(index: number): void {
    const server = this.#rings[index];
    if (server === undefined) return;
    server.suspend();
    this.#observer.queueSuspended?.(server.ring.role);
  }

  resumeQueue(index: number): void {
    const server = this.#rings[index];
    if (server === undefined) return;
    server.resume();
    this.#observer.queueResumed?.(server.ring.role);
  }

  /** Lets go of ring `index`. What becomes of what its driver gave away is the part's. */
  stopQueue(index: number, reason: StopReason): void {
    const server = this.#rings[index];
    if (server === undefined) return;
    this.#rings[index] = undefined;
    server.stop(reason);
    this.#observer.queueStopped?.(server.ring.role, reason);
  }

  /**
   * Serves what is available on ring `index`. Returns true when there may be more than one turn's share: call
   * again after the others.
   */
  serveQueue(index: number, work?: number): boolean {
    const server = this.#rings[index];
    if (server === undefined || server.ring.suspended) return false;
    if (this.#settling) {
      this.#postponed.add(index);
      return false;
    }
    this.#world.counters.kicks++;
    return server.serve(work);
  }

  /**
   * Rings that can be served on: their discards are over, or the device need not settle any more. To be asked
   * whenever threads that discard have news.
   */
  *resumable(): Iterable<number> {
    for (const part of this.#all) part.news?.();
    if (this.#settling) return;
    for (const server of [...this.#rings]) if (server?.ring.kept === true) yield server.ring.index;
    const postponed = [...this.#postponed];
    this.#postponed.clear();
    yield* postponed;
  }

  // Discards ----------------------------------------------------------------------------------------------

  /**
   * Whether nothing is under way: no batch that waits for discards, no drain, no discard whose end is waited for.
   * Where it is not so, no ring is served until it is, and threads that discard have news when it may be. Always so where
   * the device discards by itself.
   */
  settle(): boolean {
    this.#settling = false;
    if (!this.accounts.elsewhere) return true;
    let settled = this.accounts.quiet;
    for (const server of this.#rings) if (server?.returnKept() === false) settled = false;
    for (const part of this.#all) if (part.settled?.() === false) settled = false;
    this.#settling = !settled;
    return settled;
  }

  /** Reports what failed in threads that discard since this was asked last. */
  reportFailures(): void {
    const errno = this.accounts.elsewhere ? this.accounts.lastErrno : 0;
    if (errno === 0) return;
    const failures = this.accounts.discards.failures + this.accounts.reportDiscards.failures;
    if (failures === this.#failuresReported) return;
    this.#failuresReported = failures;
    this.#world.host.discardFailed(new SystemError('fallocate', errno));
  }

  /** Discards all that is pending: before it returns, or before the device is settled. */
  drain(): void {
    this.inflation.drain();
  }

  // Its whole state ---------------------------------------------------------------------------------------

  /** The driver starts over: nothing of it is remembered but the totals. The target stays, it is the host's. */
  reset(): void {
    for (let index = 0; index < this.#rings.length; index++) this.stopQueue(index, 'abandoned');
    this.#world.config.reset();
    for (const part of this.#all) part.reset();
    this.#negotiated(0n);
    this.#world.counters.resets++;
    this.#observer.reset?.();
  }

  /**
   * Goes on where a device ended without a word, whose accounts are in the same place: features and memory are known here,
   * and no ring runs.
   */
  recover({ actualPages, poisonValue, hintId, ...tenure }: Tenure & KeptConfig): void {
    Object.assign(this.#world.config, { actualPages, poisonValue });
    if (hintId !== 0) this.hints.takeOver(hintId);
    this.inflation.recover(tenure);
  }

  /** What is saved of it and its parts, but for the account of pages. */
  get saved(): readonly SavedFields[] {
    return [this.#savedConfig, ...this.#all.flatMap(({ saved }) => (saved === undefined ? [] : [saved]))];
  }

  readonly #savedConfig = savedFields(
    { targetPages: u32, actualPages: u32, poisonValue: u32 },
    () => {
      const { targetPages, actualPages, poisonValue } = this.#world.config;
      return { targetPages, actualPages, poisonValue };
    },
    ({ targetPages, ...driver }) => {
      const { config } = this.#world;
      config.aim(targetPages, config.targetLimitPages);
      Object.assign(config, driver, { actualKnown: true });
    },
  );
}
