/** A plan in sentences for people: all that was decided and why. The words are placement's. */
import { explainFleet, explainOrder, explainPlacement, explainStaying } from '../placement/explain.ts';
import type { MoveOrder, Placement, StayingGuest } from '../placement/types.ts';
import { formatSize } from '../sys/size.ts';

const orderWords = (order: MoveOrder): string => explainOrder(order, formatSize);

export const stayWords = (staying: StayingGuest): string => explainStaying(staying, formatSize);

export const reasonsOf = (placement: Placement): readonly string[] => [
  ...(placement.state === 'moves' ? [] : [explainFleet(placement.state, placement.unknownHosts)]),
  ...placement.hosts
    .filter(({ state }) => state !== 'steady')
    .map(placed => explainPlacement(placed, formatSize)),
  ...placement.orders.map(orderWords),
  ...placement.staying.map(stayWords),
];
