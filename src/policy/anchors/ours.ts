/** Our own policy under the interface of those that it is compared with. */
import { decide } from '../decide.ts';
import { newDecision } from '../records.ts';
import type { Decision } from '../types.ts';
import { isUrgent } from '../wake.ts';
import type { Policy } from './anchor.ts';

export const OURS = 'aerostat';

/** The last decision, and the one before, which is written next. */
interface Turns {
  readonly last: Decision;
  readonly spare: Decision;
}

export const ours: Policy<Turns> = {
  name: OURS,
  source: 'src/policy',
  periodMs: 2000,
  begin: () => ({ last: newDecision(), spare: newDecision() }),
  decide(sample, settings, { last, spare }) {
    const decision = decide(sample, settings, last.memory, spare);
    return {
      targets: decision.guests.map(({ targetBytes }) => targetBytes),
      memory: { last: decision, spare: last },
    };
  },
  wakes: (sample, { last }) => isUrgent(sample, last),
};
