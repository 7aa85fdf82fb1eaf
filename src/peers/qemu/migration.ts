/**
 * Live migration of a QEMU guest, told to QEMU over its monitor: set up, started, watched to its end, and
 * summed up. The destination is a QEMU that waits for it; who starts it is not known here.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { defined } from '../../sys/defined.ts';
import { QemuMigrationError } from './errors.ts';
import type { QmpExecutor } from './qmp.ts';
import {
  cancelMigration,
  type MigrationInfo,
  migrate,
  migrateIncoming,
  queryMigration,
  setMigrationCapabilities,
  setMigrationParameters,
  startPostcopy,
} from './qmp-commands.ts';

const POLL_MS = 50;
/** QEMU's own default (32 MiB/s in old versions) is made for disks; this means: as fast as it goes. */
const BANDWIDTH_UNLIMITED = 2 ** 40;

export interface QemuMigrationOptions {
  /** Where the destination waits, for example `tcp:127.0.0.1:4444`, `unix:PATH`; also `exec:COMMAND`. */
  readonly uri: string;
  /** Default: as fast as it goes. */
  readonly bandwidthBytesPerSecond?: number;
  /** How long the guest may stand still at the end. Default: QEMU's own, 300 ms. */
  readonly downtimeMsMax?: number;
  /**
   * Sends pages over this many connections, which the destination must agree to (`multifd`). Default: one.
   */
  readonly connections?: number;
  /** The guest runs at its destination at once, which must agree to it, and gets its memory there. */
  readonly postcopy?: boolean;
  readonly onProgress?: (progress: QemuMigrationProgress) => void;
  /** Gives the migration up; the guest goes on here. */
  readonly signal?: AbortSignal;
}

export interface QemuMigrationProgress {
  /** QEMU's own word: setup, active, device, completed, … */
  readonly status: string;
  readonly elapsedMs: number;
  /** Null until QEMU counts. */
  readonly totalBytes: number | null;
  readonly transferredBytes: number | null;
  readonly remainingBytes: number | null;
  /** Passes over the guest's memory so far. */
  readonly rounds: number | null;
  readonly bytesPerSecond: number | null;
  /** How long the guest would stand still if the rest were sent now. */
  readonly expectedDowntimeMs: number | null;
}

export interface QemuMigrationSummary {
  readonly totalMs: number;
  /** How long the guest stood still. */
  readonly downtimeMs: number | null;
  readonly setupMs: number | null;
  /** Guest memory, all of it. */
  readonly totalBytes: number;
  /** What went over the wire. */
  readonly transferredBytes: number;
  /** Pages sent whole, and pages of which only was said that they are zero. */
  readonly sentPages: number;
  readonly zeroPages: number;
  readonly rounds: number;
}

/** For both ends, before anything else: whether pages go over several connections, and come when the guest runs. */
async function agreeOnWays(qmp: QmpExecutor, connections: number, postcopy: boolean): Promise<void> {
  await setMigrationCapabilities(qmp, {
    multifd: connections > 1,
    ...(postcopy ? { 'postcopy-ram': true } : {}),
  });
  if (connections > 1) await setMigrationParameters(qmp, { 'multifd-channels': connections });
}

/**
 * Lets a QEMU that was started with `-incoming defer` wait for its guest on this host, and returns where.
 * @throws QemuMigrationError when it does not tell
 */
export async function awaitGuest(
  qmp: QmpExecutor,
  connections: number,
  { postcopy = false }: { readonly postcopy?: boolean } = {},
): Promise<string> {
  await agreeOnWays(qmp, connections, postcopy);
  await migrateIncoming(qmp, 'tcp:127.0.0.1:0');
  const [address] = (await queryMigration(qmp))['socket-address'] ?? [];
  if (address?.port === undefined) {
    throw new QemuMigrationError('QEMU does not tell where it waits for the guest');
  }
  return `tcp:127.0.0.1:${address.port}`;
}

/**
 * Migrates the guest and settles when it is gone; QEMU itself goes on, empty, until it is told to quit.
 * @throws QemuMigrationError when QEMU gives up, or `signal` did
 */
export async function migrateAway(
  qmp: QmpExecutor,
  options: QemuMigrationOptions,
): Promise<QemuMigrationSummary> {
  const { uri, downtimeMsMax, connections = 1, postcopy = false, onProgress, signal } = options;
  const { bandwidthBytesPerSecond = BANDWIDTH_UNLIMITED } = options;
  await agreeOnWays(qmp, connections, postcopy);
  await setMigrationParameters(qmp, {
    'max-bandwidth': bandwidthBytesPerSecond,
    ...(postcopy ? { 'max-postcopy-bandwidth': bandwidthBytesPerSecond } : {}),
    ...defined({ 'downtime-limit': downtimeMsMax }),
  });
  await migrate(qmp, uri);
  if (postcopy) await startPostcopy(qmp);
  let cancelled = false;
  for (;;) {
    const info = await queryMigration(qmp);
    onProgress?.(progressOf(info));
    if (info.status === 'completed') return summaryOf(info);
    const failure = failureOf(info, uri);
    if (failure !== null) throw failure;
    if (signal?.aborted === true && !cancelled) {
      cancelled = true;
      await cancelMigration(qmp);
    }
    await delay(POLL_MS);
  }
}

/** The newest migration of a QEMU, whichever client began it. */
export interface QemuMigrationRecord {
  readonly progress: QemuMigrationProgress;
  /** Once the guest is gone. */
  readonly summary: QemuMigrationSummary | null;
  /** Once it is known that the guest stays. */
  readonly failure: QemuMigrationError | null;
}

/** Null when this QEMU has sent no guest: one that has received its guest says that, but not how many bytes went. */
export async function queryLastMigration(qmp: QmpExecutor): Promise<QemuMigrationRecord | null> {
  const info = await queryMigration(qmp);
  const { status, ram } = info;
  if (status === undefined || status === 'none') return null;
  if (status === 'completed' && ram === undefined) return null;
  return {
    progress: progressOf(info),
    summary: status === 'completed' ? summaryOf(info) : null,
    failure: failureOf(info, 'its destination'),
  };
}

function failureOf(info: MigrationInfo, uri: string): QemuMigrationError | null {
  if (info.status === 'cancelled') return new QemuMigrationError(`the migration to ${uri} was cancelled`);
  if (info.status !== 'failed') return null;
  const why = info['error-desc'] ?? 'it does not say why';
  return new QemuMigrationError(`QEMU could not migrate to ${uri}: ${why}`);
}

/** Null for what QEMU says 0 of because it has not measured yet. */
const measured = (value: number | undefined): number | null =>
  value === undefined || value === 0 ? null : value;

function progressOf(info: MigrationInfo): QemuMigrationProgress {
  const { ram } = info;
  const megabits = measured(ram?.mbps);
  return {
    status: info.status ?? 'none',
    elapsedMs: info['total-time'] ?? 0,
    totalBytes: ram?.total ?? null,
    transferredBytes: ram?.transferred ?? null,
    remainingBytes: ram?.remaining ?? null,
    rounds: ram?.['dirty-sync-count'] ?? null,
    bytesPerSecond: megabits === null ? null : megabits * 125_000,
    expectedDowntimeMs: info['expected-downtime'] ?? null,
  };
}

function summaryOf(info: MigrationInfo): QemuMigrationSummary {
  const { ram } = info;
  if (ram === undefined) throw new QemuMigrationError('QEMU says that it migrated, and nothing about memory');
  return {
    totalMs: info['total-time'] ?? 0,
    downtimeMs: info.downtime ?? null,
    setupMs: info['setup-time'] ?? null,
    totalBytes: ram.total,
    transferredBytes: ram.transferred,
    sentPages: ram.normal,
    zeroPages: ram.duplicate,
    rounds: ram['dirty-sync-count'],
  };
}
