/** The other side of a PeerProcess: how such a process speaks to its bench, and learns that it is needed no more. */
import type { Serializable } from 'node:child_process';
import { InvariantError } from '../sys/error.ts';

export function tellBench(message: Serializable): void {
  if (process.send === undefined) throw new InvariantError('a peer without a bench');
  // A bench that was interrupted hears nothing any more; {@link whenLetGo} is for that.
  process.send(message, undefined, undefined, () => {});
}

/** Calls when the bench lets go of us or ends, which it may have done while we were still being loaded. */
export function whenLetGo(act: () => void): void {
  if (process.connected) process.once('disconnect', act);
  else act();
}
