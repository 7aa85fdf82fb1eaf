/** What the main thread and the thread that hears of faults say to each other; see threads/worker-client.ts. */
import type { ArrivingShared } from '../memory/arriving-memory.ts';
import type { ThreadAnswer } from '../threads/worker-client.ts';

export interface FaultThreadRequests {
  /** Begins to hear of them. The descriptor stays the main thread's, and open until this thread has ended. */
  listen: { args: ArrivingShared; result: null };
  /** Ends the thread. */
  close: { args: null; result: null };
}

export interface FaultThreadEvent {
  readonly kind: 'faults';
  /** Pages that threads wait for, and that have to come. */
  readonly pages: readonly number[];
}

export type FromFaultThread = ThreadAnswer | FaultThreadEvent;
