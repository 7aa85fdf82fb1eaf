/**
 * Everything that crosses the wire of the HTTP API, as zod schemas: they validate requests, they are the
 * source of the OpenAPI document, and the compiler holds them to the types of the control plane. What the
 * fields mean is said once, in `daemon/control.ts`; here is what a reader of the document needs.
 */
import { z } from '@hono/zod-openapi';
import {
  type DaemonStatus,
  DISCARD_MODES,
  DURATION_BOUNDS_MS,
  type Durations,
  GUEST_REQUESTS,
  type GuestCounters,
  type GuestEvent,
  type GuestStatistics,
  type GuestStatus,
  type HintStatus,
  type HostPressure,
  type HostStatus,
  type RequestAnswer,
  type StatisticsSample,
  type TargetProgress,
} from '../daemon/control.ts';
import { MAP_CELLS_MAX, type MapRegion, type MemoryMap } from '../daemon/memory-map.ts';
import type {
  MigrationAnswer,
  MigrationOrder,
  MigrationReport,
  MigrationState,
  MigrationStatus,
} from '../daemon/migrations.ts';
import { PAGE_SIZE } from '../memory/page.ts';

/**
 * Holds a schema to a type while compiling, in both directions: every field of the type, and none besides.
 * At run time it is the identity.
 */
const mirror =
  <Type>() =>
  <Schema extends z.ZodType<Type>>(
    schema: Schema & (keyof z.output<Schema> extends keyof Type ? unknown : never),
  ): Schema =>
    schema;

const count = z.number().int().nonnegative();
const bytes = count.openapi({ description: 'Bytes.' });
const milliseconds = z.number().nonnegative().openapi({ description: 'Milliseconds.' });
/** Null, or what has a name in the document: `nullable()` would put the null into what the name stands for. */
const orNull = <Schema extends z.ZodType>(schema: Schema) => z.union([schema, z.null()]);
const unknownable = bytes.nullable().openapi({ description: 'Bytes; null when it is not known.' });

/** Longest name that a guest may have, so that it fits a URL, a label and a column. */
export const GUEST_NAME_LENGTH_MAX = 64;
export const GUEST_NAME = new RegExp(`^[A-Za-z0-9][A-Za-z0-9._-]{0,${GUEST_NAME_LENGTH_MAX - 1}}$`);

/** Longest that a request may ask the daemon to wait for a guest. */
export const GUEST_TIMEOUT_MS_MAX = 30_000;
/** An hour; a poll rarer than that is no poll. */
export const POLL_INTERVAL_MS_MAX = 3_600_000;
/** The target is 32 bits of 4 KiB pages in the device's configuration (VIRTIO 1.4, 5.5.4). */
export const TARGET_BYTES_MAX = (2 ** 32 - 1) * PAGE_SIZE;

export const DurationsSchema = mirror<Durations>()(
  z
    .object({
      counts: z
        .array(count)
        .length(DURATION_BOUNDS_MS.length + 1)
        .readonly()
        .openapi({
          description: `How many took up to ${DURATION_BOUNDS_MS.join(', ')} ms, each of them counted once, and how many longer.`,
        }),
      sumMs: milliseconds.openapi({ description: 'Milliseconds that all of them took together.' }),
    })
    .openapi('Durations'),
);

export const GuestCountersSchema = mirror<GuestCounters>()(
  z
    .object({
      buffers: count,
      inflateBuffers: count,
      deflateBuffers: count,
      reportingBuffers: count,
      hintBuffers: count,
      statsBuffers: count,
      acknowledgeTimes: DurationsSchema.openapi({
        description: 'How long buffers of the inflate and deflate queues were with the device.',
      }),
      listBytes: bytes,
      decodeMs: milliseconds,
      pages: count.openapi({ description: 'Pages named in inflate lists.' }),
      deflatedPages: count,
      reportedPages: count,
      hintedPages: count,
      keptPages: count.openapi({
        description: 'Deflated pages that were still pending and so kept their memory.',
      }),
      runs: count.openapi({ description: 'Runs that inflated and reported pages were joined into.' }),
      punches: count.openapi({ description: 'Calls that gave memory back to the host.' }),
      punchFailures: count,
      discardMs: milliseconds,
      discardTimes: DurationsSchema.openapi({ description: 'How long each punch took.' }),
      notifications: count.openapi({ description: 'Interrupts sent to the guest.' }),
      kicks: count.openapi({ description: 'Kicks received from the guest.' }),
      badBuffers: count.openapi({ description: 'Buffers refused as nonsense and returned with length 0.' }),
      badPages: count.openapi({ description: 'Listed pages that are no memory of the guest.' }),
      badRequests: count.openapi({
        description: 'Requests of the front-end that were refused, or said what cannot be.',
      }),
      brokenRings: count.openapi({ description: 'Rings stopped because their indices were nonsense.' }),
      resets: count,
      connections: count,
    })
    .openapi('GuestCounters', {
      description: 'Totals since the guest’s socket was opened.',
    }),
);

export const HintStatusSchema = mirror<HintStatus>()(
  z
    .object({
      state: z.enum(['unsupported', 'idle', 'requested', 'running', 'stopped', 'done']),
      commandId: count.nullable(),
      hintedBytes: bytes.openapi({ description: 'Distinct bytes hinted in this session.' }),
      ranges: count,
    })
    .openapi('HintStatus'),
);

export const TargetProgressSchema = mirror<TargetProgress>()(
  z
    .object({
      reachedMs: milliseconds.nullable().openapi({
        description: 'From the request to the guest’s own completion; null while under way.',
      }),
      drainedMs: milliseconds.nullable().openapi({
        description: 'From the request until nothing was pending after that; null while under way.',
      }),
    })
    .openapi('TargetProgress'),
);

export const DiscardModeSchema = z.enum(DISCARD_MODES).openapi('DiscardMode', {
  description: 'When inflated pages go back to the host. `per-page` is the naive way, for comparison.',
});

export const GuestStatusSchema = mirror<GuestStatus>()(
  z
    .object({
      name: z.string(),
      socketPath: z.string().nullable(),
      connected: z.boolean(),
      profile: z.string().nullable().openapi({ example: 'virtio' }),
      features: z.array(z.string()).readonly().nullable(),
      discard: orNull(DiscardModeSchema),
      memoryBytes: unknownable,
      targetBytes: unknownable.openapi({ description: 'What the balloon should hold.' }),
      actualBytes: unknownable.openapi({
        description: 'What the guest says its balloon holds; never trusted.',
      }),
      balloonedBytes: unknownable.openapi({
        description: 'The host’s own account of what the guest gave away and has not taken back.',
      }),
      pendingBytes: unknownable.openapi({ description: 'Given away, not yet given back to the host.' }),
      discardedBytes: unknownable.openapi({ description: 'Total given back to the host for inflation.' }),
      reportedBytes: unknownable.openapi({
        description: 'Total given back to the host for free page reporting.',
      }),
      residentBytes: unknownable.openapi({ description: 'What the host holds for the guest right now.' }),
      counters: orNull(GuestCountersSchema),
      progress: orNull(TargetProgressSchema),
      hint: orNull(HintStatusSchema),
      lastError: z.string().nullable(),
    })
    .openapi('GuestStatus', {
      description: 'Null is what the guest’s hypervisor does not tell; our own device tells everything.',
    }),
);

export const GuestListSchema = mirror<{ readonly guests: readonly GuestStatus[] }>()(
  z.object({ guests: z.array(GuestStatusSchema).readonly() }).openapi('GuestList'),
);

const statistic = z.number().nullable();

export const GuestStatisticsSchema = mirror<GuestStatistics>()(
  z
    .object({
      swapInBytes: statistic,
      swapOutBytes: statistic,
      majorFaults: statistic,
      minorFaults: statistic,
      freeBytes: statistic,
      totalBytes: statistic,
      availableBytes: statistic,
      cacheBytes: statistic,
      hugetlbAllocations: statistic,
      hugetlbFailures: statistic,
      oomKills: statistic,
      allocationStalls: statistic,
      asyncScannedPages: statistic,
      directScannedPages: statistic,
      asyncReclaimedPages: statistic,
      directReclaimedPages: statistic,
    })
    .openapi('GuestStatistics', {
      description: 'As the guest counts; null where it did not say.',
    }),
);

export const StatisticsSampleSchema = mirror<StatisticsSample>()(
  z
    .object({
      statistics: GuestStatisticsSchema,
      ageMs: milliseconds
        .nullable()
        .openapi({ description: 'Age of the sample; null when the guest sent none.' }),
    })
    .openapi('StatisticsSample'),
);

export const SampleListSchema = mirror<{ readonly samples: Readonly<Record<string, StatisticsSample>> }>()(
  z
    .object({ samples: z.record(z.string(), StatisticsSampleSchema).readonly() })
    .openapi('SampleList', { description: 'The newest statistics by the name of the guest.' }),
);

export const HostPressureSchema = mirror<HostPressure>()(
  z
    .object({
      some10Percent: z.number(),
      some60Percent: z.number(),
      full10Percent: z.number(),
      full60Percent: z.number(),
    })
    .openapi('HostPressure', {
      description:
        'Share of the last 10 and 60 seconds in which some programs, or all that could have run, waited for memory.',
    }),
);

export const HostStatusSchema = mirror<HostStatus>()(
  z
    .object({
      totalBytes: unknownable,
      availableBytes: unknownable,
      sharedBytes: unknownable,
      swapTotalBytes: unknownable,
      swapFreeBytes: unknownable,
      pressure: orNull(HostPressureSchema),
    })
    .openapi('HostStatus'),
);

export const MapRegionSchema = mirror<MapRegion>()(
  z.object({ guestAddress: count, bytes }).openapi('MapRegion'),
);

const layersOf = <Value extends z.ZodType>(value: Value) =>
  z
    .object({
      resident: value,
      ballooned: value,
      pending: value,
      reported: value,
      hinted: value,
      dirty: value,
    })
    .readonly();

export const MemoryMapSchema = mirror<MemoryMap>()(
  z
    .object({
      memoryBytes: bytes,
      fromBytes: bytes,
      bytes,
      cellBytes: bytes.openapi({
        description: 'Bytes of memory in a cell: a power of two, a page at least.',
      }),
      regions: z.array(MapRegionSchema).readonly(),
      totals: layersOf(unknownable),
      layers: layersOf(
        z.string().nullable().openapi({
          description:
            'In base64, pairs of a share (0 none of the cell, 255 all of it) and the length of its run (LEB128).',
        }),
      ),
      residentAgeMs: milliseconds.nullable().openapi({
        description: 'Age of the oldest part of the resident layer; null when nobody has looked everywhere.',
      }),
    })
    .openapi('MemoryMap', {
      description:
        'Guest memory in cells. Addresses count through the regions in rising order, as if there were no gaps.',
    }),
);

export const DaemonStatusSchema = mirror<DaemonStatus>()(
  z
    .object({
      version: z.string(),
      pid: count,
      uptimeMs: milliseconds,
      residentBytes: bytes,
      cpuUserMs: milliseconds,
      cpuSystemMs: milliseconds,
      gcPauseMaxMs: milliseconds.openapi({
        description: 'Longest pause of a data-plane thread for garbage collection.',
      }),
    })
    .openapi('DaemonStatus'),
);

/** In the order in which a guest's life has them. */
const GUEST_EVENT_TYPES = [
  'connected',
  'disconnected',
  'ready',
  'reset',
  'target',
  'actual',
  'target-reached',
  'statistics',
  'hint',
  'migration',
  'error',
] as const;

export const GuestEventSchema = mirror<GuestEvent>()(
  z
    .object({
      guest: z.string(),
      type: z.enum(GUEST_EVENT_TYPES),
      timeMs: z.number().openapi({ description: 'Milliseconds since the epoch.' }),
      detail: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
    })
    .openapi('GuestEvent'),
);

export const GuestPatchSchema = z
  .strictObject({
    targetBytes: count
      .max(TARGET_BYTES_MAX)
      .multipleOf(PAGE_SIZE)
      .optional()
      .openapi({
        description: `What the balloon should hold, in whole pages of ${PAGE_SIZE} bytes.`,
        // The generator knows minimum and maximum, but not this.
        multipleOf: PAGE_SIZE,
        example: 2 ** 30,
      }),
    discard: DiscardModeSchema.optional(),
    pollIntervalMs: count
      .max(POLL_INTERVAL_MS_MAX)
      .optional()
      .openapi({ description: 'Interval at which statistics are asked for; 0 turns polling off.' }),
  })
  .refine(patch => Object.keys(patch).length > 0, { error: 'name at least one thing to change' })
  .openapi('GuestPatch', { minProperties: 1 });

export type GuestPatch = z.input<typeof GuestPatchSchema>;

export const HintRequestSchema = z
  .strictObject({ action: z.enum(['start', 'stop', 'done']) })
  .openapi('HintRequest');

export const GuestRequestSchema = z
  .strictObject({
    request: z.enum(GUEST_REQUESTS),
    timeoutMs: count
      .max(GUEST_TIMEOUT_MS_MAX)
      .optional()
      .openapi({ description: 'Longest wait for the guest’s answer.' }),
  })
  .openapi('GuestRequest', {
    description: 'What a guest of an ABI with a request queue is asked for; shrink names unused pages, too.',
  });

export const RequestAnswerSchema = mirror<RequestAnswer>()(
  z
    .object({
      request: z.enum(GUEST_REQUESTS),
      unusedBytes: bytes.openapi({ description: 'Distinct bytes that the guest named as unused.' }),
      lists: count.openapi({ description: 'Page lists of the answer.' }),
      elapsedMs: milliseconds,
    })
    .openapi('RequestAnswer'),
);

export const MigrationStateSchema = mirror<MigrationState>()(
  z
    .object({
      status: z.string().openapi({ example: 'copying' }),
      elapsedMs: milliseconds,
      round: count.nullable(),
      totalBytes: unknownable,
      sentBytes: unknownable,
      remainingBytes: unknownable,
      bytesPerSecond: z.number().nullable(),
      expectedDowntimeMs: milliseconds.nullable(),
      guestShare: z.number().nullable().openapi({ description: 'The share of its time that the guest has.' }),
    })
    .openapi('MigrationState'),
);

export const MigrationReportSchema = mirror<MigrationReport>()(
  z
    .object({
      totalMs: milliseconds,
      downtimeMs: milliseconds.nullable(),
      rounds: count,
      bytes,
      pages: count.openapi({ description: 'Pages sent with their contents, each time that they were.' }),
      zeroPages: count,
      resentPages: count.nullable(),
      freePages: count.nullable().openapi({ description: 'Never sent, for the guest named them as free.' }),
      balloonPages: count.nullable(),
      unbackedPages: count.nullable(),
      hintRaces: count.nullable().openapi({
        description: 'Pages written after the guest had named them as free, and sent for it.',
      }),
    })
    .openapi('MigrationReport'),
);

export const MigrationStatusSchema = mirror<MigrationStatus>()(
  z
    .object({
      to: z.string(),
      state: MigrationStateSchema,
      report: orNull(MigrationReportSchema),
      error: z.object({ code: z.string(), message: z.string() }).nullable(),
    })
    .openapi('MigrationStatus', { description: 'A migration under way, or the last one.' }),
);

export const MigrationAnswerSchema = mirror<MigrationAnswer>()(
  z
    .object({
      migration: orNull(MigrationStatusSchema),
      obstacle: z
        .string()
        .nullable()
        .openapi({ description: 'Why the guest cannot be moved from here at all; null when it can.' }),
    })
    .openapi('MigrationAnswer'),
);

const MIGRATION_CONNECTIONS_MAX = 64;
const MIGRATION_ROUNDS_MAX = 10_000;
const DOWNTIME_MS_MAX = 3_600_000;

export const MigrationOrderSchema = mirror<MigrationOrder>()(
  z
    .strictObject({
      to: z.string().min(1).max(512).openapi({ example: 'tcp:host2:4444' }),
      connections: count.min(1).max(MIGRATION_CONNECTIONS_MAX).exactOptional(),
      bandwidthBytesPerSecond: count.min(1).exactOptional(),
      downtimeMsMax: count.max(DOWNTIME_MS_MAX).exactOptional(),
      roundsMax: count.min(1).max(MIGRATION_ROUNDS_MAX).exactOptional(),
      autoConverge: z.boolean().exactOptional(),
      channel: z.string().max(64).exactOptional(),
      compress: z.boolean().exactOptional(),
    })
    .openapi('MigrationOrder'),
);

export const GuestParamsSchema = z.object({
  name: z
    .string()
    .min(1)
    .max(GUEST_NAME_LENGTH_MAX)
    .openapi({ param: { name: 'name', in: 'path' }, description: 'The guest’s name.' }),
});

/** A query value is text: digits only, so that `1e3`, ` 5` and an empty value are refused rather than guessed at. */
const milliQuery = (max: number, description: string) =>
  z
    .string()
    .regex(/^\d{1,9}$/, 'must be a whole number of milliseconds')
    .transform(Number)
    .pipe(z.number().max(max))
    .optional()
    .openapi({ type: 'integer', minimum: 0, maximum: max, description });

export const StatisticsQuerySchema = z.object({
  fresh_ms: milliQuery(
    POLL_INTERVAL_MS_MAX,
    'Ask the guest for a new sample unless the newest is no older than this. Left out: the newest, whatever its age.',
  ),
  timeout_ms: milliQuery(GUEST_TIMEOUT_MS_MAX, 'Longest wait for the guest’s answer.'),
});

/** Digits only, as in {@link milliQuery}; any size that a number holds exactly. */
const countQuery = (min: number, max: number, description: string) =>
  z
    .string()
    .regex(/^\d{1,16}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().min(min).max(max))
    .optional()
    .openapi({ type: 'integer', minimum: min, maximum: max, description });

export const MapQuerySchema = z.object({
  from: countQuery(0, Number.MAX_SAFE_INTEGER, 'Where to begin, in bytes; rounded down to whole cells.'),
  bytes: countQuery(1, Number.MAX_SAFE_INTEGER, 'How much to cover; all from there when left out.'),
  cells: countQuery(1, MAP_CELLS_MAX, 'Cells at most; they are as small as that allows.'),
});

export const EventsQuerySchema = z.object({
  guest: z
    .string()
    .max(GUEST_NAME_LENGTH_MAX)
    .optional()
    .openapi({ description: 'Only events of this guest.' }),
  types: z
    .string()
    .transform(text => text.split(','))
    .pipe(z.array(z.enum(GUEST_EVENT_TYPES)))
    .optional()
    .openapi({
      type: 'string',
      description:
        'Only events of these types, with commas between them. A guest that moves fast tells `actual` often.',
      example: 'target,target-reached,error',
    }),
});

export const ProblemSchema = z
  .object({
    type: z.string().openapi({ example: 'urn:aerostat:problem:unknown-guest' }),
    title: z.string(),
    status: count,
    detail: z.string(),
    code: z.string().openapi({ example: 'AEROSTAT_UNKNOWN_GUEST', description: 'Stable; for programs.' }),
    errors: z
      .array(z.object({ path: z.string(), message: z.string() }))
      .optional()
      .openapi({ description: 'What is wrong where in the request.' }),
  })
  .openapi('Problem', { description: 'A problem document (RFC 9457).' });

export type Problem = z.output<typeof ProblemSchema>;
