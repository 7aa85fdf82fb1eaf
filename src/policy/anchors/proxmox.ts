/**
 * Proxmox VE's automatic ballooning. The host is to use four fifths of its memory; what it uses less or more is divided
 * by shares above each guest's minimum, first among guests with little free memory (to grow) or much (to shrink), then
 * among all, 100 MiB a guest and cycle at most.
 */

import { MIB } from '../units.ts';
import { clamp, type Policy, targetsOf, type View, viewsOf } from './anchor.ts';

const TARGET = 0.8;
const GOAL_BYTES_MIN = 10 * MIB;
const CHANGE_BYTES_MAX = 100 * MIB;
const FREE_SHARE = 0.25;

export const proxmox: Policy<null> = {
  name: 'Proxmox',
  source: 'proxmox/pve-manager: PVE/AutoBalloon.pm, PVE/Service/pvestatd.pm',
  periodMs: 10_000,
  begin: () => null,
  decide(sample, settings, memory) {
    const { totalBytes, freeBytes } = sample.host;
    const goal = totalBytes * TARGET - (totalBytes - freeBytes);
    const views = viewsOf(sample, settings);
    const keeps: (number | null)[] = views.map(() => null);
    const all = views.map((_, at) => at);
    // A guest that says nothing counts as one in need.
    const rich = all.filter(
      at => (views[at].free ?? 0) > FREE_SHARE * views[at].min && views[at].keep >= views[at].min,
    );
    const poor = all.filter(at => !rich.includes(at));
    if (Math.abs(goal) > GOAL_BYTES_MIN) {
      const rest = change(views, keeps, goal > 0 ? poor : rich, goal);
      // Only where the first ones changed nothing are all of them asked.
      if (Math.abs(rest) >= Math.abs(goal)) change(views, keeps, all, rest);
    }
    return { targets: targetsOf(views, keeps), memory };
  },
};

/** Moves the guests of `list` towards their parts; returns what of `goal` is left. */
function change(
  views: readonly View[],
  keeps: (number | null)[],
  list: readonly number[],
  goal: number,
): number {
  let rest = goal;
  let open = [...list];
  for (let again = true; again && rest !== 0 && open.length > 0; ) {
    again = false;
    let shares = 0;
    let spread = rest;
    for (const at of open) {
      shares += views[at].shares;
      spread += (keeps[at] ?? views[at].keep) - views[at].min;
    }
    let changed = 0;
    for (const at of open) {
      const { min, max, keep } = views[at];
      const desired = clamp(min + Math.trunc((spread / shares) * views[at].shares), min, max);
      // In a round to shrink, a guest below its part stays; in a round to grow, one above it shrinks.
      if (desired === keep || (desired > keep && goal < 0)) {
        open = open.filter(other => other !== at);
        continue;
      }
      const next = clamp(desired, keep - CHANGE_BYTES_MAX, keep + CHANGE_BYTES_MAX);
      changed += next - (keeps[at] ?? keep);
      if (next !== keeps[at]) again = true;
      keeps[at] = next;
    }
    rest -= changed;
  }
  return rest;
}
