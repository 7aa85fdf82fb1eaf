/**
 * A fleet as it is looked at over and over, for a page: it is asked when a picture is wanted, once a second at most, and only
 * for what servers of NATS keep; no agent is. A fleet that does not answer is shown as it was seen last, with its age.
 */
import type { FleetPicture } from '../control/fleet.ts';
import type { PlacementSettings } from '../placement/types.ts';
import { type AuditRecord, auditRecord } from './audit.ts';
import type { Bus } from './bus.ts';
import { Claims } from './claims.ts';
import { FleetClient } from './client.ts';
import type { FleetOrder } from './messages.ts';
import { type FleetSight, fleetPicture } from './picture.ts';

/** Sooner, nothing is asked again. */
const FRESH_MS = 900;
/** A picture waits so long for an answer; later it is what was seen last. */
const ANSWER_MS = 1500;
/** A fleet that has not answered for so long is said to be silent. */
const SILENT_MS = 4000;
/** Of the audit stream. */
const EVENTS_SHOWN = 60;

interface FleetWatchOptions {
  readonly fleet: string;
  readonly openBus: () => Promise<Bus>;
  readonly placement: PlacementSettings;
  /** A clock that is never set. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

interface Seen extends Pick<FleetSight, 'leader' | 'draining' | 'orders' | 'events'> {
  readonly atMs: number;
}

export class FleetWatch {
  readonly #options: FleetWatchOptions;
  #client: { readonly client: FleetClient; readonly claims: Claims } | undefined;
  #seen: Seen | undefined;
  #looking: Promise<void> | undefined;
  #beganMs = Number.NEGATIVE_INFINITY;
  #error: string | null = null;
  #closed = false;

  constructor(options: FleetWatchOptions) {
    this.#options = options;
  }

  /** Reaches the fleet, which a picture does not insist on. @throws FleetUnreachableError */
  async reach(): Promise<void> {
    await this.#connect();
  }

  /** How the fleet is, as far as that is known within a moment. */
  async picture({ host }: { readonly host?: string } = {}): Promise<FleetPicture> {
    const { fleet, now, sleep, placement } = this.#options;
    if (this.#looking === undefined && now() - this.#beganMs >= FRESH_MS) this.#look();
    if (this.#looking !== undefined) await Promise.race([this.#looking, sleep(ANSWER_MS)]);
    const seen = this.#seen;
    const client = this.#client?.client;
    const sight: FleetSight = {
      fleet,
      leader: seen?.leader ?? null,
      draining: seen?.draining ?? [],
      hosts: client?.hosts ?? [],
      orders: seen?.orders ?? new Map(),
      events: seen?.events ?? [],
      reportsRefused: Object.values(client?.messagesRefused ?? {}).reduce((sum, count) => sum + count, 0),
      seenAgoMs: seen === undefined ? null : now() - seen.atMs,
      trouble: this.#trouble(),
    };
    return fleetPicture(sight, placement, host);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#client?.client.close();
  }

  #trouble(): string | null {
    const { now } = this.#options;
    if (this.#error !== null) return this.#error;
    const isOverdue = this.#looking !== undefined && now() - this.#beganMs > SILENT_MS;
    return isOverdue ? 'servers of NATS do not answer in time' : null;
  }

  #look(): void {
    this.#beganMs = this.#options.now();
    this.#looking = this.#see()
      .then(
        seen => {
          this.#seen = seen;
          this.#error = null;
        },
        (error: Error) => {
          this.#error = error.message;
        },
      )
      .finally(() => {
        this.#looking = undefined;
      });
  }

  async #connect() {
    if (this.#client !== undefined) return this.#client;
    const { openBus, now, sleep } = this.#options;
    const bus = await openBus();
    try {
      const client = await FleetClient.over(bus, now, sleep);
      this.#client = { client, claims: new Claims(bus.buckets.orders, 'aerostat-page') };
    } catch (error) {
      await bus.close();
      throw error;
    }
    if (this.#closed) await bus.close();
    return this.#client;
  }

  async #see(): Promise<Seen> {
    const { now } = this.#options;
    const { client, claims } = await this.#connect();
    const atMs = now();
    const before = this.#seen;
    const [leader, { draining }, events] = await Promise.all([
      client.leader(),
      client.wishes(),
      this.#newest(client, before?.events ?? []),
    ]);
    const orders = await this.#orders(client, claims, before?.orders ?? new Map());
    return { atMs, leader, draining, orders, events };
  }

  async #newest(client: FleetClient, known: readonly AuditRecord[]): Promise<readonly AuditRecord[]> {
    const after = known.at(-1)?.sequence ?? 0;
    const events = [...known];
    for await (const recorded of client.recorded({ after, last: EVENTS_SHOWN })) {
      const record = auditRecord(recorded);
      // What a decision was made of is not shown, and may be half a megabyte.
      if (record?.event.event === 'decision') {
        events.push({ ...record, event: { ...record.event, input: null } });
      } else if (record !== undefined) events.push(record);
    }
    return events.slice(-EVENTS_SHOWN);
  }

  /** Those of guests on their way: an order is claimed by its source before anything is done. */
  async #orders(
    client: FleetClient,
    claims: Claims,
    known: ReadonlyMap<string, FleetOrder>,
  ): Promise<ReadonlyMap<string, FleetOrder>> {
    const ids = client.hosts.flatMap(({ report }) => report.departures.map(({ order }) => order));
    const orders = await Promise.all(
      ids.map(async id => known.get(id) ?? (await claims.find(id, 'from'))?.order),
    );
    return new Map(orders.flatMap(order => (order === undefined ? [] : [[order.id, order] as const])));
  }
}
