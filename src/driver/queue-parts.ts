/** What serves the queues beside inflate and deflate, each by its role. */
import type { BalloonOptions } from './balloon-options.ts';
import { HintsPart } from './hints.ts';
import { listLimits } from './options.ts';
import type { QueuePart } from './queue-part.ts';
import { ReportingPart } from './reporting.ts';
import { RequestsPart } from './requests.ts';
import { StatisticsPart } from './statistics.ts';

/** By the number of the queue. @throws DriverProbeError when the guest has no memory for their buffers */
export function createParts(options: BalloonOptions): ReadonlyMap<number, QueuePart> {
  const { kernel, profile, tuning, rings, memory } = options;
  const { freePages } = profile;
  const parts = new Map<number, QueuePart>();
  for (const ring of rings) {
    if (ring.role === 'stats') {
      parts.set(ring.index, new StatisticsPart(ring, memory, kernel));
    } else if (ring.role === 'hint' && freePages.kind === 'session') {
      const hints = options.former?.hints ?? undefined;
      parts.set(ring.index, new HintsPart(ring, memory, kernel, freePages.hasDone, hints));
    } else if (ring.role === 'request' && freePages.kind === 'request') {
      const { format, protocol } = freePages;
      const limits = listLimits(format, kernel.pages.length);
      const requests = { kernel, format, protocol, limits, orderMin: tuning.unusedOrderMin };
      parts.set(ring.index, new RequestsPart(ring, memory, requests));
    } else if (ring.role === 'reporting' || ring.role === 'hinting') {
      const reporting = {
        allocator: kernel.allocator,
        format: freePages.format,
        delayMs: tuning.reportingDelayMs,
        blocksMax: tuning.reportingBlocks,
        pipelined: tuning.reportingPipelined,
      };
      parts.set(ring.index, new ReportingPart(ring, memory, reporting));
    }
  }
  return parts;
}
