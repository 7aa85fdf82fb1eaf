/** What serves the queues beside inflate and deflate: a queue is a line here. */
import type { QueueRole } from '../balloon/features.ts';
import type { BalloonOptions } from './balloon-options.ts';
import type { DriverRing } from './driver-ring.ts';
import { HintsPart } from './hints.ts';
import { listLimits } from './options.ts';
import type { QueuePart } from './queue-part.ts';
import { ReportingPart } from './reporting.ts';
import { RequestsPart } from './requests.ts';
import { StatisticsPart } from './statistics.ts';

type MakePart = (ring: DriverRing, options: BalloonOptions) => QueuePart | undefined;

const hints: MakePart = (ring, { memory, kernel, profile: { freePages }, former }) =>
  freePages.kind === 'session'
    ? new HintsPart(ring, memory, kernel, freePages.hasDone, former?.hints ?? undefined)
    : undefined;

const requests: MakePart = (ring, { memory, kernel, profile: { freePages }, tuning }) => {
  if (freePages.kind !== 'request') return undefined;
  const { format, protocol } = freePages;
  const limits = listLimits(format, kernel.pages.length);
  return new RequestsPart(ring, memory, {
    kernel,
    format,
    protocol,
    limits,
    orderMin: tuning.unusedOrderMin,
  });
};

const reporting: MakePart = (ring, { memory, kernel, profile: { freePages }, tuning }) =>
  new ReportingPart(ring, memory, {
    allocator: kernel.allocator,
    format: freePages.format,
    delayMs: tuning.reportingDelayMs,
    blocksMax: tuning.reportingBlocks,
    pipelined: tuning.reportingPipelined,
  });

const PARTS: Readonly<Record<Exclude<QueueRole, 'inflate' | 'deflate'>, MakePart>> = {
  stats: (ring, { memory, kernel }) => new StatisticsPart(ring, memory, kernel),
  hint: hints,
  request: requests,
  reporting,
  hinting: reporting,
};

/** By the number of the queue. @throws DriverProbeError when the guest has no memory for their buffers */
export function createParts(options: BalloonOptions): ReadonlyMap<number, QueuePart> {
  const parts = new Map<number, QueuePart>();
  for (const ring of options.rings) {
    const part = ring.role in PARTS ? PARTS[ring.role as keyof typeof PARTS](ring, options) : undefined;
    if (part !== undefined) parts.set(ring.index, part);
  }
  return parts;
}
