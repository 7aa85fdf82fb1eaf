/**
 * Who leads: one key that its holder writes again and again, each time expecting the revision that it wrote last. Whose key
 * has stood still for a lease is followed by the host that replaces just that revision first. No wall clock is looked at:
 * a lease begins before its write was sent, and ends for all others after it was seen, so two leases never overlap.
 */
import type { Bucket, Entry } from './bus.ts';
import { RevisionError } from './errors.ts';
import { type LeaderRecord, readMessage, VERSION, writeMessage } from './messages.ts';

const KEY = 'leader';
/** Of a period: with a look every quarter of one, a leader that dies is followed within two periods. */
const LEASE_PERIODS = 1.5;
const RENEWAL_PERIODS = 0.5;
export const LOOKS_PER_PERIOD = 4;

interface LeadershipOptions {
  readonly bucket: Pick<Bucket, 'create' | 'update' | 'get' | 'delete'>;
  readonly host: string;
  readonly incarnation: string;
  readonly periodMs: number;
  /** A clock that is never set. */
  readonly now: () => number;
  /** Told of records that make no sense. */
  readonly onRefusal: (why: string) => void;
}

interface Seen {
  readonly revision: number;
  readonly host: string;
  readonly incarnation: string;
  readonly epoch: number;
  readonly sinceMs: number;
}

interface Lease {
  readonly epoch: number;
  readonly revision: number;
  readonly sentMs: number;
}

export class Leadership {
  readonly #options: LeadershipOptions;
  readonly #leaseMs: number;
  #seen: Seen | undefined;
  #lease: Lease | undefined;
  #highest = 0;
  #looking: Promise<void> | undefined;
  /** How often this host began to lead. */
  elections = 0;

  constructor(options: LeadershipOptions) {
    this.#options = options;
    this.#leaseMs = options.periodMs * LEASE_PERIODS;
  }

  /** Under which this host may order at this moment; null while it does not lead. */
  get epoch(): number | null {
    const lease = this.#lease;
    return lease !== undefined && this.#options.now() - lease.sentMs < this.#leaseMs ? lease.epoch : null;
  }

  /** The highest leader that was heard of: orders of earlier ones are old. */
  get highest(): number {
    return this.#highest;
  }

  /** Who leads, as far as this host has seen it within a lease. */
  get leader(): { readonly host: string; readonly epoch: number } | null {
    const seen = this.#seen;
    if (seen === undefined || this.#options.now() - seen.sinceMs >= this.#leaseMs) return null;
    return { host: seen.host, epoch: seen.epoch };
  }

  /** An order says under whom it was given. */
  accepts(epoch: number): boolean {
    if (epoch < this.#highest) return false;
    this.#highest = epoch;
    return true;
  }

  /** What is stored under the key now. */
  heard({ key, revision, bytes }: Entry): void {
    if (key !== KEY || revision === this.#seen?.revision) return;
    if (this.#seen !== undefined && revision < this.#seen.revision) return;
    const read = readMessage('leader', bytes);
    // Nonsense under the key still has a revision, and is replaced like a leader that stands still.
    const record: Pick<LeaderRecord, 'host' | 'incarnation' | 'epoch'> =
      'value' in read ? read.value : { host: '?', incarnation: '?', epoch: null };
    if ('refusal' in read) this.#options.onRefusal(`the leader's key: ${read.why}`);
    const epoch = Math.min(record.epoch ?? revision, revision);
    this.#seen = {
      revision,
      host: record.host,
      incarnation: record.incarnation,
      epoch,
      sinceMs: this.#options.now(),
    };
    this.#highest = Math.max(this.#highest, epoch);
    if (this.#lease !== undefined && epoch > this.#lease.epoch) this.#lease = undefined;
  }

  /**
   * Renews, follows or waits; to be called {@link LOOKS_PER_PERIOD} times a period. One look at a time is under way: a call
   * meanwhile ends as it does.
   */
  look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  #lookOnce(): Promise<void> {
    return this.#lease !== undefined ? this.#renew(this.#lease) : this.#follow();
  }

  /** Leaves the key to others at once. */
  async resign(): Promise<void> {
    const leads = this.epoch !== null;
    this.#lease = undefined;
    if (leads) await this.#options.bucket.delete(KEY);
  }

  async #renew({ epoch, revision, sentMs }: Lease): Promise<void> {
    const { bucket, periodMs, now } = this.#options;
    const atMs = now();
    if (atMs - sentMs < periodMs * RENEWAL_PERIODS) return;
    if (atMs - sentMs >= this.#leaseMs) {
      // Another host may lead by now: this one has to become the leader anew.
      this.#lease = undefined;
      return;
    }
    try {
      const next = await bucket.update(KEY, this.#record(epoch), revision);
      this.#keep({ epoch, revision: next, sentMs: atMs });
    } catch (error) {
      if (!(error instanceof RevisionError)) throw error;
      await this.#reconcile(epoch);
    }
  }

  /** An own write whose answer was lost has moved the revision; a foreign one ends the lease. */
  async #reconcile(epoch: number): Promise<void> {
    const entry = await this.#options.bucket.get(KEY);
    if (entry !== null) this.heard(entry);
    const seen = this.#seen;
    const isOwn = entry !== null && seen?.incarnation === this.#options.incarnation && seen.epoch === epoch;
    const lease = this.#lease;
    this.#lease = isOwn && lease !== undefined ? { ...lease, revision: entry.revision } : undefined;
  }

  async #follow(): Promise<void> {
    const { bucket, now } = this.#options;
    if (this.#seen !== undefined && now() - this.#seen.sinceMs < this.#leaseMs) return;
    const atMs = now();
    try {
      const entry = await bucket.get(KEY);
      if (entry === null) {
        const revision = await bucket.create(KEY, this.#record(null));
        this.#begin(revision, atMs);
      } else if (entry.revision !== this.#seen?.revision) {
        this.heard(entry);
      } else {
        const sentMs = now();
        const revision = await bucket.update(KEY, this.#record(null), entry.revision);
        this.#begin(revision, sentMs);
      }
    } catch (error) {
      // Another host was the first.
      if (!(error instanceof RevisionError)) throw error;
    }
  }

  #begin(epoch: number, sentMs: number): void {
    this.elections++;
    this.#keep({ epoch, revision: epoch, sentMs });
  }

  #keep(lease: Lease): void {
    // A later leader was heard of while the answer was on its way.
    if (this.#highest > lease.epoch) return;
    const { host, incarnation, now } = this.#options;
    this.#lease = lease;
    this.#highest = lease.epoch;
    this.#seen = { revision: lease.revision, host, incarnation, epoch: lease.epoch, sinceMs: now() };
  }

  #record(epoch: number | null): string {
    const { host, incarnation } = this.#options;
    return writeMessage('leader', { version: VERSION, host, incarnation, epoch });
  }
}
