/**
 * Hyper-V's Dynamic Memory. A guest should have what its programs were promised, and a fifth more. It grows to that at
 * once; memory is taken only when another guest or the host wants it, from those above it, by weight; the kernel's floor
 * holds.
 */
import { kernelFloor } from '../settings.ts';
import { budgetOf, clamp, divide, type Policy, sum, targetsOf, viewsOf } from './anchor.ts';

const BUFFER = 1.2;

export const hyperV: Policy<null> = {
  name: 'Hyper-V',
  source: 'Microsoft: Hyper-V Dynamic Memory; Linux: drivers/hv/hv_balloon.c',
  periodMs: 1000,
  begin: () => null,
  decide(sample, settings, memory) {
    const views = viewsOf(sample, settings);
    const budget = budgetOf(sample, settings);
    const floors = views.map(view => Math.min(view.max, Math.max(view.min, kernelFloor(view.memory))));
    const demands = views.map(({ max, used }, at) => {
      const committed = sample.guests[at].foreign?.committedBytes ?? used;
      return committed === null ? max : clamp(committed * BUFFER, floors[at], max);
    });
    const wanted = views.map(({ keep }, at) => Math.max(keep, demands[at]));
    if (sum(wanted) <= budget) return { targets: targetsOf(views, wanted), memory };
    const short = sum(demands) > budget;
    const keeps = divide(
      budget,
      views.map(({ shares }, at) => ({
        low: short ? floors[at] : demands[at],
        high: short ? demands[at] : wanted[at],
        weight: shares,
      })),
    );
    return { targets: targetsOf(views, keeps), memory };
  },
};
