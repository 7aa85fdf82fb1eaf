/** Who places the guests of a simulated fleet: ours, first-fit, and no migration at all. */
import { orderId } from '../../placement/order-id.ts';
import { plan } from '../../placement/plan.ts';
import type { FleetHost, FleetView, MoveOrder, PlacementMemory } from '../../placement/types.ts';

interface Planned {
  readonly orders: readonly MoveOrder[];
  readonly memory?: PlacementMemory;
}

export type Planner = (view: FleetView, memory: PlacementMemory | undefined) => Planned;

const needOf = ({ guests }: FleetHost): number => guests.reduce((sum, { needBytes }) => sum + needBytes, 0);
const reservedOf = ({ incoming }: FleetHost): number => incoming.reduce((sum, { bytes }) => sum + bytes, 0);
const budgetOf = ({ memoryBytes, reserveBytes, othersBytes }: FleetHost): number =>
  memoryBytes - reserveBytes - othersBytes;

/** A host has so many guests on their way from it at a time. */
const LEAVES_MAX = 2;

/**
 * As schedulers go: the first guest that can be moved, to the first host where its need fits by the reports that there
 * are and by what it has ordered in this round, until the host is no longer short, or empty. It remembers nothing.
 */
const firstFit: Planner = ({ hosts }) => {
  const needs = new Map(hosts.map(host => [host, needOf(host) + reservedOf(host)]));
  const need = (host: FleetHost): number => needs.get(host) ?? 0;
  const orders: MoveOrder[] = [];
  for (const source of hosts) {
    const moving = source.guests.filter(guest => guest.moving !== null);
    let leaving = moving.length;
    needs.set(source, need(source) - moving.reduce((sum, { needBytes }) => sum + needBytes, 0));
    for (const guest of source.guests) {
      if (leaving >= LEAVES_MAX || (!source.draining && need(source) <= budgetOf(source))) break;
      if (guest.obstacle !== null || guest.moving !== null) continue;
      const reserveBytes = Math.max(guest.needBytes, guest.residentBytes);
      const to = hosts.find(
        host => host !== source && !host.draining && need(host) + reserveBytes <= budgetOf(host),
      );
      if (to === undefined) continue;
      needs.set(source, need(source) - guest.needBytes).set(to, need(to) + reserveBytes);
      leaving++;
      orders.push(orderOf(source, to, guest, reserveBytes));
    }
  }
  return { orders };
};

const orderOf = (
  source: FleetHost,
  to: FleetHost,
  { guest, incarnation, residentBytes, left }: FleetHost['guests'][number],
  reserveBytes: number,
): MoveOrder => ({
  id: orderId(guest, incarnation, source.host, source.revision, to.host),
  guest,
  incarnation,
  from: source.host,
  to: to.host,
  fromRevision: source.revision,
  toRevision: to.revision,
  reserveBytes,
  sendBytes: residentBytes,
  sendMs: (1000 * residentBytes) / source.linkBytesPerSecond,
  left: [{ host: source.host, agoMs: 0 }, ...left],
  because: source.draining
    ? { kind: 'drain' }
    : { kind: 'short', shortBytes: 0, budgetBytes: budgetOf(source) },
});

export const PLANNERS: Readonly<Record<string, Planner>> = {
  ours: plan,
  'first-fit': firstFit,
  'no migration': () => ({ orders: [] }),
};
