/**
 * What the HTTP API answers, as zod schemas: they are the source of the OpenAPI document, and the compiler holds them to
 * the types of the control plane. What the fields mean is said once, in `control/contract.ts`; here is what a reader of the
 * document needs.
 */
import { z } from '@hono/zod-openapi';
import {
  type DaemonStatus,
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
  type StuckStatus,
  type TargetOwner,
  type TargetProgress,
  type UpgradeAnswer,
} from '../../control/contract.ts';
import type { MapRegion, MemoryMap } from '../../control/memory-map.ts';
import type {
  MigrationAnswer,
  MigrationPauseStep,
  MigrationReport,
  MigrationState,
  MigrationStatus,
  PostcopyState,
} from '../../control/migrations.ts';
import {
  bytes,
  count,
  DiscardModeSchema,
  GUEST_EVENT_TYPES,
  GuestStateSchema,
  MemoryPlaceSchema,
  milliseconds,
  mirror,
  omissible,
  orNull,
  unknownable,
} from './values.ts';

const DurationsSchema = mirror<Durations>()(
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

const GuestCountersSchema = mirror<GuestCounters>()(
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
      hugePagesCut: count.openapi({
        description:
          'Transparent huge pages of which a part was given back, so that the host split them; counted where the memory is known to be in such.',
      }),
      discardMs: milliseconds,
      discardTimes: DurationsSchema.openapi({ description: 'How long each punch took.' }),
      notifications: count.openapi({ description: 'Interrupts sent to the guest.' }),
      kicks: count.openapi({ description: 'Kicks received from the guest.' }),
      badBuffers: count.openapi({
        description: 'Buffers refused as nonsense and returned with length 0.',
      }),
      badPages: count.openapi({ description: 'Listed pages that are no memory of the guest.' }),
      unknownPages: count,
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
      heldBytes: bytes.openapi({ description: 'What the guest keeps out of use until the session is done.' }),
      endsInMs: milliseconds
        .nullable()
        .openapi({ description: 'When the session is ended by its time limit; null for one that has none.' }),
    })
    .openapi('HintStatus'),
);

const TargetProgressSchema = mirror<TargetProgress>()(
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

const TargetOwnerSchema = mirror<TargetOwner>()(
  z
    .object({
      by: z.enum(['start', 'person', 'policy']).openapi({
        description:
          '`start`: the daemon’s, since it started. `person`: of an order. `policy`: of an order with a lease.',
      }),
      untilMs: z
        .number()
        .nullable()
        .openapi({ description: 'Until when the lease lasts, in milliseconds since the epoch.' }),
      lapsed: z.boolean().openapi({ description: 'The lease has run out: the policy is silent.' }),
    })
    .openapi('TargetOwner', { description: 'Whose the target is.' }),
);

const StuckStatusSchema = mirror<StuckStatus>()(
  z
    .object({
      sinceMs: z.number().openapi({ description: 'Milliseconds since the epoch.' }),
      forMs: milliseconds,
      swings: z.boolean().openapi({
        description:
          'The guest gave memory and took it back again and again; its driver is shown less than the target.',
      }),
      retryInMs: milliseconds
        .nullable()
        .openapi({ description: 'When the driver is shown all of the target again; null while it is.' }),
    })
    .openapi('StuckStatus', { description: 'The balloon gets no nearer to its target.' }),
);

export const GuestStatusSchema = mirror<GuestStatus>()(
  z
    .object({
      name: z.string(),
      socketPath: z.string().nullable(),
      connected: z.boolean(),
      state: orNull(GuestStateSchema),
      profile: z.string().nullable().openapi({ example: 'virtio' }),
      features: z.array(z.string()).readonly().nullable(),
      discard: orNull(DiscardModeSchema),
      memoryBytes: unknownable,
      memoryPlace: orNull(MemoryPlaceSchema),
      memorySealed: z
        .boolean()
        .nullable()
        .openapi({ description: 'Whether its front-end can no longer shrink its memory under the daemon.' }),
      targetBytes: unknownable.openapi({ description: 'What the balloon should hold.' }),
      wishedMemoryBytes: unknownable.openapi({
        description:
          'What the guest is to keep, where its target was given like that (memoryBytes): the target follows memory that is added or removed.',
      }),
      targetOwner: orNull(TargetOwnerSchema),
      shownTargetBytes: unknownable.openapi({
        description:
          'What the driver is shown of the target: less while the guest cannot hold it, and during its boot grace.',
      }),
      actualBytes: unknownable.openapi({
        description: 'What the guest says its balloon holds; never trusted.',
      }),
      removedBytes: unknownable.openapi({
        description:
          'What was in the balloon of memory that was taken out of the guest since; it counts in nothing else.',
      }),
      balloonedBytes: unknownable.openapi({
        description:
          'The host’s own account of what the guest gave away and has not taken back; null when it began in the middle, as after a restart of the daemon.',
      }),
      incompleteBytes: unknownable.openapi({
        description:
          'The part of it that waits for whole huge pages: the guest has not given the rest of them, and the host keeps them.',
      }),
      granularityBytes: unknownable.openapi({
        description: 'The guest gives and takes whole pieces of this size, as its page lists show.',
      }),
      pendingBytes: unknownable.openapi({ description: 'Given away, not yet given back to the host.' }),
      discardedBytes: unknownable.openapi({ description: 'Total given back to the host for inflation.' }),
      reportedBytes: unknownable.openapi({
        description: 'Total given back to the host for free page reporting.',
      }),
      residentBytes: unknownable.openapi({
        description:
          'What the host holds for the guest right now. Of memory in a file on disk (ext4, overlay and so on): the blocks that the file has there; what of it is in the page cache comes besides, and is counted nowhere.',
      }),
      counters: orNull(GuestCountersSchema),
      progress: orNull(TargetProgressSchema),
      stuck: orNull(StuckStatusSchema),
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

const GuestStatisticsSchema = mirror<GuestStatistics>()(
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
      balloonedBytes: unknownable.openapi({
        description:
          'What the balloon held when the guest took the sample; null when that is not known. What is available and this add up to what the guest can spare.',
      }),
    })
    .openapi('StatisticsSample'),
);

export const SampleListSchema = mirror<{ readonly samples: Readonly<Record<string, StatisticsSample>> }>()(
  z
    .object({ samples: z.record(z.string(), StatisticsSampleSchema).readonly() })
    .openapi('SampleList', { description: 'The newest statistics by the name of the guest.' }),
);

const HostPressureSchema = mirror<HostPressure>()(
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

export const UpgradeAnswerSchema = mirror<UpgradeAnswer>()(
  z
    .object({
      pid: count.openapi({ description: 'The process that serves now.' }),
      version: z.string(),
      guests: count.openapi({ description: 'That were handed over.' }),
      handOverMs: milliseconds.openapi({
        description:
          'From when the first of them stood still until all were served. One stands still for a part of it.',
      }),
    })
    .openapi('UpgradeAnswer'),
);

const MapRegionSchema = mirror<MapRegion>()(z.object({ guestAddress: count, bytes }).openapi('MapRegion'));

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
      unseenBytes: bytes.openapi({
        description:
          'What has not been looked at yet: the resident layer is empty there, whatever the host holds. Ask again.',
      }),
      residentAgeMs: milliseconds.nullable().openapi({
        description:
          'Age of the oldest part of the resident layer; null when parts have not been looked at yet.',
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
      startedAtMs: z.number().openapi({ description: 'Milliseconds since the epoch.' }),
      uptimeMs: milliseconds,
      residentBytes: bytes,
      cpuUserMs: milliseconds,
      cpuSystemMs: milliseconds,
      gcPauseMaxMs: milliseconds.openapi({
        description: 'Longest pause of a data-plane thread for garbage collection.',
      }),
      descriptors: z
        .object({ open: count, max: count })
        .nullable()
        .openapi({ description: 'Descriptors of the process, and how many it may have.' }),
      kept: z
        .boolean()
        .nullable()
        .openapi({ description: 'Whether a keeper has what its guests need when the daemon ends.' }),
    })
    .openapi('DaemonStatus'),
);

export const HealthSchema = z.object({ status: z.literal('ok') }).openapi('Health');

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

const PostcopyStateSchema = mirror<PostcopyState>()(
  z
    .object({
      missingBytes: bytes,
      faults: count,
      longestFaultMs: milliseconds
        .nullable()
        .openapi({ description: 'Null where a hypervisor does not tell.' }),
      recoveries: count,
      broken: z.string().nullable().openapi({ description: 'Why no page comes at the moment.' }),
    })
    .openapi('PostcopyState', {
      description: 'Of a guest that runs at its destination before all of its memory is there.',
    }),
);

const MigrationStateSchema = mirror<MigrationState>()(
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
      postcopy: omissible(orNull(PostcopyStateSchema)),
    })
    .openapi('MigrationState'),
);

const MigrationReportSchema = mirror<MigrationReport>()(
  z
    .object({
      totalMs: milliseconds,
      downtimeMs: milliseconds.nullable(),
      rounds: count,
      bytes,
      pages: count.openapi({
        description: 'Pages sent with their contents, each time that they were.',
      }),
      zeroPages: count,
      resentPages: count.nullable(),
      freePages: count.nullable().openapi({ description: 'Never sent, for the guest named them as free.' }),
      balloonPages: count.nullable(),
      unbackedPages: count.nullable(),
      hintRaces: count.nullable().openapi({
        description: 'Pages written after the guest had named them as free, and sent for it.',
      }),
      postcopy: omissible(orNull(PostcopyStateSchema)),
      pause: omissible(
        z.array(mirror<MigrationPauseStep>()(z.object({ step: z.string(), ms: milliseconds }))).openapi({
          description:
            'Where the downtime went: steps without a slash follow each other and add up to it, the others are parts of the next one without.',
          example: [
            { step: 'load/guest', ms: 1.2 },
            { step: 'load', ms: 3.4 },
          ],
        }),
      ),
    })
    .openapi('MigrationReport'),
);

export const MigrationStatusSchema = mirror<MigrationStatus>()(
  z
    .object({
      to: z.string().nullable().openapi({
        description: 'Null when another client of the guest’s hypervisor began it, and did not say.',
      }),
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
      dirtyBytesPerSecond: unknownable.openapi({
        description:
          'What the guest writes to, a second, since the question before; null when it is not known, as at the first question and during a migration.',
      }),
    })
    .openapi('MigrationAnswer'),
);

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
