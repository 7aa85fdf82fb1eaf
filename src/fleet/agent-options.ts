/** What an agent is told: what its host is, and where its machines, NATS and clocks are. */
import type { PlacementSettings } from '../placement/types.ts';
import type { StartReceiver } from './arrivals.ts';
import type { Bus } from './bus.ts';
import type { Machines } from './machines.ts';

export interface AgentOptions {
  readonly fleet: string;
  readonly host: string;
  readonly periodMs: number;
  /** What guests and reserve have together. */
  readonly memoryBytes: number;
  readonly reserveBytes: number;
  readonly linkBytesPerSecond: number;
  readonly placement: PlacementSettings;
  /** An order that goes by a report of ours that is older is void. */
  readonly staleMs: number;
  readonly machines: Machines;
  readonly startReceiver: StartReceiver;
  readonly openBus: () => Promise<Bus>;
  /** A clock that is never set. */
  readonly now: () => number;
  /** For people. */
  readonly wallClock: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly log: (level: 'info' | 'warn' | 'error', message: string) => void;
}
