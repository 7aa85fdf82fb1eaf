/** What a back-end's session needs of the world around it, and what it gives: a loop, an ear for what the protocol brings, replies. */
import type { OwnedFd } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import type { RingLog } from '../virtio/ring-log.ts';
import type { SavableDevice } from './device-state.ts';

/** Where the rings of a front-end that is kept have what they do not say themselves. */
export interface KeptRings {
  /**
   * There is one for each ring. It counts while the ring is recorded as one that runs, and such a ring begins anew only where
   * it stands, or with a message after the one that stopped it.
   */
  ringLog(index: number): RingLog;
}

export interface SessionHost {
  readonly reactor: Pick<Reactor, 'watch'>;
  /** A request was refused, or a ring could not be used; `ringIndex` says which. */
  refused(error: Error, context: { request?: string; ringIndex?: number }): void;
  /**
   * Another device of the front-end's begins on the connection of a former one, whose rings and memory are gone. Absent
   * where nothing is kept of a front-end.
   */
  readonly taken?: (() => void) | undefined;
  /**
   * The driver kicked ring `index`: the host has it served when its turn comes. Where it is absent, the session has the
   * device serve the ring at once.
   */
  readonly kicked?: ((index: number) => void) | undefined;
  /** The device can be saved and loaded through the front-end. Absent where it cannot. */
  readonly deviceState?: SavableDevice | undefined;
  /** The front-end is kept for another process: nothing is offered that such a one could not go on with. */
  readonly kept?: KeptRings | undefined;
  /** The front-end handed over (or withdrew) the channel for the back-end's own requests. */
  backendChannel(fd: OwnedFd | undefined): void;
}

/** A reply, to be sent. */
export interface SessionReply {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** The receiver's of this object to close. */
  readonly fds: readonly OwnedFd[];
}
