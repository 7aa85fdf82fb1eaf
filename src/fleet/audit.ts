/**
 * The audit stream read again: its events lead to a state, and its decisions, made anew from what they were made of, are
 * the same ones. Where the stream is kept is the bus's.
 */
import { isDeepStrictEqual } from 'node:util';
import { plan } from '../placement/plan.ts';
import type { FleetView, PlacementMemory, PlacementSettings } from '../placement/types.ts';
import type { Recorded } from './bus.ts';
import { type AuditEvent, type OrderOutcome, type Report, readMessage } from './messages.ts';

/** What the events say that the fleet is in. */
export interface AuditState {
  readonly events: number;
  /** Records that are no events of ours. */
  readonly refused: number;
  readonly epoch: number;
  readonly leader: string | null;
  readonly draining: readonly string[];
  /** Each order and how it ended; null while that is not recorded. */
  readonly orders: ReadonlyMap<string, OrderOutcome['result'] | null>;
  /** Where orders moved guests to. */
  readonly guests: ReadonlyMap<string, string>;
  /** Decisions that were made anew. */
  readonly decisions: { readonly same: number; readonly other: number; readonly withoutInput: number };
}

export interface AuditRecord {
  readonly sequence: number;
  readonly timeMs: number;
  readonly event: AuditEvent;
}

export function auditRecord({ sequence, timeMs, bytes }: Recorded): AuditRecord | undefined {
  const read = readMessage('audit', bytes);
  return 'value' in read ? { sequence, timeMs, event: read.value } : undefined;
}

export class AuditReplay {
  readonly #orders = new Map<string, OrderOutcome['result'] | null>();
  readonly #guests = new Map<string, string>();
  readonly #draining = new Set<string>();
  #events = 0;
  #refused = 0;
  #epoch = 0;
  #leader: string | null = null;
  #same = 0;
  #other = 0;
  #withoutInput = 0;

  take(recorded: Recorded): AuditRecord | undefined {
    const record = auditRecord(recorded);
    if (record === undefined) this.#refused++;
    else {
      this.#events++;
      this.#apply(record.event);
    }
    return record;
  }

  get state(): AuditState {
    return {
      events: this.#events,
      refused: this.#refused,
      epoch: this.#epoch,
      leader: this.#leader,
      draining: [...this.#draining].sort(),
      orders: this.#orders,
      guests: this.#guests,
      decisions: { same: this.#same, other: this.#other, withoutInput: this.#withoutInput },
    };
  }

  #apply(event: AuditEvent): void {
    switch (event.event) {
      case 'leads':
        this.#epoch = Math.max(this.#epoch, event.epoch);
        if (event.epoch === this.#epoch) this.#leader = event.host;
        return;
      case 'drain':
        this.#draining.add(event.host);
        return;
      case 'undrain':
        this.#draining.delete(event.host);
        return;
      case 'decision':
        this.#decideAnew(event);
        return;
      case 'order':
        if (!this.#orders.has(event.order.id)) this.#orders.set(event.order.id, null);
        return;
      case 'outcome': {
        const { order, outcome } = event;
        this.#orders.set(order.id, outcome.result);
        if (outcome.result === 'moved') this.#guests.set(order.guest, order.to);
        return;
      }
      case 'wish':
      case 'wish-ended':
        return;
    }
  }

  #decideAnew({ input, orders }: Extract<AuditEvent, { event: 'decision' }>): void {
    if (input === null) {
      this.#withoutInput++;
      return;
    }
    // What it holds was written by a leader, or by a stranger: nonsense is no decision of ours.
    try {
      const placement = plan(
        input.view as FleetView,
        (input.memory ?? undefined) as PlacementMemory | undefined,
        input.settings as PlacementSettings,
      );
      const isSame = isDeepStrictEqual(JSON.parse(JSON.stringify(placement.orders)), orders);
      if (isSame) this.#same++;
      else this.#other++;
    } catch {
      this.#other++;
    }
  }
}

/** Where the stream and the fleet as it is contradict each other; nothing where they agree. */
export function differences(
  state: AuditState,
  reports: readonly Report[],
  draining: readonly string[],
): readonly string[] {
  const at = new Map<string, string[]>();
  for (const { host, guests } of reports)
    for (const { guest } of guests) at.set(guest, [...(at.get(guest) ?? []), host]);
  const moved = [...state.guests].flatMap(([guest, host]) => {
    const found = at.get(guest);
    if (found === undefined || found.includes(host)) return [];
    return [`${guest} was moved to ${host} last, and is at ${found.join(' and ')}`];
  });
  const isDraining = [...draining].sort();
  return [
    ...moved,
    ...(JSON.stringify(isDraining) === JSON.stringify(state.draining)
      ? []
      : [
          `to be drained by the stream: ${listOf(state.draining)}; by the leader's list: ${listOf(isDraining)}`,
        ]),
    ...(state.decisions.other === 0 ? [] : [`${state.decisions.other} decisions, made anew, are other ones`]),
  ];
}

const listOf = (names: readonly string[]): string => (names.length === 0 ? 'none' : names.join(', '));
