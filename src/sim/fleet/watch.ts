/**
 * What is known of a simulated fleet: reports that hosts put into a store, late or not at all, and what a leader sees of
 * them. A leader that begins knows nothing but what is in the store.
 */
import type { FleetGuest, FleetHost, FleetView, PlacementMemory } from '../../placement/types.ts';
import type { Cluster, Copy, FleetMachine } from './cluster.ts';

const REPORT_MS = 4000;
/** A report without a successor is gone from the store after so long. */
const KEPT_MS = 300_000;
/** Revisions whose time a host remembers. */
const REMEMBERED = 16;

type Report = Omit<FleetHost, 'ageMs'>;

export class ReportStore {
  readonly #cluster: Cluster;
  readonly #delayMs: (host: FleetMachine) => number;
  readonly reports = new Map<string, { readonly report: Report; readonly atMs: number }>();
  #onTheWay: { readonly report: Report; readonly dueMs: number }[] = [];

  constructor(cluster: Cluster, delayMs: (host: FleetMachine) => number) {
    this.#cluster = cluster;
    this.#delayMs = delayMs;
  }

  step(atMs: number, elapsedMs: number): void {
    for (const host of this.#cluster.hosts) {
      const phase = (host.index * 37) % REPORT_MS;
      const isDue =
        Math.floor((atMs + phase) / REPORT_MS) !== Math.floor((atMs - elapsedMs + phase) / REPORT_MS);
      if (!isDue || !host.alive || host.cut) continue;
      this.#onTheWay.push({ report: this.#report(host, atMs), dueMs: atMs + this.#delayMs(host) });
    }
    const due = this.#onTheWay.filter(({ dueMs }) => dueMs <= atMs);
    this.#onTheWay = this.#onTheWay.filter(({ dueMs }) => dueMs > atMs);
    for (const { report } of due) {
      const before = this.reports.get(report.host);
      // One that was overtaken says nothing any more.
      if (before === undefined || before.report.revision < report.revision)
        this.reports.set(report.host, { report, atMs });
    }
    for (const [host, { atMs: storedMs }] of this.reports)
      if (atMs - storedMs > KEPT_MS) this.reports.delete(host);
  }

  #report(host: FleetMachine, atMs: number): Report {
    const { memoryBytes, reserveBytes, othersBytes, linkBytesPerSecond } = host.trace;
    const revision = ++host.revision;
    host.reportedAtMs.set(revision, atMs);
    host.reportedAtMs.delete(revision - REMEMBERED);
    const ghosts = host.ghosts.filter(ghost => !host.copies.some(({ guest }) => guest === ghost.guest));
    return {
      host: host.name,
      revision,
      draining: host.draining,
      memoryBytes,
      reserveBytes,
      othersBytes,
      linkBytesPerSecond,
      guests: [...host.copies, ...ghosts].map(copy => this.#guest(copy, atMs)),
      incoming: [...host.incoming.values()],
    };
  }

  #guest({ guest: at, incarnation, moving, left }: Copy, atMs: number): FleetGuest {
    const { name, sizeBytes, minBytes, dirtyBytesPerSecond, obstacle } = this.#cluster.trace.guests[at];
    return {
      guest: name,
      incarnation,
      sizeBytes,
      residentBytes: this.#cluster.resident[at],
      needBytes: this.#cluster.need[at],
      minBytes,
      dirtyBytesPerSecond,
      obstacle,
      moving,
      left: left.map(({ host, atMs: leftMs }) => ({ host, agoMs: atMs - leftMs })),
    };
  }
}

/** One that leads, with its own clock, which began some other day. */
export class Leader {
  readonly #store: ReportStore;
  readonly #clockMs: number;
  readonly #seen = new Map<string, { revision: number; changedMs: number | null }>();
  memory: PlacementMemory | undefined;
  /** Orders of its own that it heard to have failed since its last plan. */
  failed: string[] = [];

  constructor(store: ReportStore, atMs: number, clockMs: number) {
    this.#store = store;
    this.#clockMs = clockMs - atMs;
    for (const [host, { report }] of store.reports)
      this.#seen.set(host, { revision: report.revision, changedMs: null });
  }

  /** Looks at the store: as often as there is something new in it. */
  look(atMs: number): void {
    for (const [host, { report }] of this.#store.reports) {
      const seen = this.#seen.get(host);
      if (seen?.revision === report.revision) continue;
      this.#seen.set(host, { revision: report.revision, changedMs: atMs });
    }
  }

  view(atMs: number): FleetView {
    const hosts = [...this.#store.reports].map(([host, { report }]): FleetHost => {
      const changedMs = this.#seen.get(host)?.changedMs ?? null;
      return { ...report, ageMs: changedMs === null ? null : atMs - changedMs };
    });
    const { failed } = this;
    this.failed = [];
    return { atMs: atMs + this.#clockMs, hosts, failed };
  }
}
