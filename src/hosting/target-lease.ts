/**
 * Whose a guest's target is: the daemon's from its start, a person's, or a policy's for as long as its lease lasts. A policy
 * that renews no lease is silent: its target stays, or goes, as its order said, and those who watch are told.
 */
import type { LeaseOrder, TargetOwner } from '../control/contract.ts';
import type { LeaseRenewalOrder, SilenceRule } from '../control/policy.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';

export class TargetLease {
  readonly #reactor: Pick<Reactor, 'schedule'>;
  /** Called when a lease has run out, with what its order wants then. */
  readonly #ranOut: (onSilence: SilenceRule) => void;
  #by: TargetOwner['by'] = 'start';
  #onSilence: SilenceRule = 'keep';
  #untilMs = 0;
  #lapsed = false;
  #timer: Timer | undefined;

  constructor(reactor: Pick<Reactor, 'schedule'>, ranOut: (onSilence: SilenceRule) => void) {
    this.#reactor = reactor;
    this.#ranOut = ranOut;
  }

  /** A target was ordered: under a lease by a policy, else by a person. */
  ordered(lease: LeaseOrder | undefined): void {
    this.#stop();
    this.#lapsed = false;
    this.#by = lease === undefined ? 'person' : 'policy';
    if (lease === undefined) return;
    this.#onSilence = lease.onSilence;
    this.#last(lease.forMs);
  }

  /** Returns whether there is a lease to renew. One that has run out is renewed as well: its target stayed. */
  renew({ forMs, onSilence = this.#onSilence }: LeaseRenewalOrder): boolean {
    if (this.#by !== 'policy') return false;
    this.#lapsed = false;
    this.#onSilence = onSilence;
    this.#last(forMs);
    return true;
  }

  /** The target is another daemon's, which goes on here. */
  forget(): void {
    this.#stop();
    this.#by = 'start';
    this.#lapsed = false;
  }

  get owner(): TargetOwner {
    const by = this.#by;
    const untilMs = by === 'policy' ? Math.round(Date.now() + this.#untilMs - monotonicMs()) : null;
    return { by, untilMs, lapsed: this.#lapsed };
  }

  close(): void {
    this.#stop();
  }

  /** A renewal only moves the end; the timer looks whether it is there. */
  #last(forMs: number): void {
    this.#untilMs = monotonicMs() + forMs;
    this.#timer ??= this.#reactor.schedule(forMs, () => this.#look());
  }

  #look(): void {
    this.#timer = undefined;
    const leftMs = this.#untilMs - monotonicMs();
    if (leftMs > 0) {
      this.#timer = this.#reactor.schedule(leftMs, () => this.#look());
      return;
    }
    this.#lapsed = true;
    this.#ranOut(this.#onSilence);
  }

  #stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}
