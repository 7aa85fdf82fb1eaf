/**
 * The turns of one guest's rings. A ring with more than a turn's share goes on after the others had theirs. How long a turn is
 * and when the guest rests is decided elsewhere (`thread-turns.ts`, `guest-loop.ts`).
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { GuestLoop } from './guest-loop.ts';
import type { GuestTurns } from './thread-turns.ts';

interface RingTurnsListener {
  /** A ring had a turn. */
  served(): void;
  /** A bug of ours. It costs this guest its connection, and the others nothing. */
  failed(error: Error): void;
}

export class RingTurns {
  readonly #device: BalloonDevice;
  readonly #turns: GuestTurns;
  readonly #loop: GuestLoop;
  readonly #listener: RingTurnsListener;
  /** Rings that will go on. */
  readonly #busy = new Set<number>();

  constructor(device: BalloonDevice, turns: GuestTurns, loop: GuestLoop, listener: RingTurnsListener) {
    this.#device = device;
    this.#turns = turns;
    this.#loop = loop;
    this.#listener = listener;
  }

  /** Gives ring `index` a turn, and more after the others' while it needs them. */
  readonly serve = (index: number): void => {
    // A kick for a ring that goes on anyway is ignored: with a turn for each kick, the ring would have all turns.
    if (this.#busy.has(index)) return;
    try {
      const more = this.#device.serveQueue(index, this.#turns.work);
      this.#listener.served();
      if (!more) return;
    } catch (error) {
      this.#listener.failed(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#busy.add(index);
    this.#loop.stepLater(() => {
      this.#busy.delete(index);
      this.serve(index);
    });
  };
}
