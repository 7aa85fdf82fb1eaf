/**
 * The same real Linux guest inflated on the same device in each way of discarding, in turn: on a device that
 * only acknowledges, after the acknowledgement, before it, and one punch a page. Tells what discarding costs
 * the guest, and when the host has its memory.
 */
import type { DeviceGuestStatus, DiscardMode } from '../control/contract.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { freeMemory, useMemory } from '../peers/linux/workloads.ts';
import { UmlGuest } from '../peers/uml/guest.ts';
import { BENCH_GUEST, BenchDaemon } from './bench-daemon.ts';
import { barePunchMs } from './floor.ts';
import { progressOf, reachTarget } from './reach.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from './report.ts';

export interface LinuxBenchOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  /** Also on memory that the guest wrote to and freed. */
  readonly touched: boolean;
  /** How often each mode has its turn. */
  readonly rounds: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

const MIB = 2 ** 20;

/** In the order in which they take turns. */
const MODES: readonly DiscardMode[] = ['none', 'after-ack', 'before-ack', 'per-page'];
const MODE_TITLES: Readonly<Record<string, string>> = {
  none: 'ack-only',
  'after-ack': 'after-ack',
  'before-ack': 'before-ack',
  'per-page': 'naive',
};

type Scenario = 'idle' | 'touched';

/** One inflation. */
interface Sample {
  readonly elapsedMs: number;
  /** From the guest's completion until the host had everything. */
  readonly drainMs: number;
  readonly deflateMs: number;
  readonly cpuUserMs: number;
  readonly cpuSystemMs: number;
  readonly roundTrips: number;
  readonly runs: number;
  readonly punches: number;
}

export async function benchLinux(options: LinuxBenchOptions): Promise<Measured> {
  const daemon = await BenchDaemon.start({
    profile: 'virtio',
    discard: 'none',
    // Reporting would give freed memory back before the balloon does.
    without: ['page-reporting', 'free-page-hint'],
  });
  let guest: UmlGuest | undefined;
  try {
    guest = await UmlGuest.boot({
      memoryBytes: options.memoryBytes,
      sockets: [daemon.socketPath],
      signal: options.signal,
    });
    return await new LinuxBench(daemon, guest, options).run();
  } finally {
    await guest?.shutdown();
    await daemon.close();
  }
}

class LinuxBench {
  readonly #daemon: BenchDaemon;
  readonly #guest: UmlGuest;
  readonly #options: LinuxBenchOptions;
  readonly #samples = new Map<string, Sample[]>();
  readonly #floorsMs: number[] = [];

  constructor(daemon: BenchDaemon, guest: UmlGuest, options: LinuxBenchOptions) {
    this.#daemon = daemon;
    this.#guest = guest;
    this.#options = options;
  }

  async run(): Promise<Measured> {
    const { rounds, touched, signal, progress, balloonBytes } = this.#options;
    const scenarios: readonly Scenario[] = touched ? ['idle', 'touched'] : ['idle'];
    const total = scenarios.length * rounds * MODES.length;
    let done = 0;
    for (const scenario of scenarios) {
      for (let round = 0; round < rounds; round++) {
        // Every round begins with another mode, so that none always follows the same one.
        for (let turn = 0; turn < MODES.length; turn++) {
          const mode = MODES[(round + turn) % MODES.length];
          signal.throwIfAborted();
          progress(done++, total, `${scenario} ${MODE_TITLES[mode]}`);
          const key = keyOf(scenario, mode);
          this.#samples.set(key, [...(this.#samples.get(key) ?? []), await this.#measure(scenario, mode)]);
        }
        if (scenario === 'touched') this.#floorsMs.push(barePunchMs(balloonBytes));
      }
    }
    progress(total, total, 'done');
    return { rows: this.#rows(scenarios), ratios: this.#ratios(touched) };
  }

  async #measure(scenario: Scenario, mode: DiscardMode): Promise<Sample> {
    const { balloonBytes } = this.#options;
    const { control } = this.#daemon;
    if (scenario === 'touched') {
      await useMemory(this.#guest, Math.floor(balloonBytes / MIB) * MIB);
      await freeMemory(this.#guest);
    }
    await control.change(BENCH_GUEST, { discard: mode });
    const before = await control.guest(BENCH_GUEST);
    const cpuBefore = process.cpuUsage();
    const inflated = await this.#reach(balloonBytes);
    const cpu = process.cpuUsage(cpuBefore);
    const { reachedMs, drainedMs } = progressOf(inflated);
    const deflated = await this.#reach(0);
    return {
      elapsedMs: reachedMs,
      drainMs: drainedMs - reachedMs,
      deflateMs: progressOf(deflated).reachedMs,
      cpuUserMs: cpu.user / 1e3,
      cpuSystemMs: cpu.system / 1e3,
      roundTrips: inflated.counters.inflateBuffers - before.counters.inflateBuffers,
      runs: inflated.counters.runs - before.counters.runs,
      punches: inflated.counters.punches - before.counters.punches,
    };
  }

  #reach(targetBytes: number): Promise<DeviceGuestStatus> {
    return reachTarget(this.#daemon.control, targetBytes, this.#options.signal);
  }

  #of(scenario: Scenario, mode: DiscardMode, figure: keyof Sample): Spread {
    return spreadOf((this.#samples.get(keyOf(scenario, mode)) ?? []).map(sample => sample[figure]));
  }

  #rows(scenarios: readonly Scenario[]): BenchRow[] {
    const rows = scenarios.flatMap(scenario =>
      MODES.map((mode): BenchRow => {
        const figure = (name: keyof Sample) => this.#of(scenario, mode, name);
        return {
          case: MODE_TITLES[mode],
          scenario,
          peer: 'linux-uml',
          elapsedMs: figure('elapsedMs'),
          drainMs: figure('drainMs'),
          deflateMs: figure('deflateMs'),
          cpuUserMs: figure('cpuUserMs'),
          cpuSystemMs: figure('cpuSystemMs'),
          roundTrips: figure('roundTrips').median,
          runs: figure('runs').median,
          punches: figure('punches').median,
        };
      }),
    );
    if (this.#floorsMs.length === 0) return rows;
    const floor = spreadOf(this.#floorsMs);
    return [
      ...rows,
      { case: 'bare punch', scenario: 'touched', peer: 'kernel', elapsedMs: floor, punches: 1 },
    ];
  }

  #ratios(touched: boolean): Record<string, number> {
    const median = (scenario: Scenario, mode: DiscardMode, figure: keyof Sample = 'elapsedMs') =>
      this.#of(scenario, mode, figure).median;
    const pages = this.#options.balloonBytes / PAGE_SIZE;
    const ratios: Record<string, number> = {
      afterAckToAckOnlyIdle: median('idle', 'after-ack') / median('idle', 'none'),
      beforeAckToAckOnlyIdle: median('idle', 'before-ack') / median('idle', 'none'),
      naiveToAckOnlyIdle: median('idle', 'per-page') / median('idle', 'none'),
      punchesToPages: median('idle', 'after-ack', 'punches') / pages,
    };
    if (!touched) return ratios;
    return {
      ...ratios,
      afterAckToAckOnlyTouched: median('touched', 'after-ack') / median('touched', 'none'),
      beforeAckToAckOnlyTouched: median('touched', 'before-ack') / median('touched', 'none'),
      naiveToAckOnlyTouched: median('touched', 'per-page') / median('touched', 'none'),
      drainToPunchTouched: median('touched', 'after-ack', 'drainMs') / spreadOf(this.#floorsMs).median,
    };
  }
}

const keyOf = (scenario: Scenario, mode: DiscardMode): string => `${scenario}/${mode}`;
