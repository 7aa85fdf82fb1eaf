/**
 * The state of a device that was saved elsewhere, on its way into the device of a guest here: it waits for the guest's memory,
 * which the front-end hands over, and is loaded before any ring starts.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import { loadDevice } from '../device/saved-device.ts';

interface Arrival {
  readonly saved: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class ArrivingDevice {
  readonly #device: BalloonDevice;
  #arrival: Arrival | undefined;

  constructor(device: BalloonDevice) {
    this.#device = device;
  }

  /** Resolves when the device was loaded and has settled. Rejects with DeviceStateError, or as {@link fail} says. */
  expect(saved: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#arrival = { saved, resolve, reject };
    });
  }

  /**
   * The guest's memory is there: loads what is expected, if anything is. `loaded` is told what the guest is to keep
   * ({@link loadDevice}), and calls its second argument when the device has settled.
   */
  load(loaded: (wishedMemoryBytes: number | null, settled: () => void) => void): void {
    const arrival = this.#arrival;
    if (arrival === undefined) return;
    this.#arrival = undefined;
    try {
      loaded(loadDevice(this.#device, arrival.saved), arrival.resolve);
    } catch (error) {
      arrival.reject(error as Error);
    }
  }

  /** What is expected will not come. */
  fail(error: Error): void {
    this.#arrival?.reject(error);
    this.#arrival = undefined;
  }
}
