/** What serves the queues beside inflate and deflate: a queue is a line here. */
import type { QueueRole } from '../balloon/features.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { KernelMemory } from '../memory/kernel-memory.ts';
import type { BalloonOptions } from './balloon-options.ts';
import type { DriverRing } from './driver-ring.ts';
import { HintsPart } from './hints.ts';
import { listLimits } from './options.ts';
import type { QueuePart } from './queue-part.ts';
import { ReportingPart } from './reporting.ts';
import { RequestsPart } from './requests.ts';
import { SharedFramesPart } from './shared-frames-part.ts';
import { StatisticsPart } from './statistics.ts';

type MakePart = (ring: DriverRing, options: BalloonOptions) => QueuePart | undefined;

const hints: MakePart = (ring, { memory, kernel, profile, features, former }) => {
  const { freePages, hintAckFeature } = profile;
  if (freePages.kind !== 'session') return undefined;
  const waits = (features & hintAckFeature) !== 0n;
  return new HintsPart(
    ring,
    memory,
    kernel,
    { hasDone: freePages.hasDone, waits },
    former?.hints ?? undefined,
  );
};

const requests: MakePart = (ring, { memory, kernel, profile: { freePages }, tuning }) => {
  const { unused } = kernel;
  if (freePages.kind !== 'request' || unused === undefined) return undefined;
  const { format, protocol } = freePages;
  const limits = listLimits(format, kernel.pages.length);
  return new RequestsPart(ring, memory, {
    unused,
    format,
    protocol,
    limits,
    orderMin: tuning.unusedOrderMin,
  });
};

const reporting: MakePart = (
  ring,
  { memory, kernel: { reports, zeroed }, profile: { freePages, zeroing }, features, tuning },
) =>
  reports &&
  new ReportingPart(ring, memory, {
    free: reports,
    zeroed: (features & zeroing.reported) === 0n ? undefined : zeroed,
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
  shared: (ring, { memory, kernel }) => kernel.shared && new SharedFramesPart(ring, memory, kernel),
};

/**
 * The features of which a kernel can do what the host asks for with them: not every one can set free blocks aside, or
 * list what is free.
 */
export const featuresWithin = (
  { reports, unused, zeroed, shared }: KernelMemory,
  { features, featureMask, zeroing }: Profile,
): bigint => {
  const known = zeroed === undefined ? featureMask & ~(zeroing.reported | zeroing.inflated) : featureMask;
  const lacks = (role: QueueRole | null) =>
    (reports === undefined && (role === 'reporting' || role === 'hinting')) ||
    (unused === undefined && role === 'request') ||
    (shared === undefined && role === 'shared');
  return features.reduce((mask, { queue, mask: own }) => (lacks(queue) ? mask & ~own : mask), known);
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
