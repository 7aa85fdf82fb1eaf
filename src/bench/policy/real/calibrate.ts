/**
 * How fast the guests of this machine are, measured before a trace is played: the parameters of the model that reality is
 * compared with. They come out in the bytes and seconds of the trace.
 */
import { PAGE_SIZE } from '../../../memory/page.ts';
import { PACE, type Pace } from '../../../sim/policy/guests.ts';
import { monotonicMs } from '../../../sys/poll.ts';
import { spreadOf } from '../../report.ts';
import type { RealHost } from './host.ts';
import type { Scale } from './scale.ts';

export interface Calibrated {
  readonly pace: Pace;
  /** What a balloon takes of free memory in a second. */
  readonly inflateBytes: number;
  /** What each guest uses before a program runs, in the order of the guests. */
  readonly baseBytes: readonly number[];
}

const ORDERS = 5;

/** Whole pages that are this share of `bytes`. */
const shareOf = (bytes: number, share: number): number => Math.floor((bytes * share) / PAGE_SIZE) * PAGE_SIZE;

export class Calibration {
  readonly #host: RealHost;
  readonly #memoryBytes: number;
  readonly #scale: Scale;

  constructor(host: RealHost, memoryBytes: number, scale: Scale) {
    this.#host = host;
    this.#memoryBytes = memoryBytes;
    this.#scale = scale;
  }

  async run(): Promise<Calibrated> {
    const baseBytes = await this.#atRest();
    const base = Math.max(...baseBytes);
    const half = shareOf(this.#memoryBytes, 0.5);
    const inflateS = await this.#timed(() => this.#host.reach(this.#each(half)));
    await this.#host.reach(this.#each(0));
    const reportS = await this.#reportS(half);
    const atOnce = await this.#atOnce(base);
    return {
      baseBytes,
      inflateBytes: this.#rate(half, inflateS),
      // A kernel kills as soon as it finds nothing to reclaim.
      pace: { ...PACE, ...atOnce, reportS, orderS: await this.#orderS(), oomS: 0 },
    };
  }

  async #atRest(): Promise<number[]> {
    const { control, guests } = this.#host;
    const said = await Promise.all(guests.map(({ name }) => control.statistics(name, { freshMs: 0 })));
    return said.map(({ statistics }) => this.#memoryBytes - (statistics.availableBytes ?? this.#memoryBytes));
  }

  /** From the end of a program until the host has half of its memory back. */
  async #reportS(bytes: number): Promise<number> {
    const [{ name }] = this.#host.guests;
    const resident = async () => (await this.#host.control.guest(name)).residentBytes ?? 0;
    const before = await resident();
    await this.#want(name, bytes);
    await this.#want(name, 0);
    const seconds = await this.#timed(() =>
      this.#host.until(async () => (await resident()) < before + bytes / 2, 'a guest reports nothing'),
    );
    return seconds * this.#scale.speed;
  }

  /**
   * What goes on in a burst: one guest takes memory back and uses it, while the others give page cache. All of them, the
   * daemon and what steers them have the same processors.
   */
  async #atOnce(base: number): Promise<Pick<Pace, 'reclaimBytes' | 'deflateBytes' | 'allocateBytes'>> {
    const { guests } = this.#host;
    const [first, ...others] = guests;
    const files = shareOf(this.#memoryBytes - base, 0.7);
    await Promise.all(guests.map(({ name }) => this.#want(name, 0, files)));
    // First what is free, so that the rest comes out of page cache.
    const free = shareOf(this.#memoryBytes - base - files, 0.9);
    const taken = shareOf(this.#memoryBytes, 0.3);
    await this.#host.reach(new Map([...this.#each(free), [first.name, free + taken]]));
    await this.#want(first.name, 0);
    const given = this.#timed(() =>
      this.#host.reach(new Map(others.map(({ name }) => [name, free + taken]))),
    );
    const back = this.#timed(() => this.#host.reach(new Map([[first.name, 0]])));
    const used = this.#timed(() => this.#want(first.name, taken));
    const [reclaimS, deflateS, allocateS] = await Promise.all([given, back, used]);
    await Promise.all(guests.map(({ name }) => this.#want(name, 0)));
    await this.#host.reach(this.#each(0));
    return {
      reclaimBytes: this.#rate(taken, reclaimS),
      deflateBytes: this.#rate(free + taken, deflateS),
      allocateBytes: this.#rate(taken, allocateS),
    };
  }

  /** From new statistics over a look at all guests until a balloon has moved. */
  async #orderS(): Promise<number> {
    const { control, guests } = this.#host;
    const [{ name }] = guests;
    const times: number[] = [];
    for (let round = 0; round < ORDERS; round++) {
      const targetBytes = (round % 2 === 0 ? 1 : 0) * 2 ** 20;
      times.push(
        await this.#timed(async () => {
          await control.statistics(name, { freshMs: 0 });
          await Promise.all([control.guests(), control.samples()]);
          await this.#host.reach(new Map([[name, targetBytes]]));
        }),
      );
    }
    await this.#host.reach(this.#each(0));
    return spreadOf(times).median * this.#scale.speed;
  }

  #want(name: string, programsBytes: number, filesBytes = 0): Promise<boolean> {
    const guest = this.#host.guests.find(one => one.name === name);
    return guest?.want({ programsBytes, filesBytes, readBytes: filesBytes }) ?? Promise.resolve(true);
  }

  #each(bytes: number): Map<string, number> {
    return new Map(this.#host.guests.map(({ name }) => [name, bytes]));
  }

  async #timed(work: () => Promise<unknown>): Promise<number> {
    const startedMs = monotonicMs();
    await work();
    return (monotonicMs() - startedMs) / 1000;
  }

  /** Of bytes that took so many seconds here, what a second of the trace has. */
  #rate(bytes: number, seconds: number): number {
    const { size, speed } = this.#scale;
    return (bytes * size) / (Math.max(1e-3, seconds) * speed);
  }
}
