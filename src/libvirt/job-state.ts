/** libvirt's numbers of a migration (virDomainGetJobStats) in the contract's shape. */
import type { MigrationReport, MigrationState, PostcopyState } from '../control/migrations.ts';
import { BEGINNING } from '../qemu/guest-moves.ts';
import type { DomainJob } from '../sys/libvirt.ts';

/** libvirt says 0 of what is not measured yet. */
const measured = (value: number | undefined): number | null =>
  value === undefined || value === 0 ? null : value;

export function migrationState(
  { numbers }: Pick<DomainJob, 'numbers'>,
  { postcopy = null }: { postcopy?: PostcopyState | null } = {},
): MigrationState {
  const slowed = numbers.auto_converge_throttle;
  return {
    ...BEGINNING,
    status: postcopy === null ? 'active' : 'postcopy-active',
    elapsedMs: numbers.time_elapsed ?? 0,
    round: measured(numbers.memory_iteration),
    totalBytes: measured(numbers.memory_total),
    sentBytes: numbers.memory_processed ?? null,
    remainingBytes: measured(numbers.memory_total) === null ? null : (numbers.memory_remaining ?? null),
    bytesPerSecond: measured(numbers.memory_bps),
    expectedDowntimeMs: measured(numbers.downtime),
    guestShare: slowed === undefined ? null : 1 - Math.min(100, Math.max(0, slowed)) / 100,
    ...(postcopy === null ? {} : { postcopy }),
  };
}

/** What the guest writes to, a second; null where libvirt has not measured it. */
export function writeRate({ numbers }: Pick<DomainJob, 'numbers'>): number | null {
  const pages = measured(numbers.memory_dirty_rate);
  return pages === null ? null : pages * (numbers.memory_page_size ?? 0);
}

/** `postcopy`: libvirt tells how often pages were asked for, and of no wait. */
export const postcopyState = (
  { numbers }: Pick<DomainJob, 'numbers'>,
  missingBytes: number,
): PostcopyState => ({
  missingBytes,
  faults: numbers.memory_postcopy_requests ?? 0,
  longestFaultMs: null,
  recoveries: 0,
  broken: null,
});

/** `completed` is what libvirt said in the end, null where neither end could be asked; then it is as it was seen last. */
export function migrationReport(
  completed: Pick<DomainJob, 'numbers'> | null,
  last: Pick<DomainJob, 'numbers'>,
  elapsedMs: number,
): Omit<MigrationReport, 'postcopy'> {
  const numbers = { ...last.numbers, ...completed?.numbers };
  return {
    totalMs: completed?.numbers.time_elapsed ?? elapsedMs,
    // Before the end it is what was expected.
    downtimeMs: measured(completed?.numbers.downtime),
    rounds: numbers.memory_iteration ?? 0,
    bytes: numbers.memory_processed ?? 0,
    pages: numbers.memory_normal ?? 0,
    zeroPages: numbers.memory_constant ?? 0,
    resentPages: null,
    freePages: null,
    balloonPages: null,
    unbackedPages: null,
    hintRaces: null,
  };
}
