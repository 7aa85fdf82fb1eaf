/** How a hosted guest is left to another process, which goes on with it; until that has it, it may go on here. */
import { GuestStateError } from '../control/errors.ts';
import type { GuestHost } from './guest-host.ts';

/** Discards that a driver waits for end within so long, or the guest is not handed over. */
const LEAVING_MS_MAX = 2000;

/**
 * The guest's rings stand still, and nothing is under way on its memory. Returns what is kept of it: duplicates of
 * descriptors, by their numbers. To be followed by {@link abandonGuest}, once another process has them. Rejects when the guest
 * cannot be left; then it goes on here.
 */
export async function leaveGuest(host: GuestHost): Promise<(readonly [number: number, fd: number])[]> {
  const { name, acceptor, keeping } = host;
  if (host.connected && keeping === undefined) {
    throw new GuestStateError(
      `${name} cannot be handed over, for it is not kept; end the daemon and start it anew`,
    );
  }
  if (keeping?.isStored === false) {
    throw new GuestStateError(
      `${name} cannot be handed over now: the service manager has not taken all that is to be stored of it; try again`,
    );
  }
  const stuck = () => new GuestStateError(`memory of ${name} is being given back, and that does not end`);
  // What the driver waits for comes first, while the rings run.
  if (!(await settlesInTime(host))) throw stuck();
  acceptor?.leave();
  if (!(await settlesInTime(host))) {
    acceptor?.stay();
    throw stuck();
  }
  const kept = keeping?.leave(acceptor?.frontEnd) ?? [];
  host.statistics.stop();
  host.requests.stop();
  host.target.forget();
  host.hints.forget();
  return kept;
}

/** It was left, and another process has it. */
export function abandonGuest({ acceptor, keeping, target, lane, loop }: GuestHost): void {
  acceptor?.abandon();
  keeping?.guest.abandon();
  target.lease.close();
  lane.close();
  loop.close();
}

function settlesInTime(host: GuestHost): Promise<boolean> {
  return new Promise(resolve => {
    const patience = host.loop.schedule(LEAVING_MS_MAX, () => resolve(false));
    host.afterSettling(() => {
      patience.cancel();
      resolve(true);
    });
  });
}
