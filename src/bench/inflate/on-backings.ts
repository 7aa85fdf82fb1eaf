/**
 * The same inflation on memory of several kinds, small and huge pages: how fast it comes back to the host, what stays behind
 * because its huge page is not complete, what huge pages were split for it, and how fast the guest is afterwards. The floor
 * is a bare punch of the same pages, as for every ABI (inflate.ts).
 */
import { type ProfileName, profile } from '../../balloon/profiles.ts';
import { AerostatError } from '../../sys/error.ts';
import type { ChartPlan } from '../html.ts';
import { type BenchRow, type Measured, round, type Spread, spreadOf } from '../report.ts';
import { type BackingName, backingFault } from './backings.ts';
import { raisePool } from './huge-pool.ts';
import { checkScenarios, type InflateBenchOptions, measureInflation, spreadIn, toFloor } from './inflate.ts';
import type { InflateSample } from './sample.ts';
import { measureShared } from './shared.ts';
import { wakeupsMs } from './wakeups.ts';

/** Page numbers one by one, and the list of runs that is nearest to the floor. */
export const BACKING_PROFILES: readonly ProfileName[] = ['virtio', 'page-chunks'];

export interface BackingBenchOptions extends Omit<InflateBenchOptions, 'rings' | 'naive' | 'kept'> {
  readonly backings: readonly BackingName[];
  /** Whether the host's pool of huge pages is raised for as long as it takes. */
  readonly reserve: boolean;
}

interface BackingCase {
  readonly backing: BackingName;
  readonly profile: ProfileName;
  readonly scenario: InflateBenchOptions['scenarios'][number];
}

type Samples = ReadonlyMap<BackingCase, readonly InflateSample[]>;

export async function benchOnBackings(options: BackingBenchOptions): Promise<Measured> {
  const { backings, reserve, memoryBytes } = options;
  checkScenarios(options.profiles, options.scenarios);
  const putBack = reserve && backings.includes('hugetlb-2m') ? await raisePool(memoryBytes) : undefined;
  try {
    const faults = new Map(backings.map(backing => [backing, backingFault(backing, memoryBytes)]));
    const missing = backings
      .filter(backing => faults.get(backing) !== undefined)
      .map(backing => `${backing} was not measured: ${faults.get(backing)}.`);
    const had = backings.filter(backing => faults.get(backing) === undefined);
    if (had.length === 0) throw new AerostatError('AEROSTAT_BENCH', missing.join(' '));
    const samples = await measureAll(had, options);
    const wakeups = spreadOf(await wakeupsMs());
    return {
      rows: [...[...samples].map(([one, taken]) => rowOf(one, taken)), wakeupsRow(wakeups)],
      ratios: ratiosOf(samples, wakeups.median),
      notes: [...missing, ...notesOf(samples)],
    };
  } finally {
    await putBack?.();
  }
}

async function measureAll(
  backings: readonly BackingName[],
  { profiles, scenarios, runs, signal, progress, ...options }: BackingBenchOptions,
): Promise<Samples> {
  const cases = scenarios.flatMap(scenario =>
    backings.flatMap(backing => profiles.map((name): BackingCase => ({ backing, profile: name, scenario }))),
  );
  const samples = new Map<BackingCase, InflateSample[]>(cases.map(one => [one, []]));
  const total = runs * cases.length;
  for (let done = 0; done < total; done++) {
    const run = Math.floor(done / cases.length);
    // Every run begins with another case, so that none always follows the same one.
    const one = cases[(run + done) % cases.length];
    signal.throwIfAborted();
    progress(done, total, `${one.scenario} ${nameOf(one)}`);
    samples.get(one)?.push(await sample(one, run, { ...options, signal }));
  }
  progress(total, total, 'done');
  return samples;
}

function sample(
  { backing, profile: name, scenario }: BackingCase,
  run: number,
  options: Pick<
    BackingBenchOptions,
    'memoryBytes' | 'balloonBytes' | 'hostPageBytes' | 'warm' | 'signal' | 'tuning' | 'discard'
  >,
): Promise<InflateSample> {
  if (name === 'shared') return measureShared({ ...options, backing, touched: scenario === 'touched' });
  const { discard = 'auto', tuning = {} } = options;
  return measureInflation(
    { name, profile: name, rings: 'split', discard, tuning, backing },
    scenario,
    run,
    options,
  );
}

const nameOf = ({ backing, profile: name }: BackingCase): string => `${name} on ${backing}`;

/** Null where it was not measured. */
const spreadOr = (samples: readonly number[]): Spread | null =>
  samples.some(Number.isNaN) ? null : spreadOf(samples);

function rowOf(one: BackingCase, samples: readonly InflateSample[]): BenchRow {
  const figure = spreadIn(samples);
  const { effectOf, isTouched } = effects(one, samples);
  const pool = one.backing === 'hugetlb-2m';
  const thp = one.backing === 'thp';
  return {
    case: nameOf(one),
    scenario: one.scenario,
    peer: 'embedded',
    elapsedMs: figure('elapsedMs'),
    firstMs: figure('firstMs'),
    wayMs: figure('wayMs'),
    guestMs: figure('guestMs'),
    decodingMs: figure('decodingMs'),
    discardingMs: figure('discardingMs'),
    deflateMs: figure('deflateMs'),
    floorMs: figure('floorMs'),
    toFloor: toFloor(figure),
    reclaimGiBs: isTouched ? spreadOf(samples.map(reclaimGiBs)) : null,
    reclaimedBytes: effectOf('reclaimedBytes').median,
    leftBytes: isTouched
      ? spreadOf(samples.map(({ effect }) => Math.max(0, effect.givenBytes - effect.reclaimedBytes))).median
      : null,
    incompleteBytes: pool ? effectOf('incompleteBytes').median : null,
    hugeBytesBefore: thp ? effectOf('hugeBytesBefore').median : null,
    hugeBytesAfter: thp ? effectOf('hugeBytesAfter').median : null,
    splitPages: thp ? effectOf('splitPages').median : null,
    writeNsBefore: spreadOr(samples.map(({ effect }) => effect.writeNsBefore)),
    writeNsAfter: spreadOr(samples.map(({ effect }) => effect.writeNsAfter)),
    kicks: figure('kicks').median,
    buffers: figure('buffers').median,
    punches: figure('punches').median,
  };
}

const wakeupsRow = (elapsedMs: Spread): BenchRow => ({
  case: 'five threads wake each other',
  scenario: 'nothing else',
  peer: 'none',
  elapsedMs,
});

function effects({ scenario }: BackingCase, samples: readonly InflateSample[]) {
  return {
    effectOf: (name: keyof InflateSample['effect']): Spread =>
      spreadOf(samples.map(({ effect }) => effect[name])),
    isTouched: scenario !== 'idle',
  };
}

const reclaimGiBs = ({ effect, elapsedMs }: InflateSample): number =>
  effect.reclaimedBytes / 2 ** 30 / (elapsedMs / 1000);

/** The names that ratios have are those of the pages, whatever their size. */
const ratioName = (backing: BackingName): string => (backing === 'hugetlb-2m' ? 'hugetlb' : backing);

/** `wakeupsMs`: five threads that wake each other, which is the least that a wish takes beside a bare punch. */
function ratiosOf(samples: Samples, wakeupsMs: number): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const [one, taken] of samples) {
    const { backing, profile: name, scenario } = one;
    const figure = spreadIn(taken);
    const key = `${ratioName(backing)}.${name}.${scenario}`;
    if (scenario === 'idle') {
      ratios[`${key}.hostMs`] = round(figure('decodingMs').median + figure('discardingMs').median);
      continue;
    }
    ratios[`${key}.toFloor`] = toFloor(figure);
    ratios[`${key}.pagesToFloor`] = pagesToFloor(figure);
    ratios[`${key}.first.toFloor`] = figure('firstMs').median / figure('floorMs').median;
    const { effectOf } = effects(one, taken);
    ratios[`${key}.guestSpeed`] = effectOf('writeNsBefore').median / effectOf('writeNsAfter').median;
    // The first that names runs stands for what the backing can do.
    if (!namesRuns(name)) continue;
    const short = `${ratioName(backing)}.${scenario}`;
    ratios[`${short}.toFloor`] ??= toFloor(figure);
    ratios[`${short}.pagesToFloor`] ??= pagesToFloor(figure);
    ratios[`${short}.wakeups.toFloor`] ??= wakeupsMs / figure('floorMs').median;
  }
  return ratios;
}

/** What is left of {@link toFloor} without the way to the guest and back, which a bare punch has not to go. */
const pagesToFloor = (figure: ReturnType<typeof spreadIn>): number =>
  (figure('elapsedMs').median - figure('wayMs').median) / figure('floorMs').median;

const namesRuns = (name: ProfileName): boolean =>
  name !== 'shared' && profile(name).format.growsWith === 'runs';

function notesOf(samples: Samples): string[] {
  const notes = [
    'reclaimed: what the host holds less than before, by the blocks of the file, of hugetlb by what of the pool is in use; left: what the balloon holds and the host does as well.',
    'first: the first inflation of new threads, which compile their code; elapsed: the one after those of --warm; way: a balloon of 16 MiB, that is the way to the guest and back; pagesToFloor: (elapsed - way) / floor; wakeups.toFloor: five threads that wake each other, with nothing else to do, to the floor.',
    'write: what the guest takes to write a word to a page, of as many pages before and after; guestSpeed: before / after.',
  ];
  for (const [one, taken] of samples) {
    const isHuge = taken.every(({ effect }) => effect.hugeBytesBefore > 0);
    if (one.backing !== 'thp' || one.scenario === 'idle' || isHuge) continue;
    notes.push(
      `${nameOf(one)}: the host gave no transparent huge pages; these are the figures of small ones.`,
    );
  }
  return notes;
}

export const BACKING_CHARTS: readonly ChartPlan[] = [
  { title: 'Until the host has its memory', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
  {
    title: 'What a write to a page takes',
    figures: [
      ['writeNsBefore', 'before'],
      ['writeNsAfter', 'after'],
    ],
    unit: 'ns',
  },
];
