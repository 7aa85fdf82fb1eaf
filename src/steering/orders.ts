/**
 * Targets on their way to guests: one order at a time for each, under a lease, and never waited for, so that a guest that
 * does not answer keeps no other one from its memory. Also whose each guest's target is: what a person sets by hand is left
 * alone until the person lets go.
 */
import type { GuestChanges, LeaseOrder } from '../control/contract.ts';
import { FOREIGN_BYTES_MIN } from '../control/judgement.ts';
import { AerostatError } from '../sys/error.ts';
import type { SeenGuest } from './guest-source.ts';

/** A poll of statistics that was ordered and did not come is ordered again after this many periods. */
const POLL_AGAIN_PERIODS = 5;

export class GuestOrders {
  /** Wall clock since when a person holds the target; null where none does. */
  heldSinceMs: number | null;
  /** The policy has looked after it before: what a person sets from now on holds. */
  known: boolean;
  error: string | null = null;
  harms = 0;
  oomKills = 0;
  /** The clock's time until which the target is the policy's; null for not. */
  leaseUntilMs: number | null = null;
  /** A person's target that may be taken over, because it was there before or was let go. */
  #takenOverBytes: number | null = null;
  #lastTargetBytes: number | null = null;
  #underWay = false;
  #polledAtMs: number | null = null;

  constructor({ heldSinceMs = null, known = false }: { heldSinceMs?: number | null; known?: boolean } = {}) {
    this.heldSinceMs = heldSinceMs;
    this.known = known;
  }

  /** Looks whose the target is. Returns whether a person has just set it. */
  observe({ status }: SeenGuest, wallMs: number): boolean {
    const { targetOwner, targetBytes, actualBytes } = status;
    if (this.#underWay) return false;
    const byPerson = targetOwner?.by === 'person' && targetBytes !== this.#takenOverBytes;
    const last = this.#lastTargetBytes;
    const foreign =
      targetOwner?.by !== 'person' &&
      status.counters === null &&
      last !== null &&
      actualBytes !== null &&
      actualBytes > Math.max(last, targetBytes ?? 0) + FOREIGN_BYTES_MIN;
    if (targetOwner?.by === 'person' && !this.known) {
      this.#takenOverBytes = targetBytes;
      this.known = true;
      return false;
    }
    this.known = true;
    if (targetOwner?.by !== 'policy') this.leaseUntilMs = null;
    if (!(byPerson || foreign) || this.heldSinceMs !== null) return false;
    this.heldSinceMs = wallMs;
    return true;
  }

  resume({ status }: SeenGuest): void {
    this.heldSinceMs = null;
    this.#takenOverBytes = status.targetBytes;
    this.#lastTargetBytes = null;
  }

  /** Whether an order is to be sent for the guest to be at `targetBytes` as the policy's. */
  differs({ status }: SeenGuest, targetBytes: number): boolean {
    return (
      status.targetBytes !== targetBytes ||
      (this.#takenOverBytes !== null && status.targetOwner?.by === 'person')
    );
  }

  /** Sends an order, unless one is under way. Returns whether it did. */
  send(seen: SeenGuest, targetBytes: number, lease: LeaseOrder, nowMs: number): boolean {
    if (this.#underWay) return false;
    this.#lastTargetBytes = Math.max(targetBytes, seen.status.actualBytes ?? 0);
    const change = { targetBytes, force: true, lease };
    this.#ask(seen, change, () => {
      this.#takenOverBytes = null;
      this.#lastTargetBytes = targetBytes;
      this.leaseUntilMs = nowMs + lease.forMs;
    });
    return true;
  }

  /** Has the guest asked for statistics as often as the policy needs them, where it is not already. */
  poll(seen: SeenGuest, pollIntervalMs: number, nowMs: number): void {
    if (this.#underWay || !seen.status.connected) return;
    const age = seen.sample?.ageMs ?? Number.POSITIVE_INFINITY;
    const again = POLL_AGAIN_PERIODS * Math.max(1000, pollIntervalMs);
    if (this.#polledAtMs !== null && (age < again || nowMs - this.#polledAtMs < again)) return;
    this.#polledAtMs = nowMs;
    this.#ask(seen, { pollIntervalMs }, () => {});
  }

  renewed(untilMs: number): void {
    if (this.leaseUntilMs !== null) this.leaseUntilMs = untilMs;
  }

  #ask({ name, remoteName, watch }: SeenGuest, change: GuestChanges, done: () => void): void {
    this.#underWay = true;
    watch.source.control
      .change(remoteName, change)
      .then(
        status => {
          this.error = null;
          watch.note(name, status);
          done();
        },
        (error: unknown) => {
          this.error = error instanceof AerostatError ? error.message : String(error);
        },
      )
      .finally(() => {
        this.#underWay = false;
      });
  }
}
