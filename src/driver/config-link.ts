/**
 * The driver's view of the configuration space: reads it when the host says that it changed, writes the balloon's size
 * into it, and keeps at most one of each under way, however fast either side changes its mind. A write per buffer, as
 * Linux makes them, would cost a message each on most transports; here the newest size is written when the last
 * writing is done.
 */
import { CONFIG } from '../balloon/config-space.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import type { DriverCounters } from './counters.ts';

const ACTUAL_BYTES = 4;

interface ConfigLinkOptions {
  readonly transport: VirtioTransport;
  readonly counters: DriverCounters;
  /** Size of the profile's configuration space. */
  readonly configBytes: number;
  /** The configuration was read. */
  readonly onRead: (config: DataView) => void;
  /** The host has taken note of the size. */
  readonly onTold: () => void;
  readonly onError: (error: Error) => void;
}

export class ConfigLink {
  readonly #options: ConfigLinkOptions;
  #reading = false;
  #stale = false;
  #telling = false;
  #actual = 0;
  /** The last size that the host has taken note of. */
  #told = 0;
  #closed = false;

  constructor(options: ConfigLinkOptions) {
    this.#options = options;
  }

  /** Nothing is under way, and the host knows the newest size. */
  get idle(): boolean {
    return this.quiet && this.#told === this.#actual;
  }

  /** Nothing is under way. */
  get quiet(): boolean {
    return !this.#reading && !this.#telling;
  }

  /** Reads the configuration, again if it is being read already: that reading may be older than the change. */
  refresh(): void {
    this.#stale = true;
    if (!this.#reading && !this.#closed) void this.#read();
  }

  /** D10: the balloon has this many pages now. */
  report(actual: number): void {
    this.#actual = actual;
    if (!this.#telling && !this.#closed && this.#told !== actual) void this.#tell();
  }

  /** The device is to be left alone. What is under way ends unheard. */
  close(): void {
    this.#closed = true;
  }

  async #read(): Promise<void> {
    const { transport, counters, configBytes, onRead, onError } = this.#options;
    this.#reading = true;
    try {
      let bytes: Uint8Array;
      do {
        this.#stale = false;
        counters.configReads++;
        bytes = await transport.readConfig(0, configBytes);
      } while (this.#stale && !this.#closed);
      this.#reading = false;
      this.#compare(bytes);
      if (!this.#closed) onRead(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    } catch (error) {
      this.#reading = false;
      if (!this.#closed) onError(error as Error);
    }
  }

  /** A device that took another's place shows a size that it was not told. */
  #compare(bytes: Uint8Array): void {
    // While a size is on its way, the one that is shown may be older.
    if (this.#telling) return;
    this.#told = new DataView(bytes.buffer, bytes.byteOffset).getUint32(CONFIG.offset.actual, true);
  }

  async #tell(): Promise<void> {
    const { transport, counters, onTold, onError } = this.#options;
    const bytes = new Uint8Array(ACTUAL_BYTES);
    const view = new DataView(bytes.buffer);
    this.#telling = true;
    try {
      while (this.#told !== this.#actual && !this.#closed) {
        const actual = this.#actual;
        view.setUint32(0, actual, true);
        counters.actualWrites++;
        await transport.writeConfig(CONFIG.offset.actual, bytes);
        this.#told = actual;
      }
      this.#telling = false;
      if (!this.#closed) onTold();
    } catch (error) {
      this.#telling = false;
      if (!this.#closed) onError(error as Error);
    }
  }
}
