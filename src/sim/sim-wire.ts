/** A connection between two simulated hosts: some bytes a millisecond, some latency, any cutting up, and an end. */
import type { Random } from '../guest/random.ts';
import type { ByteChannel } from '../migration/byte-channel.ts';
import { SystemError } from '../sys/error.ts';
import type { SimClock } from './sim-clock.ts';

const ECONNRESET = 104;
/** The longest piece in which bytes arrive. */
const PIECE_BYTES_MAX = 200_000;

export interface WireOptions {
  readonly clock: SimClock;
  readonly random: Random;
  readonly bytesPerMs: number;
  readonly latencyMs: number;
}

type Taker = Parameters<ByteChannel['listen']>[0];

class WireEnd implements ByteChannel {
  other!: WireEnd;
  readonly #wire: SimWire;
  readonly #options: WireOptions;
  #taker: Taker | undefined;
  #freeMs = 0;
  #ended = false;

  constructor(wire: SimWire, options: WireOptions) {
    this.#wire = wire;
    this.#options = options;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { clock, bytesPerMs } = this.#options;
    if (this.#wire.broken || this.#ended) throw new SystemError('write', ECONNRESET);
    this.#freeMs = Math.max(this.#freeMs, clock.nowMs()) + bytes.length / bytesPerMs;
    const copy = bytes.slice();
    this.#arrive(() => this.other.#deliver(copy));
    await clock.sleep(this.#freeMs - clock.nowMs());
  }

  listen(taker: Taker): void {
    this.#taker = taker;
  }

  close(): void {
    if (this.#ended || this.#wire.broken) return;
    this.#ended = true;
    this.#arrive(() => this.other.closed());
  }

  destroy(): void {
    this.#wire.cut();
  }

  closed(error?: Error): void {
    const taker = this.#taker;
    this.#taker = undefined;
    taker?.closed(error);
  }

  #arrive(act: () => void): void {
    const { clock, latencyMs } = this.#options;
    clock.later(Math.max(0, this.#freeMs - clock.nowMs()) + latencyMs, () => {
      if (!this.#wire.broken) act();
    });
  }

  #deliver(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const length = this.#options.random.between(1, PIECE_BYTES_MAX);
      this.#taker?.data(bytes.subarray(at, at + length));
      at += length;
    }
  }
}

export class SimWire {
  readonly ends: readonly [ByteChannel, ByteChannel];
  broken = false;
  readonly #cut: () => void;

  constructor(options: WireOptions) {
    const a = new WireEnd(this, options);
    const b = new WireEnd(this, options);
    a.other = b;
    b.other = a;
    this.ends = [a, b];
    this.#cut = () => {
      for (const end of [a, b]) end.closed(new SystemError('read', ECONNRESET));
    };
  }

  /** What is under way never arrives, and both ends learn of it. */
  cut(): void {
    if (this.broken) return;
    this.broken = true;
    this.#cut();
  }
}
