/**
 * Qubes OS' qmemman. A guest prefers 1.3 times what it uses. Where memory is left over, all of it is divided in
 * proportion to that; where it is short, those above their preference give down to it, and the others divide what comes.
 * Small transfers are not made.
 */
import { reserveOf } from '../settings.ts';
import { MIB } from '../units.ts';
import { type Policy, sum, targetsOf, type View, viewsOf } from './anchor.ts';

const CACHE_FACTOR = 1.3;
const PREFERRED_BYTES_MIN = 200 * MIB;
const ROUNDING = 0.999;
const DONATION_BYTES_MIN = 10 * MIB;
const TRANSFER_BYTES_MIN = 150 * MIB;
const NEEDY_TRANSFER_BYTES_MIN = 15 * MIB;

const preferred = ({ used, max }: View): number =>
  Math.max(Math.min((used ?? 0) * CACHE_FACTOR, max), PREFERRED_BYTES_MIN);

export const qmemman: Policy<null> = {
  name: 'qmemman',
  source: 'QubesOS/qubes-core-admin: qubes/qmemman/algo.py, systemstate.py',
  periodMs: 1000,
  begin: () => null,
  decide(sample, settings, memory) {
    const views = viewsOf(sample, settings);
    const told = views.filter(({ used }) => used !== null);
    const { host } = sample;
    const free = host.availableBytes - reserveOf(settings, host) - host.reservedBytes;
    const left = free - sum(told.map(view => preferred(view) - view.actual));
    const wanted = left > 0 ? whenEnough(told, left) : whenLow(told, free);
    const transfer = sum(told.map(({ name, actual }) => Math.abs((wanted.get(name) ?? actual) - actual)));
    const needy = told.some(
      view =>
        view.actual < preferred(view) &&
        (wanted.get(view.name) ?? view.actual) - view.actual > NEEDY_TRANSFER_BYTES_MIN,
    );
    const worth = transfer > TRANSFER_BYTES_MIN || needy;
    return {
      targets: targetsOf(
        views,
        views.map(({ name }) => (worth ? (wanted.get(name) ?? null) : null)),
      ),
      memory,
    };
  },
};

function whenEnough(views: readonly View[], left: number): Map<string, number> {
  const all = sum(views.map(preferred));
  const wanted = new Map<string, number>();
  let over = 0;
  for (const view of views) {
    const part = ROUNDING * (preferred(view) + (preferred(view) / all) * left);
    over += Math.max(0, part - view.max);
    wanted.set(view.name, Math.min(part, view.max));
  }
  // What some cannot hold is for the others, until all are full.
  for (let rounds = views.length; over > 0 && rounds > 0; rounds--) {
    const open = views.filter(({ name, max }) => (wanted.get(name) ?? 0) < max);
    if (open.length === 0) break;
    const bonus = (ROUNDING * over) / open.length;
    over = 0;
    for (const { name, max } of open) {
      const next = (wanted.get(name) ?? 0) + bonus;
      over += Math.max(0, next - max);
      wanted.set(name, Math.min(next, max));
    }
  }
  return wanted;
}

function whenLow(views: readonly View[], free: number): Map<string, number> {
  const wanted = new Map<string, number>();
  const donors = views.filter(view => view.actual > preferred(view) || view.actual >= view.max);
  const acceptors = views.filter(view => !donors.includes(view));
  let squeezed = free;
  for (const donor of donors) {
    const spare = donor.actual - preferred(donor);
    if (spare < DONATION_BYTES_MIN) continue;
    squeezed += spare;
    wanted.set(donor.name, preferred(donor));
  }
  if (squeezed < 0) return wanted;
  const all = sum(acceptors.map(preferred));
  for (const view of acceptors) {
    const part = ROUNDING * (view.actual + (preferred(view) / all) * squeezed);
    wanted.set(view.name, Math.min(part, view.max));
  }
  return wanted;
}
