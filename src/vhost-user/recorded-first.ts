/**
 * A device whose rings are served only when the message that started them is recorded: a process that took a ring up, and
 * died before that was known, would have it taken up once more from where it began.
 */
import type { VirtioDevice } from '../virtio/device.ts';

export class RecordedFirst {
  readonly #serve: (index: number) => void;
  readonly #started = new Set<number>();
  /** The same device, but for that. */
  readonly device: VirtioDevice;

  /** `serve` has a ring served, as a kick does. */
  constructor(device: VirtioDevice, serve = (index: number) => device.serveQueue(index)) {
    this.#serve = serve;
    this.device = {
      features: device.features,
      queueCount: device.queueCount,
      setFeatures: features => device.setFeatures(features),
      readConfig: (offset, into) => device.readConfig(offset, into),
      writeConfig: (offset, bytes) => device.writeConfig(offset, bytes),
      regionAdded: region => device.regionAdded(region),
      regionRemoved: (region, released) => device.regionRemoved(region, released),
      startQueue: (...started) => device.startQueue(...started),
      suspendQueue: index => device.suspendQueue(index),
      resumeQueue: index => device.resumeQueue(index),
      stopQueue: (index, reason) => device.stopQueue(index, reason),
      serveQueue: index => void this.#started.add(index),
      reset: () => device.reset(),
    };
  }

  /** What was recorded counts: serves the rings that wait for it. */
  serve(): void {
    const started = [...this.#started];
    this.#started.clear();
    for (const index of started) this.#serve(index);
  }
}
