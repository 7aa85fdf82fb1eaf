/**
 * The state of a device that was saved elsewhere, on its way into the device of a guest here: it waits for the guest's memory,
 * which the front-end hands over, and is loaded before any ring starts.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import { checkSavedDevice, DeviceStateError, loadDevice } from '../device/saved-device.ts';

interface Arrival {
  readonly saved: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** @throws DeviceStateError when the device cannot become what was saved, as far as that is known before there is memory */
export function checkFresh(device: BalloonDevice, saved: Uint8Array): void {
  checkSavedDevice(device, saved);
  if (device.accounts.balloonedPages > 0)
    throw new DeviceStateError('this device has a balloon of its own already');
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
