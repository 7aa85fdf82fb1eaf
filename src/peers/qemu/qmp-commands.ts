/**
 * The commands and events of QEMU that Aerostat uses, with checked answers (QEMU's qapi/*.json). Sizes are
 * bytes, times milliseconds. Each function works on anything that executes commands.
 */
import { z } from 'zod';
import { QmpAnswerError, QmpError } from './errors.ts';
import type { ExecuteOptions, QmpArguments, QmpExecutor } from './qmp.ts';
import type { QemuVersion, QmpEvent } from './qmp-wire.ts';

async function ask<T>(
  qmp: QmpExecutor,
  schema: z.ZodType<T>,
  command: string,
  args?: QmpArguments,
  options?: ExecuteOptions,
): Promise<T> {
  const answer = schema.safeParse(await qmp.execute(command, args, options));
  if (!answer.success) throw new QmpAnswerError(command, z.prettifyError(answer.error));
  return answer.data;
}

async function tell(qmp: QmpExecutor, command: string, args?: QmpArguments): Promise<void> {
  await qmp.execute(command, args);
}

// The machine

const runState = z.object({ status: z.string(), running: z.boolean() });

/** `status` is QEMU's RunState: running, paused, inmigrate, postmigrate, prelaunch, shutdown, … */
export const queryStatus = (qmp: QmpExecutor) => ask(qmp, runState, 'query-status');

const guestName = z.object({ name: z.string().optional() });

/** What QEMU was told to call its guest (`-name`); undefined where it was told nothing. */
export const queryName = async (qmp: QmpExecutor): Promise<string | undefined> =>
  (await ask(qmp, guestName, 'query-name')).name;

/**
 * QEMU may end before its answer arrives, which counts as success nowhere: see {@link QmpExecutor.execute}.
 */
export const quit = (qmp: QmpExecutor) => tell(qmp, 'quit');

// Memory and the balloon

const memorySize = z.object({ 'base-memory': z.number(), 'plugged-memory': z.number().optional() });

/** Bytes of the guest's memory, plugged memory included. */
export async function queryMemorySize(qmp: QmpExecutor): Promise<number> {
  const answer = await ask(qmp, memorySize, 'query-memory-size-summary');
  return answer['base-memory'] + (answer['plugged-memory'] ?? 0);
}

const memoryBackends = z.array(z.object({ size: z.number() }));

/** Bytes of each backend of the guest's memory. */
export async function queryMemoryBackends(qmp: QmpExecutor): Promise<readonly number[]> {
  return (await ask(qmp, memoryBackends, 'query-memdev')).map(({ size }) => size);
}

const balloonInfo = z.object({ actual: z.number() });

/**
 * Bytes that the balloon leaves to the guest: QEMU counts the memory, where virtio counts the balloon. Null
 * when there is no balloon device.
 */
export async function queryBalloon(qmp: QmpExecutor): Promise<number | null> {
  try {
    return (await ask(qmp, balloonInfo, 'query-balloon')).actual;
  } catch (error) {
    if (error instanceof QmpError && error.errorClass === 'DeviceNotActive') return null;
    throw error;
  }
}

/** Asks the guest to shrink or grow to `bytes`, counted like {@link queryBalloon}'s answer. */
export const setBalloon = (qmp: QmpExecutor, bytes: number) => tell(qmp, 'balloon', { value: bytes });

// The QEMU object model

const propertyList = z.array(z.object({ name: z.string(), type: z.string() }));

const qomList = (qmp: QmpExecutor, path: string) => ask(qmp, propertyList, 'qom-list', { path });

const qomSet = (qmp: QmpExecutor, path: string, property: string, value: unknown) =>
  tell(qmp, 'qom-set', { path, property, value });

/** Where devices of `-device` lie: those with an id, and those without. */
const DEVICE_CONTAINERS = ['/machine/peripheral', '/machine/peripheral-anon'] as const;

/** The balloon device's path in the object model, undefined when there is none. A QEMU has one at most. */
export async function findBalloon(qmp: QmpExecutor): Promise<string | undefined> {
  for (const container of DEVICE_CONTAINERS) {
    for (const { name, type } of await qomList(qmp, container)) {
      if (/^child<virtio-balloon[-\w]*>$/.test(type)) return `${container}/${name}`;
    }
  }
  return undefined;
}

const guestStats = z.object({ 'last-update': z.number(), stats: z.record(z.string(), z.number()) });

export interface QemuGuestStats {
  /** By QEMU's names, for example `stat-free-memory`; what the guest did not say is left out. */
  readonly values: ReadonlyMap<string, number>;
  /** Milliseconds since the epoch, in whole seconds; null when the guest never sent any. */
  readonly updatedMs: number | null;
}

export async function queryGuestStats(qmp: QmpExecutor, balloonPath: string): Promise<QemuGuestStats> {
  const answer = await ask(qmp, guestStats, 'qom-get', { path: balloonPath, property: 'guest-stats' });
  // Unset is 2^64 - 1, or -1 in old versions; a number beyond 2^53 would be inexact in any case.
  const said = Object.entries(answer.stats).filter(([, value]) => value >= 0 && Number.isSafeInteger(value));
  const updated = answer['last-update'];
  return { values: new Map(said), updatedMs: updated === 0 ? null : updated * 1000 };
}

/**
 * QEMU asks the guest for statistics every so many whole seconds; 0 turns that off. The first request is
 * immediate.
 */
export const setGuestStatsInterval = (qmp: QmpExecutor, balloonPath: string, seconds: number) =>
  qomSet(qmp, balloonPath, 'guest-stats-polling-interval', seconds);

export async function guestStatsInterval(qmp: QmpExecutor, balloonPath: string): Promise<number> {
  return ask(qmp, z.number(), 'qom-get', { path: balloonPath, property: 'guest-stats-polling-interval' });
}

const deviceFeatures = z.object({
  'dev-features': z.array(z.string()).optional(),
  transports: z.array(z.string()).optional(),
});
const virtioStatus = z.object({
  'guest-features': deviceFeatures,
  status: z.object({ statuses: z.array(z.string()) }),
  isr: z.number(),
  broken: z.boolean(),
});

export interface QemuVirtioStatus {
  /** Negotiated features by their C names, for example `VIRTIO_BALLOON_F_STATS_VQ`. */
  readonly features: readonly string[];
  /** A driver is at work: it set DRIVER_OK. */
  readonly driverReady: boolean;
  readonly broken: boolean;
}

/** QEMU writes `NAME: what it means`. */
const nameOf = (described: string): string => described.split(':', 1)[0];

/** In QEMU 11.1.3 `x-query-virtio-status` of a balloon fails an assertion, which ends QEMU and its guest. */
const VIRTIO_STATUS_BEFORE_MAJOR = 11;

/** Whether a QEMU of this version may be asked {@link queryVirtioStatus}, and lives. */
export const tellsVirtioStatus = (version: QemuVersion | undefined): boolean =>
  version !== undefined && version.major < VIRTIO_STATUS_BEFORE_MAJOR;

/**
 * What a virtio device and its driver agreed on. The command is not stable: null where this QEMU lacks it
 * (before 7.2) or answers in another shape.
 */
export async function queryVirtioStatus(
  qmp: QmpExecutor,
  devicePath: string,
): Promise<QemuVirtioStatus | null> {
  let answer: unknown;
  try {
    answer = await qmp.execute('x-query-virtio-status', { path: `${devicePath}/virtio-backend` });
  } catch (error) {
    if (error instanceof QmpError) return null;
    throw error;
  }
  const { data } = virtioStatus.safeParse(answer);
  if (data === undefined) return null;
  const guest = data['guest-features'];
  return {
    features: [...(guest['dev-features'] ?? []), ...(guest.transports ?? [])].map(nameOf),
    driverReady: data.status.statuses.some(status => nameOf(status) === 'VIRTIO_CONFIG_S_DRIVER_OK'),
    broken: data.broken,
  };
}

// Migration

type MigrationCapability =
  | 'multifd'
  | 'events'
  | 'xbzrle'
  | 'zero-copy-send'
  | 'postcopy-ram'
  | 'release-ram';

export const setMigrationCapabilities = (
  qmp: QmpExecutor,
  capabilities: Readonly<Partial<Record<MigrationCapability, boolean>>>,
) =>
  tell(qmp, 'migrate-set-capabilities', {
    capabilities: Object.entries(capabilities).map(([capability, state]) => ({ capability, state })),
  });

interface MigrationParameters {
  /** Bytes a second. */
  readonly 'max-bandwidth'?: number;
  /** Milliseconds. */
  readonly 'downtime-limit'?: number;
  readonly 'multifd-channels'?: number;
  /** Bytes a second; 0 for no limit. */
  readonly 'max-postcopy-bandwidth'?: number;
}

export const setMigrationParameters = (qmp: QmpExecutor, parameters: MigrationParameters) =>
  tell(qmp, 'migrate-set-parameters', { ...parameters });

/** Starts an outgoing migration to `uri`, for example `tcp:HOST:PORT`, `unix:PATH` or `exec:COMMAND`. */
export const migrate = (qmp: QmpExecutor, uri: string) => tell(qmp, 'migrate', { uri });
/** For a QEMU that was started with `-incoming defer`. */
export const migrateIncoming = (qmp: QmpExecutor, uri: string) => tell(qmp, 'migrate-incoming', { uri });
/** The guest runs at its destination now, and gets the rest there. */
export const startPostcopy = (qmp: QmpExecutor) => tell(qmp, 'migrate-start-postcopy');
export const continueGuest = (qmp: QmpExecutor) => tell(qmp, 'cont');
export const cancelMigration = (qmp: QmpExecutor) => tell(qmp, 'migrate_cancel');

const migrationRam = z.object({
  total: z.number(),
  transferred: z.number(),
  remaining: z.number(),
  duplicate: z.number(),
  normal: z.number(),
  'page-size': z.number(),
  'dirty-sync-count': z.number(),
  'dirty-pages-rate': z.number().optional(),
  mbps: z.number(),
  'multifd-bytes': z.number().optional(),
});

const migrationInfo = z.object({
  status: z.string().optional(),
  'total-time': z.number().optional(),
  'setup-time': z.number().optional(),
  downtime: z.number().optional(),
  'expected-downtime': z.number().optional(),
  'error-desc': z.string().optional(),
  /** Of a QEMU that waits for a guest over sockets. */
  'socket-address': z.array(z.object({ type: z.string(), port: z.string().optional() })).optional(),
  ram: migrationRam.optional(),
});

/** As QEMU says it; without `status` there never was a migration. */
export type MigrationInfo = z.infer<typeof migrationInfo>;

export const queryMigration = (qmp: QmpExecutor) => ask(qmp, migrationInfo, 'query-migrate');

// Events

const eventData = {
  BALLOON_CHANGE: z.object({ actual: z.number() }),
  MIGRATION: z.object({ status: z.string() }),
  SHUTDOWN: z.object({ guest: z.boolean(), reason: z.string() }),
  RESET: z.object({ guest: z.boolean(), reason: z.string() }),
  STOP: z.object({}),
  RESUME: z.object({}),
} as const;

type QemuEventName = keyof typeof eventData;
type QemuEventData<N extends QemuEventName> = z.infer<(typeof eventData)[N]>;

/** The data of `event` if it is called `name` and has the shape that this name promises, else undefined. */
function eventOf<N extends QemuEventName>(event: QmpEvent, name: N): QemuEventData<N> | undefined {
  if (event.name !== name) return undefined;
  return eventData[name].safeParse(event.data).data as QemuEventData<N> | undefined;
}

interface EventSource {
  onEvent(listener: (event: QmpEvent) => void): () => void;
}

/** Calls `listener` with the data of every event called `name`, until the returned function is called. */
export function onQemuEvent<N extends QemuEventName>(
  source: EventSource,
  name: N,
  listener: (data: QemuEventData<N>, event: QmpEvent) => void,
): () => void {
  return source.onEvent(event => {
    const data = eventOf(event, name);
    if (data !== undefined) listener(data, event);
  });
}
