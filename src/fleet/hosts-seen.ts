/**
 * The hosts of a fleet as one of them sees them: the newest state of each, and for how long it has stood still by our own
 * clock. A state that was found stored is of unknown age until it changes: nothing is decided on it.
 */
import type { Entry } from './bus.ts';
import { REFUSALS, type Refusal, type Report, readMessage } from './messages.ts';

/** Of more hosts than a fleet has, a stranger would make up names. */
const HOSTS_MAX = 10_000;
/** A host that is silent for so long is forgotten. */
const FORGET_MS = 600_000;

export interface HostSeen {
  readonly report: Report;
  readonly revision: number;
  /** Since the revision was seen to change; null while it never was: then it may be of any age. */
  readonly ageMs: number | null;
}

const movesIn = (report: Report | undefined): string =>
  report === undefined
    ? ''
    : [report.guests, report.incoming, report.departures].map(({ length }) => length).join();

interface Known {
  readonly revision: number;
  readonly report: Report;
  readonly takenMs: number;
  /** It was seen to be stored; else it was found, and had been stored before. */
  readonly isFresh: boolean;
}

export class HostsSeen {
  readonly #now: () => number;
  readonly #onRefusal: (host: string, why: string) => void;
  readonly #hosts = new Map<string, Known>();
  readonly #refusals = new Map<Refusal, number>(REFUSALS.map(refusal => [refusal, 0]));

  constructor(now: () => number, onRefusal: (host: string, why: string) => void) {
    this.#now = now;
    this.#onRefusal = onRefusal;
  }

  get refusals(): Readonly<Record<Refusal, number>> {
    return Object.fromEntries(this.#refusals) as Record<Refusal, number>;
  }

  /** What was stored before, of whatever age. */
  found(entry: Entry): void {
    this.#take(entry, false);
  }

  /** What was stored just now. Returns whether guests came, left, or began to move. */
  heard(entry: Entry): boolean {
    const before = this.#hosts.get(entry.key)?.report;
    this.#take(entry, true);
    const after = this.#hosts.get(entry.key)?.report;
    return movesIn(before) !== movesIn(after);
  }

  /** The host has left the fleet. */
  gone(host: string): void {
    this.#hosts.delete(host);
  }

  /** Sorted by their names. */
  all(): readonly HostSeen[] {
    const nowMs = this.#now();
    for (const [name, { takenMs }] of this.#hosts) {
      if (nowMs - takenMs > FORGET_MS) this.#hosts.delete(name);
    }
    return [...this.#hosts.values()]
      .map(({ report, revision, takenMs, isFresh }) => ({
        report,
        revision,
        ageMs: isFresh ? nowMs - takenMs : null,
      }))
      .sort((one, other) => (one.report.host < other.report.host ? -1 : 1));
  }

  #take({ key, revision, bytes }: Entry, isFresh: boolean): void {
    const known = this.#hosts.get(key);
    if (known !== undefined && revision <= known.revision) return;
    const read = readMessage('report', bytes);
    if ('refusal' in read) {
      this.#refuse(key, read.refusal, read.why);
    } else if (read.value.host !== key) {
      this.#refuse(key, 'nonsense', `it says that it is of ${read.value.host}`);
    } else if (known === undefined && this.#hosts.size >= HOSTS_MAX) {
      this.#refuse(key, 'too-large', `there are ${HOSTS_MAX} hosts already`);
    } else {
      this.#hosts.set(key, { revision, report: read.value, takenMs: this.#now(), isFresh });
    }
  }

  #refuse(host: string, refusal: Refusal, why: string): void {
    this.#refusals.set(refusal, (this.#refusals.get(refusal) ?? 0) + 1);
    this.#onRefusal(host, why);
  }
}
