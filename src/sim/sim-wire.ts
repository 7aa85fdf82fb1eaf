/** A connection between two simulated hosts: some bytes a millisecond, some latency, any cutting up, and an end. */
import type { Random } from '../guest/random.ts';
import type { ByteChannel } from '../migration/byte-channel.ts';
import { SystemError } from '../sys/error.ts';
import type { SimClock } from './sim-clock.ts';

const ECONNRESET = 104;
/** The longest piece in which bytes arrive. */
const PIECE_BYTES_MAX = 200_000;

interface WireOptions {
  readonly clock: SimClock;
  readonly random: Random;
  readonly bytesPerMs: number;
  readonly latencyMs: number;
  /** The host of the second end. */
  readonly host: SimHost;
}

/** A host that may hang for a while: it takes nothing and says nothing, and then goes on as if nothing had been. */
export class SimHost {
  #hung = false;
  readonly #later: (() => void)[] = [];

  hang(): void {
    this.#hung = true;
  }

  resume(): void {
    this.#hung = false;
    for (const act of this.#later.splice(0)) act();
  }

  /** Does something there as soon as it does not hang. */
  act(act: () => void): void {
    if (this.#hung) this.#later.push(act);
    else act();
  }
}

/** Of a host that does not hang. */
const HERE = new SimHost();

type Taker = Parameters<ByteChannel['listen']>[0];

class WireEnd implements ByteChannel {
  other!: WireEnd;
  readonly #wire: SimWire;
  readonly #options: WireOptions;
  readonly #host: SimHost;
  #taker: Taker | undefined;
  #freeMs = 0;
  #ended = false;

  constructor(wire: SimWire, options: WireOptions, host: SimHost) {
    this.#wire = wire;
    this.#options = options;
    this.#host = host;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { clock, bytesPerMs } = this.#options;
    if (this.#wire.broken || this.#ended) throw new SystemError('write', ECONNRESET);
    this.#freeMs = Math.max(this.#freeMs, clock.nowMs()) + bytes.length / bytesPerMs;
    const copy = bytes.slice();
    // A host that hangs writes nothing, and takes nothing.
    await this.#wire.until(this.#host);
    this.#arrive(() => this.other.#deliver(copy));
    await clock.sleep(this.#freeMs - clock.nowMs());
    await this.#wire.until(this.other.#host);
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
    this.#host.act(() => {
      const taker = this.#taker;
      this.#taker = undefined;
      taker?.closed(error);
    });
  }

  #arrive(act: () => void): void {
    const { clock, latencyMs } = this.#options;
    clock.later(Math.max(0, this.#freeMs - clock.nowMs()) + latencyMs, () => {
      if (!this.#wire.broken) this.other.#host.act(act);
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
  readonly #waiting = new Set<(error: Error) => void>();

  constructor(options: WireOptions) {
    const a = new WireEnd(this, options, HERE);
    const b = new WireEnd(this, options, options.host);
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
    for (const fail of this.#waiting) fail(new SystemError('write', ECONNRESET));
    this.#cut();
  }

  /** Resolves when that host does not hang; rejects when the wire is cut before. */
  async until(host: SimHost): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#waiting.add(reject);
      host.act(() => {
        this.#waiting.delete(reject);
        resolve();
      });
    });
  }
}
