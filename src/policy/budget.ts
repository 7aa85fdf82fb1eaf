/** What the guests may keep together: what the host has without its reserve, what others use, and what is reserved. */
import { reserveOf } from './settings.ts';
import type { HostDecision, HostSample, PolicyMemory, Sample, Settings } from './types.ts';

/** The use of others is believed at once when it rises, and as an average over about a minute when it falls. */
const FALL_MS = 60_000;

const sizeOf = (value: number): number => (Number.isFinite(value) && value > 0 ? value : 0);

/** Fills in the host's part of a decision. `heldBytes` is what the host holds for all guests. */
export function reckonBudget(
  host: HostDecision,
  { host: sample, atMs }: Sample,
  settings: Settings,
  heldBytes: number,
  before: PolicyMemory,
  memory: PolicyMemory,
): void {
  const totalBytes = sizeOf(sample.totalBytes);
  host.totalBytes = totalBytes;
  host.availableBytes = Math.min(totalBytes, sizeOf(sample.availableBytes));
  host.reservedBytes = sizeOf(sample.reservedBytes);
  host.reserveBytes = reserveOf(settings, sanitized(sample, totalBytes));
  const others = Math.max(0, totalBytes - host.availableBytes - heldBytes);
  const elapsed = before.atMs < 0 ? FALL_MS : Math.max(0, Math.min(FALL_MS, atMs - before.atMs));
  const former = before.othersBytes;
  host.othersBytes = former < others ? others : former - (former - others) * (elapsed / FALL_MS);
  memory.othersBytes = host.othersBytes;
  host.budgetBytes = Math.max(0, totalBytes - host.reserveBytes - host.othersBytes - host.reservedBytes);
  host.reservationReady = host.availableBytes - host.reserveBytes >= host.reservedBytes;
}

const sanitized = (sample: HostSample, totalBytes: number): HostSample =>
  sample.totalBytes === totalBytes ? sample : { ...sample, totalBytes };
