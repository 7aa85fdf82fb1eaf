/** What the HTTP API answers of a fleet, as zod schemas; see control/fleet.ts for what fields mean. */
import { z } from '@hono/zod-openapi';
import {
  FLEET_HOST_STATES,
  FLEET_STATES,
  type FleetGuestView,
  type FleetHostView,
  type FleetMove,
  type FleetPicture,
  type FleetRecord,
} from '../../control/fleet.ts';
import { bytes, count, milliseconds, mirror, orNull, unknownable } from './values.ts';

const NAME_LENGTH_MAX = 128;

const FleetGuestSchema = mirror<FleetGuestView>()(
  z
    .object({
      name: z.string(),
      memoryBytes: bytes,
      residentBytes: bytes.openapi({ description: 'What its host holds for it.' }),
      needBytes: bytes,
      dirtyBytesPerSecond: unknownable.openapi({
        description: 'What it writes to, a second; null when it is not known.',
      }),
      obstacle: z.string().nullable().openapi({ description: 'Why it cannot be moved.' }),
      to: z.string().nullable().openapi({ description: 'The host that it is moving to.' }),
    })
    .openapi('FleetGuest'),
);

const FleetHostSchema = mirror<FleetHostView>()(
  z
    .object({
      name: z.string(),
      state: z.enum(FLEET_HOST_STATES).openapi({
        description:
          '`steady`: its guests’ needs fit. `short`: they do not. `draining`: it is to be empty. `empty`: it drains and has no guests left. `silent`: its report stands still. `unseen`: its report was found stored, and may be of any age. `implausible`: its figures make no sense.',
      }),
      leads: z.boolean(),
      ageMs: milliseconds.nullable().openapi({
        description: 'Since its report was seen to change; null where it was only found stored.',
      }),
      memoryBytes: bytes.openapi({ description: 'What guests and reserve may have together.' }),
      reserveBytes: bytes,
      residentBytes: bytes.openapi({ description: 'What it holds for its guests.' }),
      needBytes: bytes,
      incomingBytes: bytes.openapi({ description: 'Kept for guests on their way to it.' }),
      shortBytes: bytes,
      guestCount: count,
      guests: orNull(z.array(FleetGuestSchema)).openapi({
        description: 'Null where they were not asked for, and are too many to be told unasked.',
      }),
    })
    .openapi('FleetHost'),
);

const FleetMoveSchema = mirror<FleetMove>()(
  z
    .object({
      order: z.string(),
      guest: z.string(),
      from: z.string(),
      to: z.string(),
      why: z.string().nullable(),
      status: z.string(),
      sentBytes: unknownable,
      remainingBytes: unknownable,
    })
    .openapi('FleetMove'),
);

const FleetRecordSchema = mirror<FleetRecord>()(
  z
    .object({
      sequence: count,
      timeMs: z.number().openapi({ description: 'Milliseconds since the epoch, by the server of NATS.' }),
      words: z.string(),
    })
    .openapi('FleetRecord'),
);

export const FleetPictureSchema = mirror<FleetPicture>()(
  z
    .object({
      state: z.enum(FLEET_STATES).openapi({
        description:
          '`none`: what answers looks at no fleet. `silent`: the fleet does not answer; all is as it was seen last.',
      }),
      name: z.string().nullable(),
      trouble: z.string().nullable(),
      seenAgoMs: milliseconds.nullable(),
      leader: z.string().nullable(),
      epoch: count.nullable(),
      hosts: z.array(FleetHostSchema),
      moves: z.array(FleetMoveSchema),
      events: z.array(FleetRecordSchema).openapi({ description: 'Of the audit stream, newest first.' }),
      reportsRefused: count,
    })
    .openapi('FleetPicture'),
);

export const FleetQuerySchema = z.object({
  host: z
    .string()
    .min(1)
    .max(NAME_LENGTH_MAX)
    .optional()
    .openapi({ description: 'A host whose guests are told, also where those of all hosts are too many.' }),
});
