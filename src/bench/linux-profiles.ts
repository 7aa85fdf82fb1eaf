/**
 * The experiment with which the ABIs of 2016 to 2019 were argued for, on a real Linux guest: an idle guest gives most of its
 * memory away, and one that used that memory and freed it. Every generation has its turn with the driver of linux/, which
 * differs in nothing but the ABI; the kernel's own driver is beside them, and so is the embedded guest, which is asked
 * whether it tells the truth. Each turn has a guest and a daemon of its own, so that none finds what another left.
 */
import { DRAFT_NAMES, PROFILE_NAMES, type ProfileName } from '../balloon/profiles.ts';
import type { LinuxGuest } from '../peers/linux/guest.ts';
import { freeMemory, useMemory } from '../peers/linux/workloads.ts';
import { driverModule, driverModuleComplaint } from '../peers/uml/driver-module.ts';
import { UmlGuest } from '../peers/uml/guest.ts';
import { findUmlKernel, type UmlKernel } from '../peers/uml/kernel.ts';
import { AerostatError } from '../sys/error.ts';
import { BENCH_GUEST, BenchDaemon } from './bench-daemon.ts';
import { barePunchMs } from './floor.ts';
import type { ChartPlan } from './html.ts';
import { measureInflation } from './inflate/inflate.ts';
import { progressOf, reachTarget } from './reach.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from './report.ts';

export interface LinuxProfilesOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly profiles: readonly ProfileName[];
  /** Also on memory that the guest wrote to and freed. */
  readonly touched: boolean;
  /** Whether the embedded guest is measured too. */
  readonly embedded: boolean;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

type Scenario = 'idle' | 'touched';

/** Whose driver it is: ours of linux/, the kernel's own, or the embedded guest's. */
type Driver = 'linux' | 'kernel' | 'embedded';

interface Case {
  readonly name: string;
  readonly profile: ProfileName;
  readonly driver: Driver;
}

/** One inflation and the deflation after it. */
interface Sample {
  /** From the wish until the host had all of the memory. */
  readonly elapsedMs: number;
  /** Until the guest was done. */
  readonly guestMs: number;
  /** What the kernel's own driver does not tell, it lacks. */
  readonly allocatingMs?: number;
  readonly listingMs?: number;
  readonly waitingMs?: number;
  /** Reading the target and telling the size; the embedded guest does not count it. */
  readonly configuringMs?: number;
  readonly decodingMs: number;
  readonly discardingMs: number;
  readonly deflateMs: number;
  readonly kicks: number;
  readonly buffers: number;
  readonly listBytes: number;
  readonly runs: number;
  readonly punches: number;
}

/** How a profile's case is called with the kernel's own driver. */
const KERNEL_CASE = "kernel's driver";
const EMBEDDED = ' (embedded)';
const MIB = 2 ** 20;

/**
 * Milliseconds in which 7 GiB of an idle guest's 8 GiB were inflated, as each proposal's own text claims; on machines of 2016
 * to 2018, with QEMU and KVM. sg: v18, after 597 (v15) and 491 (v13).
 */
const CLAIMED_MS: Readonly<Partial<Record<ProfileName, number>>> = {
  virtio: 4126,
  'page-bitmap': 590,
  'page-chunks': 590,
  sg: 440,
};

/** What the module has: the drafts of 2026 are the standard to it. */
export const LINUX_PROFILES: readonly ProfileName[] = PROFILE_NAMES.filter(
  name => !DRAFT_NAMES.includes(name),
);

export async function benchLinuxProfiles(options: LinuxProfilesOptions): Promise<Measured> {
  const kernel = findUmlKernel();
  const complaint = driverModuleComplaint(kernel);
  if (complaint !== undefined) throw complaint;
  const ours: UmlKernel = { ...kernel, balloonModule: await driverModule(kernel) };
  return new LinuxProfilesBench(options, { linux: ours, kernel }).run();
}

class LinuxProfilesBench {
  readonly #options: LinuxProfilesOptions;
  readonly #kernels: Readonly<Record<Exclude<Driver, 'embedded'>, UmlKernel>>;
  readonly #cases: readonly Case[];
  readonly #scenarios: readonly Scenario[];
  readonly #samples = new Map<string, Sample[]>();
  readonly #floorsMs: number[] = [];

  constructor(
    options: LinuxProfilesOptions,
    kernels: Readonly<Record<Exclude<Driver, 'embedded'>, UmlKernel>>,
  ) {
    this.#options = options;
    this.#kernels = kernels;
    this.#scenarios = options.touched ? ['idle', 'touched'] : ['idle'];
    const { profiles, embedded } = options;
    this.#cases = [
      { name: KERNEL_CASE, profile: 'virtio', driver: 'kernel' },
      ...profiles.map((profile): Case => ({ name: profile, profile, driver: 'linux' })),
      ...(embedded ? profiles : []).map(
        (profile): Case => ({ name: `${profile}${EMBEDDED}`, profile, driver: 'embedded' }),
      ),
    ];
  }

  async run(): Promise<Measured> {
    const { runs, touched, balloonBytes, signal, progress } = this.#options;
    const total = runs * this.#cases.length;
    let done = 0;
    for (let run = 0; run < runs; run++) {
      // Every run begins with another case, so that none always follows the same one.
      for (let turn = 0; turn < this.#cases.length; turn++) {
        const one = this.#cases[(run + turn) % this.#cases.length];
        signal.throwIfAborted();
        progress(done++, total, one.name);
        if (one.driver === 'embedded') await this.#measureEmbedded(one, run);
        else await this.#measureLinux(one, one.driver);
      }
      if (touched) this.#floorsMs.push(barePunchMs(balloonBytes));
    }
    progress(total, total, 'done');
    return { rows: this.#rows(), ratios: this.#ratios(), notes: NOTES };
  }

  async #measureEmbedded({ name, profile }: Case, run: number): Promise<void> {
    // As Linux does it, one list after the other.
    const how = { name, profile, rings: 'split', discard: 'auto', tuning: { ahead: false } } as const;
    for (const scenario of this.#scenarios) {
      const { encodingMs, effect: _, ...sample } = await measureInflation(how, scenario, run, this.#options);
      this.#keep(scenario, name, { ...sample, listingMs: encodingMs });
    }
  }

  async #measureLinux({ name, profile }: Case, driver: Exclude<Driver, 'embedded'>): Promise<void> {
    const { memoryBytes, balloonBytes, signal } = this.#options;
    const daemon = await BenchDaemon.start({
      profile,
      discard: 'auto',
      // Reporting would give freed memory back before the balloon does.
      without: profile === 'virtio' ? ['page-reporting'] : profile === 'hinting' ? ['hinting'] : [],
      timed: true,
    });
    let guest: UmlGuest | undefined;
    try {
      guest = await UmlGuest.boot({
        memoryBytes,
        sockets: [daemon.socketPath],
        moduleParameters: driver === 'linux' ? [`generation=${profile}`] : [],
        kernel: this.#kernels[driver],
        signal,
      });
      for (const scenario of this.#scenarios) {
        if (scenario === 'touched') {
          await useMemory(guest, Math.floor(balloonBytes / MIB) * MIB);
          await freeMemory(guest);
        }
        this.#keep(scenario, name, await this.#inflate(daemon, guest, driver));
      }
    } finally {
      await guest?.shutdown();
      await daemon.close();
    }
  }

  async #inflate(daemon: BenchDaemon, guest: LinuxGuest, driver: Driver): Promise<Sample> {
    const { balloonBytes, signal } = this.#options;
    const { control } = daemon;
    const costsBefore = driver === 'linux' ? await costs(guest) : undefined;
    const decodedMs = await daemon.decodeMs();
    const { counters: before } = await control.guest(BENCH_GUEST);
    const inflated = await reachTarget(control, balloonBytes, signal);
    const decodingMs = (await daemon.decodeMs()) - decodedMs;
    const { counters } = inflated;
    if (inflated.balloonedBytes !== balloonBytes) {
      throw new AerostatError('AEROSTAT_BENCH', 'the balloon holds something else than was asked for');
    }
    const spent = costsBefore && stepsBetween(costsBefore, await costs(guest));
    const deflated = await reachTarget(control, 0, signal);
    const { reachedMs, drainedMs } = progressOf(inflated);
    return {
      elapsedMs: drainedMs,
      guestMs: reachedMs,
      ...spent,
      decodingMs,
      discardingMs: counters.discardMs - before.discardMs,
      deflateMs: progressOf(deflated).reachedMs,
      kicks: counters.kicks - before.kicks,
      buffers: counters.inflateBuffers - before.inflateBuffers,
      listBytes: counters.listBytes - before.listBytes,
      runs: counters.runs - before.runs,
      punches: counters.punches - before.punches,
    };
  }

  #keep(scenario: Scenario, name: string, sample: Sample): void {
    const key = `${scenario}/${name}`;
    this.#samples.set(key, [...(this.#samples.get(key) ?? []), sample]);
  }

  #of(scenario: Scenario, name: string, figure: keyof Sample): Spread | undefined {
    const values = this.#samples.get(`${scenario}/${name}`)?.map(sample => sample[figure]) ?? [];
    const known = values.filter(value => value !== undefined);
    return known.length === 0 ? undefined : spreadOf(known);
  }

  #rows(): BenchRow[] {
    const rows = this.#scenarios.flatMap(scenario => this.#cases.map(one => this.#row(scenario, one)));
    if (this.#floorsMs.length === 0) return rows;
    const floor = spreadOf(this.#floorsMs);
    return [
      ...rows,
      { case: 'bare punch', scenario: 'touched', peer: 'kernel', elapsedMs: floor, punches: 1 },
    ];
  }

  #row(scenario: Scenario, { name, profile, driver }: Case): BenchRow {
    const spread = (figure: keyof Sample) => this.#of(scenario, name, figure) ?? null;
    const count = (figure: keyof Sample) => this.#of(scenario, name, figure)?.median ?? null;
    const claimed = scenario === 'idle' && driver === 'linux' ? CLAIMED_MS[profile] : undefined;
    return {
      case: name,
      scenario,
      peer: driver === 'embedded' ? 'embedded' : 'linux-uml',
      elapsedMs: this.#of(scenario, name, 'elapsedMs') ?? spreadOf([]),
      claimedMs: claimed ?? null,
      guestMs: spread('guestMs'),
      allocatingMs: spread('allocatingMs'),
      listingMs: spread('listingMs'),
      waitingMs: spread('waitingMs'),
      configuringMs: spread('configuringMs'),
      decodingMs: spread('decodingMs'),
      discardingMs: spread('discardingMs'),
      deflateMs: spread('deflateMs'),
      kicks: count('kicks'),
      buffers: count('buffers'),
      listBytes: count('listBytes'),
      runs: count('runs'),
      punches: count('punches'),
    };
  }

  /** Those of cases that were measured. */
  #ratios(): Record<string, number> {
    const ratios: Record<string, number> = {};
    const add = (name: string, above: Spread | undefined, below: Spread | undefined) => {
      if (above !== undefined && below !== undefined) ratios[name] = above.median / below.median;
    };
    for (const scenario of this.#scenarios) {
      const dot = scenario === 'idle' ? '.' : '.touched.';
      const elapsed = (name: string) => this.#of(scenario, name, 'elapsedMs');
      const chunks = elapsed('page-chunks');
      add(`kernel${dot}toPageChunks`, elapsed(KERNEL_CASE), chunks);
      for (const { name, driver } of this.#cases) {
        if (driver !== 'linux') continue;
        // The driver of linux/ takes blocks by order for bitmaps too, which the embedded guest does not.
        const title = name === 'page-bitmap' ? 'pageBitmapByOrder' : name;
        if (name !== 'page-chunks') add(`${title}${dot}toPageChunks`, elapsed(name), chunks);
        add(`embeddedToLinux${dot}${name}`, elapsed(`${name}${EMBEDDED}`), elapsed(name));
      }
      add(`embeddedToLinux${dot}kernel`, elapsed(`virtio${EMBEDDED}`), elapsed(KERNEL_CASE));
    }
    const idle = (name: string, figure: keyof Sample) => this.#of('idle', name, figure);
    const chunks = idle('page-chunks', 'elapsedMs');
    add('page-chunks.toAllocation', chunks, idle('page-chunks', 'allocatingMs'));
    // Of the same memory, page by page, as a list of page numbers has it.
    add('page-chunks.toAllocationByPage', chunks, idle('virtio', 'allocatingMs'));
    return ratios;
  }
}

const NOTES: readonly string[] = [
  'claimedMs: 7 GiB of an idle guest of 8 GiB, as the proposals say it of their machines of 2016 to 2018.',
];

/** What the driver of linux/ counts, in the order of its parameter. */
interface Costs {
  readonly allocatingUs: number;
  readonly listingUs: number;
  readonly waitingUs: number;
  readonly configuringUs: number;
}

async function costs(guest: LinuxGuest): Promise<Costs> {
  const text = await guest.check('cat /sys/module/aerostat_balloon/parameters/cost');
  const [allocatingUs, listingUs, waitingUs, configuringUs] = text.trim().split(',').map(Number);
  return { allocatingUs, listingUs, waitingUs, configuringUs };
}

const stepsBetween = (before: Costs, after: Costs) => ({
  allocatingMs: (after.allocatingUs - before.allocatingUs) / 1e3,
  listingMs: (after.listingUs - before.listingUs) / 1e3,
  waitingMs: (after.waitingUs - before.waitingUs) / 1e3,
  configuringMs: (after.configuringUs - before.configuringUs) / 1e3,
});

/** What a report of this bench draws. */
export const LINUX_PROFILES_CHARTS: readonly ChartPlan[] = [
  { title: 'Linux until the host has its memory', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
  {
    title: 'What was claimed and what is measured',
    figures: [
      ['claimedMs', 'claimed'],
      ['elapsedMs', 'measured'],
    ],
    unit: 'ms',
    scenarios: ['idle'],
    logarithmic: true,
  },
  {
    title: 'Where Linux’s time goes',
    figures: [
      ['allocatingMs', 'allocating'],
      ['listingMs', 'listing'],
      ['waitingMs', 'waiting for the device'],
      ['configuringMs', 'reading and telling the size'],
    ],
    unit: 'ms',
    stacked: true,
  },
  { title: 'Bytes of Linux’s lists', figures: [['listBytes', 'bytes']], unit: 'bytes', logarithmic: true },
];
