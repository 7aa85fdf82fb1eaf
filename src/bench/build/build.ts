/**
 * Automatic reclaim while a guest builds: how much of the host's memory it keeps, and what that costs the build. The same
 * builds run on a guest that reports its free pages, on one whose allocator the host shares and takes what is free every five
 * seconds, and on both without any reclaim. Each case runs twice: at the pace of compilers, which use memory for
 * seconds, for the footprint; and as fast as it can, for the time that the builds take.
 */
import { fstatSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { ProfileName } from '../../balloon/profiles.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { defined } from '../../sys/defined.ts';
import { monotonicMs } from '../../sys/monotonic.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BenchDaemon } from '../bench-daemon.ts';
import { GuestThread } from '../guest-thread.ts';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import type { BuildGuestData, FromBuildGuest, ToBuildGuest } from './protocol.ts';

interface BuildCase {
  readonly profile: ProfileName;
  readonly lends: boolean;
  readonly without: readonly string[];
  /** Of a shared allocator; the device's own unless given. */
  readonly evictionMs?: number;
}

const NO_REPORTS = ['page-reporting'];
const CASES = {
  none: { profile: 'virtio', lends: false, without: NO_REPORTS },
  reporting: { profile: 'virtio', lends: false, without: [] },
  'shared, none': { profile: 'shared', lends: true, without: NO_REPORTS, evictionMs: 0 },
  shared: { profile: 'shared', lends: true, without: NO_REPORTS },
  // As soon as the driver reports.
  'shared, 2 s': { profile: 'shared', lends: true, without: NO_REPORTS, evictionMs: 2000 },
} as const satisfies Readonly<Record<string, BuildCase>>;
type CaseName = keyof typeof CASES;
const CASE_NAMES = Object.keys(CASES) as readonly CaseName[];

/** Without reclaim all allocators keep what they once had: one of them says it. */
const PACED: ReadonlySet<CaseName> = new Set(['none', 'reporting', 'shared', 'shared, 2 s']);
/** So many times as many compilers run where they run as fast as they can. */
const FAST_FACTOR = 8;
/** How often the footprint is looked at. */
const LOOK_MS = 50;
const MIB = 2 ** 20;

export interface BuildBenchOptions {
  readonly memoryBytes: number;
  readonly seed: number;
  readonly runs: number;
  readonly builds: number;
  readonly compilers: number;
  readonly pauseMs: number;
  /** What the paced builds use in a second. */
  readonly paceBytes: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

interface Footprint {
  /** Means over time, of all and while there are compilers; and the most. */
  readonly meanBytes: number;
  readonly busyBytes: number;
  readonly peakBytes: number;
}

interface BuildTime {
  readonly elapsedMs: number;
  /** The guest's thread had a processor. */
  readonly ranMs: number;
  readonly killed: number;
}

interface BuildSample {
  readonly footprint?: Footprint;
  readonly time: BuildTime;
}

export async function benchBuild(options: BuildBenchOptions): Promise<Measured> {
  const { runs, builds, compilers, pauseMs, paceBytes, signal, progress } = options;
  const samples = new Map<CaseName, BuildSample[]>(CASE_NAMES.map(name => [name, []]));
  const total = runs * CASE_NAMES.length;
  for (let run = 0; run < runs; run++) {
    for (let turn = 0; turn < CASE_NAMES.length; turn++) {
      // Whatever changes with time is not always the same case's.
      const name = CASE_NAMES[(turn + run) % CASE_NAMES.length];
      signal.throwIfAborted();
      progress(run * CASE_NAMES.length + turn, total, name);
      const fast = await build(name, options, { builds: 1, pauseMs: 0, compilers: compilers * FAST_FACTOR });
      const pagesPerSecond = paceBytes / PAGE_SIZE;
      const paced = PACED.has(name)
        ? await build(name, options, { builds, pauseMs, compilers, pagesPerSecond })
        : undefined;
      samples.get(name)?.push({ time: fast.time, ...defined({ footprint: paced?.footprint }) });
    }
  }
  progress(total, total, 'done');
  return { rows: rowsOf(samples, builds), ratios: ratiosOf(samples), notes: NOTES };
}

type Plan = Pick<BuildGuestData, 'builds' | 'pauseMs' | 'compilers' | 'pagesPerSecond'>;

/** One guest with a daemon of its own, from its start to its end. */
async function build(
  name: CaseName,
  { memoryBytes, seed, signal }: BuildBenchOptions,
  plan: Plan,
): Promise<{ readonly footprint: Footprint; readonly time: BuildTime }> {
  const { profile, lends, without, evictionMs }: BuildCase = CASES[name];
  const daemon = await BenchDaemon.start({
    profile,
    discard: 'auto',
    without,
    ...defined({ evictionMs }),
  });
  const guest = new BuildGuest(
    { socketPath: daemon.socketPath, memoryBytes, profile, lends, seed, ...plan },
    signal,
  );
  try {
    return await guest.run();
  } finally {
    await guest.end();
    await daemon.close();
  }
}

class BuildGuest extends GuestThread<ToBuildGuest, FromBuildGuest> {
  #busy = false;
  #done = false;

  constructor(data: BuildGuestData, signal: AbortSignal) {
    super(workerUrl('./guest', import.meta.url), data, signal);
  }

  async run(): Promise<{ readonly footprint: Footprint; readonly time: BuildTime }> {
    const { memoryFd } = await this.next('ready');
    this.tell({ ask: 'begin' });
    const watching = this.#watch(memoryFd);
    const time = { elapsedMs: 0, ranMs: 0, killed: 0 };
    try {
      for (;;) {
        const message = await this.next('building', 'built', 'done');
        this.#busy = message.kind === 'building';
        if (message.kind === 'done') break;
        if (message.kind === 'building') continue;
        time.elapsedMs += message.elapsedMs;
        time.ranMs += message.ranMs;
        time.killed += message.killed;
      }
    } finally {
      this.#done = true;
    }
    return { footprint: await watching, time };
  }

  /** The footprint, from now on until the guest is done: what the host has put behind the file. */
  async #watch(memoryFd: number): Promise<Footprint> {
    const all = new Mean();
    const busy = new Mean();
    let peakBytes = 0;
    for (let lastMs = monotonicMs(); !this.#done; ) {
      await delay(LOOK_MS);
      if (this.#done) break;
      const bytes = fstatSync(memoryFd).blocks * 512;
      const nowMs = monotonicMs();
      all.add(bytes, nowMs - lastMs);
      if (this.#busy) busy.add(bytes, nowMs - lastMs);
      peakBytes = Math.max(peakBytes, bytes);
      lastMs = nowMs;
    }
    return { meanBytes: all.value, busyBytes: busy.value, peakBytes };
  }
}

/** Over time. */
class Mean {
  #sum = 0;
  #ms = 0;

  add(value: number, ms: number): void {
    this.#sum += value * ms;
    this.#ms += ms;
  }

  get value(): number {
    return this.#sum / this.#ms;
  }
}

type Samples = ReadonlyMap<CaseName, readonly BuildSample[]>;

function rowsOf(samples: Samples, builds: number): BenchRow[] {
  return [...samples].map(([name, all]) => {
    const footprints = all.flatMap(({ footprint }) => footprint ?? []);
    const mib = (of: keyof Footprint) =>
      footprints.length === 0 ? null : spreadOf(footprints.map(one => one[of] / MIB));
    return {
      case: name,
      scenario: builds === 1 ? '1 build' : `${builds} builds`,
      peer: 'embedded',
      elapsedMs: spreadOf(all.map(({ time }) => time.elapsedMs)),
      guestMs: spreadOf(all.map(({ time }) => time.ranMs)),
      meanMib: mib('meanBytes'),
      busyMib: mib('busyBytes'),
      peakMib: mib('peakBytes'),
      killed: all.reduce((sum, { time }) => sum + time.killed, 0),
    };
  });
}

/** Of pairs in one run, medians. */
function ratiosOf(samples: Samples): Record<string, number> {
  const ratio = (one: CaseName, other: CaseName, of: (sample: BuildSample) => number): number => {
    const [ours, theirs] = [one, other].map(name => (samples.get(name) ?? []).map(of));
    return spreadOf(ours.map((value, run) => value / theirs[run])).median;
  };
  const mean = ({ footprint }: BuildSample) => footprint?.meanBytes ?? Number.NaN;
  const busy = ({ footprint }: BuildSample) => footprint?.busyBytes ?? Number.NaN;
  const elapsed = ({ time }: BuildSample) => time.elapsedMs;
  const ran = ({ time }: BuildSample) => time.ranMs;
  return {
    'shared.build.footprintToReporting': ratio('shared', 'reporting', mean),
    'shared.build.busyFootprintToReporting': ratio('shared', 'reporting', busy),
    'shared2s.build.footprintToReporting': ratio('shared, 2 s', 'reporting', mean),
    'shared2s.build.busyFootprintToReporting': ratio('shared, 2 s', 'reporting', busy),
    'shared.build.footprintToNone': ratio('shared', 'none', mean),
    'reporting.build.footprintToNone': ratio('reporting', 'none', mean),
    'shared.build.slowdown': ratio('shared', 'shared, none', elapsed),
    'shared2s.build.slowdown': ratio('shared, 2 s', 'shared, none', elapsed),
    'reporting.build.slowdown': ratio('reporting', 'none', elapsed),
    'shared.build.guestTime': ratio('shared', 'shared, none', ran),
    'reporting.build.guestTime': ratio('reporting', 'none', ran),
    'shared.build.elapsedToReporting': ratio('shared', 'reporting', elapsed),
  };
}

const NOTES = [
  'meanMib, busyMib, peakMib: what the host has behind the guest’s memory, over all of the paced run, while there are compilers, and at most',
  'elapsed, guest: of builds that run as fast as they can: their time, and for how much of it the guest’s thread had a processor',
  'slowdown, guestTime: to the same allocator without any reclaim; elapsedToReporting has the difference of the allocators in it',
];
