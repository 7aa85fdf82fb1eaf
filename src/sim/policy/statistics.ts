/** What a guest of the model says of itself: the truth, or what a trace has it claim. When it is asked is the run's. */
import type { StatisticsRead } from '../../policy/types.ts';
import type { Guests } from './guests.ts';

/** `step` is that of the run: page faults count up in every guest that lives. */
export function statisticsSaid(guests: Guests, at: number, step: number): StatisticsRead {
  const free = guests.free(at);
  const balloon = guests.balloon[at];
  const claim = guests.claims[at];
  const available = claim === 1 ? 0 : claim === 2 ? guests.memory[at] - balloon : free + guests.cache[at];
  return {
    availableBytes: available,
    freeBytes: claim === 0 ? free : available,
    cacheBytes: guests.cache[at],
    swapInBytes: guests.swapIns[at],
    swapOutBytes: guests.swapOuts[at],
    majorFaults: Math.floor(guests.majorFaults[at]),
    minorFaults: step,
    oomKills: guests.kills[at],
    allocationStalls: Math.floor(guests.allocationStalls[at]),
    balloonedBytes: balloon,
  };
}
