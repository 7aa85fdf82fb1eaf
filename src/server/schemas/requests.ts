/** What may be asked of the HTTP API, as zod schemas: they validate requests, and are the source of its document. */
import { z } from '@hono/zod-openapi';
import { GUEST_REQUESTS } from '../../control/contract.ts';
import {
  GUEST_TIMEOUT_MS_MAX,
  HINT_LIMIT_MS,
  HINT_LIMIT_MS_MAX,
  LEASE_MS_MAX,
  POLL_INTERVAL_MS_MAX,
  TARGET_BYTES_MAX,
} from '../../control/limits.ts';
import { MAP_CELLS_MAX } from '../../control/memory-map.ts';
import type { MigrationOrder } from '../../control/migrations.ts';
import { SILENCE_RULES } from '../../control/policy.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { CONNECTIONS_MAX, DOWNTIME_MS_MAX, ROUNDS_MAX } from '../../migration/limits.ts';
import { count, DiscardModeSchema, GUEST_EVENT_TYPES, mirror, omissible } from './values.ts';

/** Longest name that a guest may have, so that it fits a URL, a label and a column. */
export const GUEST_NAME_LENGTH_MAX = 64;

export const GuestPatchSchema = z
  .strictObject({
    targetBytes: omissible(
      count
        .max(TARGET_BYTES_MAX)
        .multipleOf(PAGE_SIZE)
        .openapi({
          description: `What the balloon should hold, in whole pages of ${PAGE_SIZE} bytes.`,
          // The generator knows minimum and maximum, but not this.
          multipleOf: PAGE_SIZE,
          example: 2 ** 30,
        }),
    ),
    memoryBytes: omissible(
      count.openapi({
        description:
          'What the guest is to keep, instead of targetBytes (both are refused): the target follows memory that is added or removed. A guest of QEMU’s has its target reckoned once.',
        example: 2 ** 30,
      }),
    ),
    lease: omissible(
      z
        .strictObject({
          forMs: count.min(1).max(LEASE_MS_MAX),
          onSilence: z.enum(SILENCE_RULES),
        })
        .openapi({
          description:
            'The target is a policy’s, for so long. When it is not renewed (POST /v1/leases), it stays (keep), or the guest gets all its memory back (release). Without a lease, a person set it.',
        }),
    ),
    force: omissible(
      z.boolean().openapi({
        description:
          'Sets the target also where the guest says that it cannot spare so much (AEROSTAT_UNCONFIRMED).',
      }),
    ),
    discard: omissible(DiscardModeSchema),
    pollIntervalMs: omissible(
      count
        .max(POLL_INTERVAL_MS_MAX)
        .openapi({ description: 'Interval at which statistics are asked for; 0 turns polling off.' }),
    ),
    persist: omissible(
      z.boolean().openapi({
        description: 'The definition of a domain of libvirt keeps target and interval, too; others refuse.',
      }),
    ),
  })
  .refine(patch => Object.keys(patch).length > 0, {
    error: 'name at least one thing to change',
  })
  .openapi('GuestPatch', { minProperties: 1 });

export const HintRequestSchema = z
  .strictObject({
    action: z.enum(['start', 'stop', 'done']),
    limitMs: omissible(
      count
        .min(1)
        .max(HINT_LIMIT_MS_MAX)
        .openapi({
          description: `Of a session that starts: it is ended after so long if no request ends it before; ${HINT_LIMIT_MS} when left out.`,
        }),
    ),
  })
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

export const MigrationOrderSchema = mirror<MigrationOrder>()(
  z
    .strictObject({
      to: z.string().min(1).max(512).openapi({ example: 'tcp:host2:4444' }),
      connections: omissible(count.min(1).max(CONNECTIONS_MAX)),
      bandwidthBytesPerSecond: omissible(count.min(1)),
      downtimeMsMax: omissible(count.max(DOWNTIME_MS_MAX)),
      roundsMax: omissible(count.min(1).max(ROUNDS_MAX)),
      autoConverge: omissible(z.boolean()),
      channel: omissible(z.string().max(64)),
      compress: omissible(z.boolean()),
      postcopyAfterRound: omissible(
        count.max(ROUNDS_MAX).openapi({
          description:
            'The guest runs at the destination after so many rounds, and gets the rest there; 0: at once.',
        }),
      ),
      recover: omissible(
        z
          .boolean()
          .openapi({ description: 'Reach the destination again of a guest that waits there for pages.' }),
      ),
      persist: omissible(
        z.boolean().openapi({
          description:
            'The definition of a domain of libvirt goes along: persistent there, and not here any more.',
        }),
      ),
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

export const UpgradeOrderSchema = mirror<{ readonly timeoutMs?: number | undefined }>()(
  z
    .strictObject({
      timeoutMs: omissible(
        count
          .min(1)
          .max(GUEST_TIMEOUT_MS_MAX)
          .openapi({ description: 'How long the new process may take until it serves.' }),
      ),
    })
    .openapi('UpgradeOrder'),
);

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
