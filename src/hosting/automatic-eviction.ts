/**
 * Automatic reclaim of guests that have lent their allocator's state (profile `shared`): every few seconds the memory of all
 * huge frames that are free goes back to the host. The guest takes no part in it, where free page reporting has it name
 * its blocks; both may be at work, and what one has given back the other finds gone.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { Timer } from '../sys/poll.ts';
import type { GuestLoop } from './guest-loop.ts';
import { EVICTION_MS_DEFAULT } from './options.ts';

export class AutomaticEviction {
  readonly #device: BalloonDevice;
  readonly #loop: GuestLoop;
  readonly #intervalMs: number;
  #timer: Timer | undefined;

  /** Every `intervalMs`; never where that is 0. */
  constructor(device: BalloonDevice, loop: GuestLoop, intervalMs = EVICTION_MS_DEFAULT) {
    this.#intervalMs = intervalMs;
    this.#device = device;
    this.#loop = loop;
    if (intervalMs > 0 && device.profile.features.some(({ queue }) => queue === 'shared')) this.#schedule();
  }

  #schedule(): void {
    this.#timer = this.#loop.schedule(this.#intervalMs, () => {
      this.#schedule();
      // A share of the guest's own turn, as all that is done for it.
      if (this.#device.shared.lent) this.#loop.step(this.#evict);
    });
  }

  readonly #evict = (): void => this.#device.shared.evict();

  close(): void {
    this.#timer?.cancel();
  }
}
