/**
 * Every way of naming pages, side by side: the embedded guest inflates and deflates its balloon on the real daemon
 * over vhost-user, profile by profile and on memory of several states. A case is measured in a guest of its own, so
 * that none finds what another left. Two baselines belong to each: the floor, a bare loop that punches the same runs in
 * memory of the same state, and the naive device, which punches page by page.
 */
import { DRAFT_NAMES, PROFILE_NAMES, type ProfileName } from '../../balloon/profiles.ts';
import type { DiscardMode } from '../../control/contract.ts';
import type { DriverCounters } from '../../driver/counters.ts';
import type { DriverTuning } from '../../driver/options.ts';
import type { RingKind } from '../../embedded/options.ts';
import { CLAIM_BYTES_MAX } from '../../memory/pending-state.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError } from '../../sys/error.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BENCH_GUEST, BenchDaemon } from '../bench-daemon.ts';
import { GuestThread } from '../guest-thread.ts';
import type { ChartPlan } from '../html.ts';
import { drained, progressOf } from '../reach.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../report.ts';
import type { BackingName } from './backings.ts';
import { cycles, type InflateGuest } from './cycles.ts';
import type { InflateGuestData, Scenario } from './guest.ts';
import { memoryEffect } from './memory-effect.ts';
import type { InflateFigure, InflateSample } from './sample.ts';
import { measureShared } from './shared.ts';

export type { Scenario } from './guest.ts';

export interface InflateBenchOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly profiles: readonly ProfileName[];
  readonly scenarios: readonly Scenario[];
  readonly rings: readonly RingKind[];
  readonly runs: number;
  /** How the driver is set up beyond what its profile says, for example more page numbers in a buffer. */
  readonly tuning?: Partial<DriverTuning>;
  readonly discard?: DiscardMode;
  /** The pages of the host that guests know of, and give away as wholes first. */
  readonly hostPageBytes?: number;
  /** Whether the naive device is measured too. */
  readonly naive?: boolean;
  /** Whether each profile is measured with its guest kept for another daemon, too. */
  readonly kept?: boolean;
  /**
   * Inflations (each with its deflation) before the one that counts, 0 unless said. A case has threads of its own, and
   * in the first second of a thread much of the time goes into compiling its code.
   */
  readonly warm?: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

export const ALL_PROFILES: readonly ProfileName[] = PROFILE_NAMES;
/** Those that name pages in ways of their own: the drafts of 2026 inflate as the standard does, but for what they promise. */
export const MEASURED_PROFILES = ALL_PROFILES.filter(name => !DRAFT_NAMES.includes(name));

/** One way of doing it. */
export interface InflateCase {
  readonly name: string;
  readonly profile: ProfileName;
  readonly rings: RingKind;
  readonly discard: DiscardMode;
  readonly tuning: Partial<DriverTuning>;
  /** The guest is kept for another daemon. */
  readonly kept?: boolean;
  /** What the guest's memory is made of; a memfd where absent. */
  readonly backing?: BackingName;
}

export function inflateCases(options: InflateBenchOptions): InflateCase[] {
  const { profiles, rings, discard = 'auto', naive = true, kept = false, tuning = {} } = options;
  const plain = rings.flatMap(ring =>
    profiles.map(
      (profile): InflateCase => ({
        name: rings.length > 1 || ring !== 'split' ? `${profile} (${ring})` : profile,
        profile,
        rings: ring,
        discard,
        tuning,
      }),
    ),
  );
  const cases = plain.flatMap(one =>
    kept ? [one, { ...one, name: keptName(one.name), kept: true }] : [one],
  );
  if (!naive) return cases;
  return [...cases, { name: 'naive', profile: 'virtio', rings: 'split', discard: 'per-page', tuning: {} }];
}

const keptName = (name: string): string => `${name}, kept`;

/** @throws AerostatError AEROSTAT_BENCH where a profile is not measured on memory of such a state */
export function checkScenarios(profiles: readonly ProfileName[], scenarios: readonly Scenario[]): void {
  if (!profiles.includes('shared') || !scenarios.some(name => name.startsWith('aged'))) return;
  throw new AerostatError('AEROSTAT_BENCH', 'profile shared is measured on idle and on touched memory only');
}

export async function benchInflate(options: InflateBenchOptions): Promise<Measured> {
  const { scenarios, runs, signal, progress } = options;
  const cases = inflateCases(options);
  checkScenarios(options.profiles, scenarios);
  const samples = new Map<string, InflateSample[]>();
  const total = scenarios.length * cases.length * runs;
  let done = 0;
  for (const scenario of scenarios) {
    for (let run = 0; run < runs; run++) {
      // Every run begins with another case, so that none always follows the same one.
      for (let turn = 0; turn < cases.length; turn++) {
        const one = cases[(run + turn) % cases.length];
        signal.throwIfAborted();
        progress(done++, total, `${scenario} ${one.name}`);
        const key = keyOf(scenario, one);
        const sample =
          one.profile === 'shared'
            ? await measureShared({ ...options, touched: scenario === 'touched' })
            : await measureInflation(one, scenario, run, options);
        samples.set(key, [...(samples.get(key) ?? []), sample]);
      }
    }
  }
  progress(total, total, 'done');
  return { rows: rowsOf(samples, scenarios, cases), ratios: ratiosOf(samples, scenarios, cases) };
}

const keyOf = (scenario: Scenario, { name }: InflateCase): string => `${scenario}/${name}`;

type MeasuredInflation = Pick<
  InflateBenchOptions,
  'memoryBytes' | 'balloonBytes' | 'hostPageBytes' | 'warm' | 'signal'
>;

/** Boots a guest and a daemon, inflates, deflates, and takes the floor. */
export async function measureInflation(
  one: InflateCase,
  scenario: Scenario,
  seed: number,
  options: MeasuredInflation,
): Promise<InflateSample> {
  const { balloonBytes, warm = 0, signal } = options;
  const daemon = await BenchDaemon.start({
    profile: one.profile,
    discard: one.discard,
    // What the guest frees must still be the host's business when the balloon comes.
    without: one.profile === 'virtio' ? ['page-reporting'] : one.profile === 'hinting' ? ['hinting'] : [],
    timed: true,
    kept: one.kept === true,
  });
  const data = guestData(one, scenario, seed, daemon.socketPath, options);
  const guest: InflateGuest = new GuestThread(workerUrl('./guest', import.meta.url), data, signal);
  try {
    const { control } = daemon;
    const warmMs = await cycles(warm, guest, control, balloonBytes, signal);
    const ready = await guest.next('ready');
    const before = await control.guest(BENCH_GUEST);
    const decodedMs = await daemon.decodeMs();
    const effect = memoryEffect(one.backing ?? 'memfd', ready.memoryFd);
    await control.change(BENCH_GUEST, { targetBytes: balloonBytes, force: true });
    const inflated = await guest.next('settled');
    const full = await drained(() => control.guest(BENCH_GUEST), signal);
    const decodingMs = (await daemon.decodeMs()) - decodedMs;
    const seen = effect();
    guest.tell('drained');
    const { writeNs } = await guest.next('written');
    await control.change(BENCH_GUEST, { targetBytes: 0 });
    const deflated = await guest.next('settled');
    const [wayMs = Number.NaN] = await cycles(
      Number(one.backing !== undefined),
      ...([guest, control, CLAIM_BYTES_MAX, signal] as const),
    );
    const floor = await guest.next('floor');
    const { reachedMs, drainedMs } = progressOf(full);
    return {
      elapsedMs: drainedMs,
      firstMs: warmMs[0] ?? drainedMs,
      wayMs,
      guestMs: reachedMs,
      deflateMs: deflated.ms,
      ...guestTimes(inflated.counters, ready.counters),
      decodingMs,
      discardingMs: full.counters.discardMs - before.counters.discardMs,
      floorMs: floor.ms,
      runs: inflated.runs,
      punches: full.counters.punches - before.counters.punches,
      fragmentation: ready.fragmentation,
      effect: {
        ...seen,
        givenBytes: balloonBytes,
        incompleteBytes: full.incompleteBytes ?? Number.NaN,
        writeNsBefore: ready.writeNs,
        writeNsAfter: writeNs,
      },
    };
  } finally {
    await guest.end();
    await daemon.close();
  }
}

function guestData(
  { profile, rings, tuning, backing }: InflateCase,
  scenario: Scenario,
  seed: number,
  socketPath: string,
  { memoryBytes, balloonBytes, hostPageBytes, warm = 0 }: MeasuredInflation,
): InflateGuestData {
  return {
    ...{ socketPath, memoryBytes, balloonBytes, profile, rings, scenario, seed: seed + 1, tuning, warm },
    floor: true,
    ...defined({ backing, hostPageBytes }),
  };
}

const guestTimes = (after: Readonly<DriverCounters>, before: Readonly<DriverCounters>) => ({
  allocatingMs: after.allocatingMs - before.allocatingMs,
  encodingMs: after.encodingMs - before.encodingMs,
  waitingMs: after.waitingMs - before.waitingMs,
  kicks: after.kicks - before.kicks,
  buffers: after.inflateBuffers - before.inflateBuffers,
  listBytes: after.listBytes - before.listBytes,
});

function rowsOf(
  samples: ReadonlyMap<string, readonly InflateSample[]>,
  scenarios: readonly Scenario[],
  cases: readonly InflateCase[],
): BenchRow[] {
  return scenarios.flatMap(scenario =>
    cases.map((one): BenchRow => {
      const figure = spreadIn(samples.get(keyOf(scenario, one)) ?? []);
      return {
        case: one.name,
        scenario,
        peer: 'embedded',
        elapsedMs: figure('elapsedMs'),
        guestMs: figure('guestMs'),
        allocatingMs: figure('allocatingMs'),
        encodingMs: figure('encodingMs'),
        waitingMs: figure('waitingMs'),
        decodingMs: figure('decodingMs'),
        discardingMs: figure('discardingMs'),
        deflateMs: figure('deflateMs'),
        floorMs: figure('floorMs'),
        toFloor: toFloor(figure),
        kicks: figure('kicks').median,
        buffers: figure('buffers').median,
        listBytes: figure('listBytes').median,
        runs: figure('runs').median,
        punches: figure('punches').median,
        fragmentation: figure('fragmentation').median,
      };
    }),
  );
}

export const spreadIn =
  (samples: readonly InflateSample[]) =>
  (name: InflateFigure): Spread =>
    spreadOf(samples.map(sample => sample[name]));

export const toFloor = (figure: (name: InflateFigure) => Spread): number =>
  figure('elapsedMs').median / figure('floorMs').median;

function ratiosOf(
  samples: ReadonlyMap<string, readonly InflateSample[]>,
  scenarios: readonly Scenario[],
  cases: readonly InflateCase[],
): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const scenario of scenarios) {
    const of = (name: string) => {
      const found = samples.get(`${scenario}/${name}`);
      return found === undefined ? undefined : spreadIn(found);
    };
    for (const { name } of cases) {
      const figure = of(name);
      if (figure !== undefined) ratios[`${name}.${scenario}.toFloor`] = toFloor(figure);
      const kept = of(keptName(name));
      if (figure !== undefined && kept !== undefined) {
        ratios[`${name}.${scenario}.withStateToWithout`] =
          kept('elapsedMs').median / figure('elapsedMs').median;
      }
    }
    const [naive, virtio] = [of('naive'), of('virtio')];
    if (naive !== undefined && virtio !== undefined) {
      ratios[`naive.${scenario}.toVirtio`] = naive('elapsedMs').median / virtio('elapsedMs').median;
    }
  }
  return ratios;
}

/** What a report of this bench draws. */
export const INFLATE_CHARTS: readonly ChartPlan[] = [
  { title: 'Until the host has its memory', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
  {
    title: 'Where the guest’s time goes',
    figures: [
      ['allocatingMs', 'allocating'],
      ['encodingMs', 'encoding'],
      ['waitingMs', 'waiting for the device'],
    ],
    unit: 'ms',
    stacked: true,
  },
  { title: 'Bytes of page lists', figures: [['listBytes', 'bytes']], unit: 'bytes', logarithmic: true },
];
