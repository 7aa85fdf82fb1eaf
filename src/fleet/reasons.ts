/** A plan, and what is recorded of it, in sentences for people. The words for plans are placement's. */
import { explainFleet, explainOrder, explainPlacement, explainStaying } from '../placement/explain.ts';
import type { MoveOrder, Placement, StayingGuest } from '../placement/types.ts';
import { formatSize } from '../sys/size.ts';
import type { AuditEvent } from './messages.ts';

export const orderWords = (order: MoveOrder): string => explainOrder(order, formatSize);

export const stayWords = (staying: StayingGuest): string => explainStaying(staying, formatSize);

export const reasonsOf = (placement: Placement): readonly string[] => [
  ...(placement.state === 'moves' ? [] : [explainFleet(placement.state, placement.unknownHosts)]),
  ...placement.hosts
    .filter(({ state }) => state !== 'steady')
    .map(placed => explainPlacement(placed, formatSize)),
  ...placement.orders.map(orderWords),
  ...placement.staying.map(stayWords),
];

/** An event of the audit stream. */
export function eventWords(event: AuditEvent): string {
  switch (event.event) {
    case 'leads':
      return `${event.host} leads (epoch ${event.epoch})`;
    case 'drain':
      return `${event.host} is to be empty`;
    case 'undrain':
      return `guests may come to ${event.host} again`;
    case 'wish':
      return `a person wishes ${event.wish.guest} to be at ${event.wish.to}`;
    case 'wish-ended':
      return `a wish ended: ${event.outcome.result}${because(event.outcome.why)}`;
    case 'decision':
      return `decided: ${event.orders.length} orders. ${event.reasons.join(' ')}`;
    case 'order':
      return `ordered ${event.order.guest} from ${event.order.from} to ${event.order.to} (${event.order.id})`;
    case 'outcome':
      return `${event.order.id} (${event.order.guest} to ${event.order.to}): ${event.outcome.result}${because(event.outcome.why)}`;
  }
}

const because = (why: string | null): string => (why === null ? '' : `: ${why}`);
