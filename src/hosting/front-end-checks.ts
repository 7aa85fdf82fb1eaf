/**
 * What a guest's host looks at beside the protocol, when a front-end hands memory over and while its rings run: whether files
 * of memory can be shrunk, and whether the front-end knows the device well enough. Each complaint is told as a problem.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { shrinkSeal } from '../sys/file.ts';
import type { Reactor, Timer } from '../sys/poll.ts';
import type { DiscardLane } from '../threads/discard-link.ts';
import type { BackendSession } from '../vhost-user/backend-session.ts';
import type { GuestEvents } from './guest-events.ts';
import { KnownConfiguration } from './known-configuration.ts';

/** A front-end that sets up rings before there is a driver has done it so long after it came. */
const RINGS_SET_UP_MS_MAX = 2000;

interface CheckedGuest {
  readonly device: BalloonDevice;
  readonly lane: DiscardLane;
  /** Rings that a driver needs which takes all features that are offered. */
  readonly ringsNeeded: number;
  session(): BackendSession | undefined;
}

export class FrontEndChecks {
  readonly #guest: CheckedGuest;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #events: GuestEvents;
  readonly #known = new KnownConfiguration();
  #ringsLook: Timer | undefined;
  /** Files that were sealed, or could not be: they are not asked for again. */
  #sealed = false;

  constructor(guest: CheckedGuest, reactor: Pick<Reactor, 'schedule'>, events: GuestEvents) {
    this.#guest = guest;
    this.#reactor = reactor;
    this.#events = events;
  }

  /** Another front-end, or another device of the one that is there. `goesOn`: another daemon served it, and has looked. */
  begin(goesOn = false): void {
    const { device, session, ringsNeeded } = this.#guest;
    this.#ringsLook?.cancel();
    if (goesOn) {
      this.#known.goOn();
      return;
    }
    this.#known.begin(device.hints.counters.hintBuffers);
    this.#ringsLook = this.#reactor.schedule(RINGS_SET_UP_MS_MAX, () => {
      const complaint = this.#known.complaintOfRings(session()?.ringsSetUp ?? 0, ringsNeeded);
      if (complaint !== undefined) this.#events.problem('rings', complaint);
    });
  }

  /** The front-end is gone. */
  end(): void {
    this.#sealed = false;
    this.#ringsLook?.cancel();
  }

  configRead(offset: number, length: number): void {
    this.#known.read(offset, length);
  }

  /** A ring was served. */
  served(): void {
    const { device, session } = this.#guest;
    const complaint = this.#known.complaint({
      memoryBytes: session()?.memory.size ?? 0,
      balloonedPages: device.accounts.balloonedPages,
      targetPages: device.targetPages,
      hintBuffers: device.hints.counters.hintBuffers,
    });
    if (complaint !== undefined) this.#events.problem('configuration', complaint);
  }

  /** Whether files of memory can be mapped now. False: a discarding thread seals them first, and then there is news. */
  prepareMemory(files: readonly OwnedFd[]): boolean {
    const { lane } = this.#guest;
    if (lane.sealing) return false;
    const unsealed = this.#sealed ? [] : files.filter(file => shrinkSeal(file) === 'open');
    this.#sealed = false;
    if (unsealed.length === 0) return true;
    this.#sealed = true;
    lane.seal(unsealed);
    return false;
  }
}
