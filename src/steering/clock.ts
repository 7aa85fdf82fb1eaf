/** Time as the runner of a policy knows it, so that tests move it. */
import { monotonicMs } from '../sys/poll.ts';

export interface SteeringClock {
  /** Of a clock that is never set, and that all processes of this machine share. */
  nowMs(): number;
  /** Milliseconds since the epoch, for people. */
  wallMs(): number;
  /** Calls `run` once after `ms`, unless it is cancelled before. */
  schedule(ms: number, run: () => void): { cancel(): void };
}

export const machineClock: SteeringClock = {
  nowMs: monotonicMs,
  wallMs: () => Date.now(),
  schedule: (ms, run) => {
    const timer = setTimeout(run, ms);
    return { cancel: () => clearTimeout(timer) };
  },
};
