/**
 * Many guests of one daemon that are asked for memory at the same moment, beside as many QEMUs, and beside one guest alone:
 * how much comes back to the host in a second, and how long the guest waits that comes last. Every guest is a process of its
 * own with the same driver, and touched its memory before.
 */
import type { GuestSource } from '../../control/operations.ts';
import { defaultQemu } from '../../peers/qemu/programs.ts';
import { QemuControl } from '../../qemu/qemu-control.ts';
import { AerostatError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BenchDaemon, benchGuestName } from '../bench-daemon.ts';
import type { ChartPlan } from '../html.ts';
import { PeerProcess } from '../peer-process.ts';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import { PEER_TUNING } from './beside-qemu.ts';
import type { FromPeerGuest, PeerGuestData } from './peer-protocol.ts';

export interface ManyGuestsOptions {
  readonly guests: number;
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

interface GuestsCase {
  readonly device: 'qemu' | 'aerostat';
  readonly guests: number;
}

interface GuestsSample {
  /** Until the host had the memory of the last guest, and of the first. */
  readonly slowestMs: number;
  readonly fastestMs: number;
  readonly deflateMs: number;
}

type PeerGuest = PeerProcess<never, FromPeerGuest>;

export async function benchManyGuests(options: ManyGuestsOptions): Promise<Measured> {
  const { guests, runs, signal, progress } = options;
  const missing = qemuFault();
  const cases: GuestsCase[] = [
    { device: 'aerostat', guests: 1 },
    { device: 'aerostat', guests },
    ...(missing === undefined ? [{ device: 'qemu' as const, guests }] : []),
  ];
  const samples = new Map<GuestsCase, GuestsSample[]>(cases.map(one => [one, []]));
  for (let done = 0; done < runs * cases.length; done++) {
    // Every run begins with another case, so that none always follows the same one.
    const one = cases[(Math.floor(done / cases.length) + done) % cases.length];
    signal.throwIfAborted();
    progress(done, runs * cases.length, nameOf(one));
    samples.get(one)?.push(await measure(one, options));
  }
  progress(runs * cases.length, runs * cases.length, 'done');
  const notes = missing === undefined ? [] : [`No QEMU was measured: ${missing}.`];
  return {
    rows: [...samples].map(([one, taken]) => rowOf(one, taken, options)),
    ratios: ratiosOf(samples, cases, options),
    notes: [
      ...notes,
      'All guests are asked at once; elapsed: until the host has the memory of the last one (fstat).',
    ],
  };
}

function qemuFault(): string | undefined {
  try {
    defaultQemu();
    return undefined;
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    return error.message;
  }
}

async function measure({ device, guests }: GuestsCase, options: ManyGuestsOptions): Promise<GuestsSample> {
  const daemon =
    device === 'aerostat'
      ? await BenchDaemon.start({ profile: 'virtio', discard: 'auto', without: [], guests })
      : undefined;
  const processes: PeerGuest[] = [];
  const controls: QemuControl[] = [];
  try {
    // One after the other: touching its memory keeps a processor.
    for (let index = 0; index < guests; index++) {
      const process = startGuest(daemon?.socketPaths[index] ?? null, options);
      processes.push(process);
      const { qmpPath } = await process.hear('ready');
      if (daemon !== undefined) continue;
      const control = new QemuControl([{ name: benchGuestName(index), qmpPath: qmpPath ?? '' }]);
      controls.push(control);
      await control.guest(benchGuestName(index));
    }
    const controlOf = (index: number): GuestSource => daemon?.control ?? controls[index];
    return await inflateAll(processes, controlOf, options.balloonBytes);
  } finally {
    for (const control of controls) control.close();
    await Promise.all(processes.map(process => process.end()));
    await daemon?.close();
  }
}

async function inflateAll(
  processes: readonly PeerGuest[],
  controlOf: (index: number) => GuestSource,
  balloonBytes: number,
): Promise<GuestsSample> {
  const change = (targetBytes: number) =>
    Promise.all(
      processes.map((_, index) =>
        controlOf(index).change(benchGuestName(index), { targetBytes, force: true }),
      ),
    );
  const startedMs = monotonicMs();
  await change(balloonBytes);
  const inflated = await Promise.all(processes.map(process => process.hear('inflated')));
  const tookMs = inflated.map(({ settledMs, backMs }) => Math.max(settledMs, backMs) - startedMs);
  const deflatingMs = monotonicMs();
  await change(0);
  const deflated = await Promise.all(processes.map(process => process.hear('deflated')));
  return {
    slowestMs: Math.max(...tookMs),
    fastestMs: Math.min(...tookMs),
    deflateMs: Math.max(...deflated.map(({ settledMs }) => settledMs)) - deflatingMs,
  };
}

function startGuest(
  socketPath: string | null,
  { memoryBytes, balloonBytes, signal }: ManyGuestsOptions,
): PeerGuest {
  const data: PeerGuestData = {
    socketPath,
    memoryBytes,
    balloonBytes,
    order: 'ordered',
    tuning: PEER_TUNING,
  };
  return new PeerProcess(workerUrl('./peer-guest', import.meta.url), {
    args: [JSON.stringify(data)],
    signal,
  });
}

const nameOf = ({ device, guests }: GuestsCase): string =>
  `${device === 'qemu' ? 'QEMU' : 'Aerostat'}, ${guests} ${guests === 1 ? 'guest' : 'guests'}`;

const giBs = ({ guests }: GuestsCase, { slowestMs }: GuestsSample, balloonBytes: number): number =>
  (guests * balloonBytes) / 2 ** 30 / (slowestMs / 1000);

function rowOf(
  one: GuestsCase,
  samples: readonly GuestsSample[],
  { balloonBytes }: ManyGuestsOptions,
): BenchRow {
  const figure = (name: keyof GuestsSample) => spreadOf(samples.map(sample => sample[name]));
  return {
    case: nameOf(one),
    scenario: 'touched',
    peer: one.device,
    elapsedMs: figure('slowestMs'),
    fastestMs: figure('fastestMs'),
    deflateMs: figure('deflateMs'),
    reclaimGiBs: spreadOf(samples.map(sample => giBs(one, sample, balloonBytes))),
  };
}

function ratiosOf(
  samples: ReadonlyMap<GuestsCase, readonly GuestsSample[]>,
  [alone, ours, qemu]: readonly GuestsCase[],
  { balloonBytes }: ManyGuestsOptions,
): Record<string, number> {
  const median = (one: GuestsCase, name: keyof GuestsSample): number =>
    spreadOf((samples.get(one) ?? []).map(sample => sample[name])).median;
  const rate = (one: GuestsCase): number =>
    spreadOf((samples.get(one) ?? []).map(sample => giBs(one, sample, balloonBytes))).median;
  return {
    'guests.toOneGuest': rate(ours) / rate(alone),
    'guests.slowestToFastest': median(ours, 'slowestMs') / median(ours, 'fastestMs'),
    ...(qemu && { 'guests.toQemu': median(qemu, 'slowestMs') / median(ours, 'slowestMs') }),
  };
}

export const MANY_GUESTS_CHARTS: readonly ChartPlan[] = [
  {
    title: 'Until the host has its memory',
    figures: [
      ['fastestMs', 'first guest'],
      ['elapsedMs', 'last guest'],
    ],
    unit: 'ms',
  },
];
