/**
 * Guests of hypervisors with balloon devices of their own, under the same contract as those of ours: each by its name, and
 * what their hypervisors have no means for refused with words. What is asked for one guest is hypervisor-guest.ts's.
 */
import type { GuestChanges, GuestEvent, GuestStatus, StatisticsSample } from '../control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../control/errors.ts';
import type { MigrationAnswer, MigrationOrder, MigrationStatus } from '../control/migrations.ts';
import { noGuestPolicy } from '../control/no-policy.ts';
import type { GuestHandlers, GuestSource, MigrationOperation } from '../control/operations.ts';
import type { LeaseRenewal, LeaseRenewalOrder } from '../control/policy.ts';
import { Listeners } from '../sys/listeners.ts';
import type { GuestMachine } from './guest-machine.ts';
import { HypervisorGuest } from './hypervisor-guest.ts';

export abstract class HypervisorControl implements GuestSource {
  readonly #guests = new Map<string, HypervisorGuest>();
  readonly #listeners = new Listeners<[event: GuestEvent]>();

  /** How the hypervisor moves its guests. */
  protected abstract readonly migrations: GuestHandlers<MigrationOperation>;

  /** Names of the guests, in the order in which they came. */
  protected get names(): readonly string[] {
    return [...this.#guests.keys()];
  }

  /** The name is not taken. */
  protected admit(name: string, machine: GuestMachine): void {
    this.#guests.set(name, new HypervisorGuest(name, machine, event => this.emit(event)));
  }

  /** Lets go of the guest's hypervisor; the guest goes on. */
  protected remove(name: string): void {
    this.#guests.get(name)?.close();
    this.#guests.delete(name);
  }

  protected emit(event: GuestEvent): void {
    this.#listeners.emit(event);
  }

  /** @throws UnknownGuestError */
  protected expect(name: string): void {
    this.#find(name);
  }

  /** @throws AerostatError when one of them cannot be reached; a {@link CombinedControl} lists it instead */
  guests(): Promise<readonly GuestStatus[]> {
    return Promise.all([...this.#guests.values()].map(guest => guest.status()));
  }

  /** @throws AerostatError when it cannot be reached */
  async guest(name: string): Promise<GuestStatus> {
    return this.#find(name).status();
  }

  /**
   * The interval is rounded up to whole seconds, which is what hypervisors count in.
   * @throws AerostatError when the hypervisor cannot be reached: it keeps targets, but not for a guest that is not there
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

  async renewLeases(order: LeaseRenewalOrder): Promise<LeaseRenewal> {
    return { renewed: [...this.#guests.values()].filter(({ lease }) => lease.renew(order)).length };
  }

  async map(name: string): Promise<never> {
    throw new GuestStateError(
      `the hypervisor of ${this.#find(name).name} does not tell what is where in its memory`,
    );
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
      `${this.#find(name).name} takes no requests: its hypervisor's device has no queue for them`,
    );
  }

  migration(name: string): Promise<MigrationAnswer> {
    return this.migrations.migration(name);
  }

  migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    return this.migrations.migrate(name, order);
  }

  cancelMigration(name: string): Promise<MigrationAnswer> {
    return this.migrations.cancelMigration(name);
  }

  /** A policy that steers these guests runs in front of this control, not in it. */
  readonly #noPolicy = noGuestPolicy(name => void this.#find(name));
  readonly guestPolicy = this.#noPolicy.guestPolicy;
  readonly changeGuestPolicy = this.#noPolicy.changeGuestPolicy;
  readonly resumePolicy = this.#noPolicy.resumePolicy;
  readonly policyHistory = this.#noPolicy.policyHistory;

  subscribe(listener: (event: GuestEvent) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Lets go of all hypervisors; the guests go on. Idempotent. */
  close(): void {
    for (const guest of this.#guests.values()) guest.close();
    this.#listeners.clear();
  }

  #find(name: string): HypervisorGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, [...this.#guests.keys()]);
    return guest;
  }
}
