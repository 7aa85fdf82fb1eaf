/**
 * QEMU's balloon device and ours side by side: the same driver with the same settings names the same pages, in order
 * and shuffled, of memory that was touched in the same way, and the clock runs until the host has it back. The devices
 * take turns in one run; each is in a process of its own, and the driver in another.
 */
import type { DiscardMode } from '../../control/contract.ts';
import type { GuestSource } from '../../control/operations.ts';
import type { DriverTuning } from '../../driver/options.ts';
import { defaultQemu } from '../../peers/qemu/programs.ts';
import { QemuControl } from '../../qemu/qemu-control.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BENCH_GUEST, BenchDaemon } from '../bench-daemon.ts';
import { barePunchMs } from '../floor.ts';
import type { ChartPlan } from '../html.ts';
import { PAGE_ORDERS, type PageOrder } from '../page-order.ts';
import { PeerProcess } from '../peer-process.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../report.ts';
import type { FromPeerGuest, PeerGuestData } from './peer-protocol.ts';

export interface PeerBenchOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

interface PeerCase {
  readonly name: string;
  readonly order: PageOrder;
  readonly device: 'qemu' | Extract<DiscardMode, 'auto' | 'before-ack'>;
}

interface PeerSample {
  /** From the wish until the host had its memory back. */
  readonly elapsedMs: number;
  /** Until the driver was told that all is done. */
  readonly guestMs: number;
  readonly deflateMs: number;
  readonly deviceCpuMs: number;
  readonly kicks: number;
  readonly buffers: number;
}

/** The guest's process; it is told nothing, but by its device. */
type PeerGuest = PeerProcess<never, FromPeerGuest>;

/**
 * QEMU's rings have 128 entries; ours are made as large. All of a ring's buffers may be on their way at once, because a
 * kick through qtest takes some 30 us: what is compared is the devices, not the ways to them.
 */
export const PEER_TUNING: Partial<DriverTuning> = { queueSizeMax: 128, depth: 128, pfnsPerBuffer: 256 };

const CASES: readonly PeerCase[] = PAGE_ORDERS.flatMap((order): PeerCase[] => [
  { name: 'QEMU', order, device: 'qemu' },
  { name: 'Aerostat', order, device: 'auto' },
  { name: 'Aerostat, before-ack', order, device: 'before-ack' },
]);

export async function benchInflateBesideQemu(options: PeerBenchOptions): Promise<Measured> {
  const { runs, signal, progress, balloonBytes } = options;
  defaultQemu();
  const samples = new Map<PeerCase, PeerSample[]>(CASES.map(one => [one, []]));
  const floors: Record<PageOrder, number[]> = { ordered: [], shuffled: [] };
  const total = runs * (CASES.length + PAGE_ORDERS.length);
  let done = 0;
  for (let run = 0; run < runs; run++) {
    // Every run begins with another case, so that none always follows the same one.
    for (let turn = 0; turn < CASES.length; turn++) {
      const one = CASES[(run + turn) % CASES.length];
      signal.throwIfAborted();
      progress(done++, total, `${one.order} ${one.name}`);
      samples.get(one)?.push(await measure(one, options));
    }
    for (const order of PAGE_ORDERS) {
      signal.throwIfAborted();
      progress(done++, total, `${order} bare punch`);
      floors[order].push(barePunchMs(balloonBytes, order));
    }
  }
  progress(total, total, 'done');
  return {
    rows: [
      ...[...samples].map(([one, taken]) => rowOf(one, taken)),
      ...PAGE_ORDERS.map(order => floorRow(order, floors[order])),
    ],
    ratios: { ...ratiosOf(samples), ...floorRatios(samples, floors) },
    notes: [
      `Same driver, same page lists of ${PEER_TUNING.pfnsPerBuffer} numbers, same touched file-backed memory; up to ${PEER_TUNING.depth} buffers in the ring a kick, so that QEMU's kicks through qtest do not decide.`,
      'elapsed: until the host has the memory back (fstat); ratios are QEMU / Aerostat; inflate.….toFloor is QEMU / bare punch, what could be had at all, and ….toFloor is Aerostat / bare punch.',
    ],
  };
}

const measure = (one: PeerCase, options: PeerBenchOptions): Promise<PeerSample> =>
  one.device === 'qemu' ? measureQemu(one, options) : measureOurs(one, one.device, options);

async function measureQemu(one: PeerCase, options: PeerBenchOptions): Promise<PeerSample> {
  const guest = startGuest(dataOf(one, options, null), options.signal);
  let control: QemuControl | undefined;
  try {
    const { qmpPath } = await guest.hear('ready');
    control = new QemuControl([{ name: BENCH_GUEST, qmpPath: qmpPath ?? '' }]);
    // The monitor is reached before the clock runs.
    await control.guest(BENCH_GUEST);
    const { deviceCpuMs, ...sample } = await inflateAndDeflate(guest, control, options.balloonBytes);
    return { ...sample, deviceCpuMs: deviceCpuMs ?? Number.NaN };
  } finally {
    control?.close();
    await guest.end();
  }
}

async function measureOurs(
  one: PeerCase,
  discard: DiscardMode,
  options: PeerBenchOptions,
): Promise<PeerSample> {
  const daemon = await BenchDaemon.start({ profile: 'virtio', discard, without: [] });
  const guest = startGuest(dataOf(one, options, daemon.socketPath), options.signal);
  try {
    await guest.hear('ready');
    const before = process.cpuUsage();
    const sample = await inflateAndDeflate(guest, daemon.control, options.balloonBytes);
    const { user, system } = process.cpuUsage(before);
    return { ...sample, deviceCpuMs: (user + system) / 1000 };
  } finally {
    await guest.end();
    await daemon.close();
  }
}

const dataOf = (
  { order }: PeerCase,
  { memoryBytes, balloonBytes }: PeerBenchOptions,
  socketPath: string | null,
): PeerGuestData => ({ socketPath, memoryBytes, balloonBytes, order, tuning: PEER_TUNING });

async function inflateAndDeflate(guest: PeerGuest, control: GuestSource, balloonBytes: number) {
  const startedMs = monotonicMs();
  await control.change(BENCH_GUEST, { targetBytes: balloonBytes, force: true });
  const { settledMs, backMs, kicks, buffers, deviceCpuMs } = await guest.hear('inflated');
  const deflatingMs = monotonicMs();
  await control.change(BENCH_GUEST, { targetBytes: 0 });
  const deflated = await guest.hear('deflated');
  return {
    elapsedMs: Math.max(settledMs, backMs) - startedMs,
    guestMs: settledMs - startedMs,
    deflateMs: deflated.settledMs - deflatingMs,
    kicks,
    buffers,
    deviceCpuMs,
  };
}

const startGuest = (data: PeerGuestData, signal: AbortSignal): PeerGuest =>
  new PeerProcess(workerUrl('./peer-guest', import.meta.url), { args: [JSON.stringify(data)], signal });

const figureOf =
  (samples: readonly PeerSample[]) =>
  (name: keyof PeerSample): Spread =>
    spreadOf(samples.map(sample => sample[name]));

function rowOf({ name, order, device }: PeerCase, samples: readonly PeerSample[]): BenchRow {
  const figure = figureOf(samples);
  return {
    case: name,
    scenario: order,
    peer: device === 'qemu' ? 'qemu' : 'aerostat',
    elapsedMs: figure('elapsedMs'),
    guestMs: figure('guestMs'),
    deflateMs: figure('deflateMs'),
    deviceCpuMs: figure('deviceCpuMs'),
    kicks: figure('kicks').median,
    buffers: figure('buffers').median,
  };
}

const floorRow = (order: PageOrder, floorsMs: readonly number[]): BenchRow => ({
  case: 'bare punch',
  scenario: order,
  peer: 'kernel',
  elapsedMs: spreadOf(floorsMs),
});

type Samples = ReadonlyMap<PeerCase, readonly PeerSample[]>;

function medianOf(samples: Samples, order: PageOrder, device: PeerCase['device'], name: keyof PeerSample) {
  const found = [...samples].find(([one]) => one.order === order && one.device === device);
  return figureOf(found?.[1] ?? [])(name).median;
}

function ratiosOf(samples: Samples): Record<string, number> {
  const ratio = (order: PageOrder, device: PeerCase['device'], name: keyof PeerSample = 'elapsedMs') =>
    medianOf(samples, order, 'qemu', name) / medianOf(samples, order, device, name);
  return {
    'inflate.ordered': ratio('ordered', 'auto'),
    'inflate.shuffled': ratio('shuffled', 'auto'),
    'inflate.orderedBeforeAck': ratio('ordered', 'before-ack'),
    'inflate.shuffledBeforeAck': ratio('shuffled', 'before-ack'),
    deflate: ratio('ordered', 'auto', 'deflateMs'),
  };
}

/** What no device could do better than: it would be as fast as one punch of everything. QEMU's, and ours. */
function floorRatios(samples: Samples, floors: Record<PageOrder, number[]>): Record<string, number> {
  const toFloor = (order: PageOrder, device: PeerCase['device']): number =>
    medianOf(samples, order, device, 'elapsedMs') / spreadOf(floors[order]).median;
  return Object.fromEntries(
    PAGE_ORDERS.flatMap(order => [
      [`inflate.${order}.toFloor`, toFloor(order, 'qemu')],
      [`${order}.toFloor`, toFloor(order, 'auto')],
    ]),
  );
}

export const PEER_CHARTS: readonly ChartPlan[] = [
  { title: 'Until the host has its memory', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
  { title: 'Until the guest has its memory back', figures: [['deflateMs', 'elapsed']], unit: 'ms' },
];
