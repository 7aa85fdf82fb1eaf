/**
 * Guests of QEMU's under the same contract as those of ours: each by its name, and what QEMU has no means for refused with
 * words. What is asked of one guest's monitor is qemu-guest.ts's.
 */
import {
  type GuestChanges,
  type GuestEvent,
  GuestStateError,
  type GuestStatus,
  type StatisticsSample,
  UnknownGuestError,
} from '../control/contract.ts';
import type { MigrationAnswer, MigrationOrder, MigrationStatus } from '../control/migrations.ts';
import { noGuestPolicy } from '../control/no-policy.ts';
import type { GuestSource } from '../control/operations.ts';
import { migrateAway, queryLastMigration } from '../peers/qemu/migration.ts';
import { cancelMigration } from '../peers/qemu/qmp-commands.ts';
import { type QemuGuestOptions, QemuHostedGuest } from './qemu-guest.ts';
import { QemuMigrations } from './qemu-migrations.ts';

export type { QemuGuestOptions } from './qemu-guest.ts';

export class QemuControl implements GuestSource {
  readonly #guests = new Map<string, QemuHostedGuest>();
  readonly #listeners = new Set<(event: GuestEvent) => void>();
  readonly #migrations: QemuMigrations;

  /** Begins to connect to every guest's monitor, and goes on trying. `anyDestination`: see {@link QemuMigrations}. */
  constructor(guests: readonly QemuGuestOptions[], { anyDestination = false } = {}) {
    for (const options of guests) this.add(options);
    this.#migrations = new QemuMigrations(
      {
        expect: name => void this.#find(name),
        moveAway: async (name, options) => migrateAway(this.#find(name).monitor, options),
        lastMove: async name => queryLastMigration(this.#find(name).monitor),
        cancelMove: async name => cancelMigration(this.#find(name).monitor),
        emit: event => this.#emit(event),
      },
      anyDestination,
    );
  }

  /** Names of the guests, in the order in which they came. */
  protected get names(): readonly string[] {
    return [...this.#guests.keys()];
  }

  /** The name is not taken. */
  protected add(options: QemuGuestOptions): void {
    this.#guests.set(options.name, new QemuHostedGuest(options, event => this.#emit(event)));
  }

  /** Lets go of the guest's monitor; the guest goes on. */
  protected remove(name: string): void {
    this.#guests.get(name)?.close();
    this.#guests.delete(name);
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

  /** A policy that steers these guests runs in front of this control, not in it. */
  readonly #noPolicy = noGuestPolicy(name => void this.#find(name));
  readonly guestPolicy = this.#noPolicy.guestPolicy;
  readonly changeGuestPolicy = this.#noPolicy.changeGuestPolicy;
  readonly resumePolicy = this.#noPolicy.resumePolicy;
  readonly policyHistory = this.#noPolicy.policyHistory;

  subscribe(listener: (event: GuestEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Lets go of all monitors; the guests go on. Idempotent. */
  close(): void {
    for (const guest of this.#guests.values()) guest.close();
    this.#listeners.clear();
  }

  #emit(event: GuestEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #find(name: string): QemuHostedGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, [...this.#guests.keys()]);
    return guest;
  }
}
