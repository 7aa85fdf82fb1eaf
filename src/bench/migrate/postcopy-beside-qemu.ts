/**
 * QEMU's post-copy and ours in alternation in one run: a guest that writes, all of whose memory was touched, runs at its
 * destination at once and gets its memory there. QEMU's guest is a firmware that writes to pages, ours the embedded one; each
 * is judged by its own pace before it moved.
 */
import { PAGE_SIZE } from '../../memory/page.ts';
import { defaultQemu } from '../../peers/qemu/programs.ts';
import { AerostatError } from '../../sys/error.ts';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import { type GuestMoveOptions, moveGuest, WORKING_SHARE } from './migrate.ts';
import { movePostcopyGuest, type PostcopyMove } from './qemu-postcopy.ts';

export interface PeerPostcopyOptions extends GuestMoveOptions {
  readonly runs: number;
  readonly progress: (done: number, total: number, what: string) => void;
}

const SIDES = ['QEMU', 'Aerostat'] as const;
type Side = (typeof SIDES)[number];

/** @throws MissingPeerError without QEMU; AerostatError when a migration fails, or memory arrived changed */
export async function benchPostcopyBesideQemu(options: PeerPostcopyOptions): Promise<Measured> {
  const { load, runs, signal, progress, memoryBytes, usedShare, bytesPerSecond } = options;
  if (load.kind !== 'dirty') {
    throw new AerostatError('AEROSTAT_BENCH', 'beside QEMU the guest writes: give --load dirty-RATE');
  }
  const { version } = defaultQemu();
  const sides: Readonly<Record<Side, () => Promise<PostcopyMove>>> = {
    QEMU: () =>
      movePostcopyGuest({
        memoryBytes,
        workingBytes: memoryBytes * usedShare * WORKING_SHARE,
        writesPerMs: load.bytesPerSecond / PAGE_SIZE / 1e3,
        bytesPerSecond,
        signal,
      }),
    Aerostat: async () => {
      const { summary, workShare } = await moveGuest('none', { ...options, postcopyAfterRound: 0 });
      return { elapsedMs: summary.totalMs, downtimeMs: summary.downtimeMs, workShare };
    },
  };
  const moves: Record<Side, PostcopyMove[]> = { QEMU: [], Aerostat: [] };
  let done = 0;
  for (let run = 0; run < runs; run++) {
    // Each side is the first in every other run.
    for (const side of run % 2 === 0 ? SIDES : SIDES.toReversed()) {
      signal.throwIfAborted();
      progress(done++, runs * SIDES.length, side);
      const move = await sides[side]().catch(error => {
        // Whatever an interrupted migration fails of, that it was interrupted is why.
        signal.throwIfAborted();
        throw error;
      });
      moves[side].push(move);
    }
  }
  const figure = (side: Side, key: keyof PostcopyMove) =>
    spreadOf(moves[side].map(move => move[key]).filter(value => !Number.isNaN(value)));
  const rows = SIDES.map(
    (side): BenchRow => ({
      case: side,
      scenario: `post-copy, dirty ${(load.bytesPerSecond / 1e6).toFixed(0)} MB/s`,
      peer: side === 'QEMU' ? 'qemu' : 'aerostat',
      elapsedMs: figure(side, 'elapsedMs'),
      downtimeMs: figure(side, 'downtimeMs'),
      workShare: figure(side, 'workShare'),
    }),
  );
  const ours = (key: keyof PostcopyMove) => figure('Aerostat', key).median / figure('QEMU', key).median;
  return {
    rows,
    ratios: {
      'postcopy.downtimeToQemu': ours('downtimeMs'),
      'postcopy.throughputToQemu': ours('workShare'),
      'postcopy.elapsedToQemu': ours('elapsedMs'),
    },
    notes: [
      `QEMU ${version}. Ratios are ours / QEMU, of the medians.`,
      'downtime of QEMU: from the STOP of the source to the RESUME of the destination, as its monitors tell; ours until the source hears that the guest runs.',
      'workShare: the work of a guest in a millisecond from its first moment at the destination until all memory was there, against before.',
    ],
  };
}
