/**
 * What the schemas of the API are made of, and how they are held to the types of the control plane.
 */

import { z } from '@hono/zod-openapi';
import { DISCARD_MODES, GUEST_STATES, MEMORY_PLACES } from '../../control/contract.ts';

/**
 * Holds a schema to a type while compiling, in both directions: every field of the type, and none besides.
 * At run time it is the identity.
 */
export const mirror =
  <Type>() =>
  <Schema extends z.ZodType<Type>>(
    schema: Schema & (keyof z.output<Schema> extends keyof Type ? unknown : never),
  ): Schema =>
    schema;

/**
 * What may be left out. The generator of the document takes what is `exactOptional()` for required, and JSON has no
 * `undefined` that `optional()` would let through.
 */
export const omissible = <Schema extends z.ZodType>(schema: Schema): z.ZodExactOptional<Schema> =>
  schema.optional() as unknown as z.ZodExactOptional<Schema>;

export const count = z.number().int().nonnegative();
export const bytes = count.openapi({ description: 'Bytes.' });
export const milliseconds = z.number().nonnegative().openapi({ description: 'Milliseconds.' });
/** Null, or what has a name in the document: `nullable()` would put the null into what the name stands for. */
export const orNull = <Schema extends z.ZodType>(schema: Schema) => z.union([schema, z.null()]);
export const unknownable = bytes.nullable().openapi({ description: 'Bytes; null when it is not known.' });

export const DiscardModeSchema = z.enum(DISCARD_MODES).openapi('DiscardMode', {
  description: 'When inflated pages go back to the host.',
});

export const MemoryPlaceSchema = z.enum(MEMORY_PLACES).openapi('MemoryPlace', {
  description:
    'What the guest’s memory lies in: memory of the host, huge pages, or a file on a disk (ext4, overlay and so on), of which `residentBytes` counts the blocks.',
});

export const GuestStateSchema = z.enum(GUEST_STATES).openapi('GuestState', {
  description:
    'Whether the guest can answer. `waiting`: no front-end is connected, or its QEMU has no balloon device; `no-driver`: no driver has started; `running`; `paused`: its hypervisor has stopped it, or its rings; `silent`: it does not answer. Null where its hypervisor does not tell.',
});

/** In the order in which a guest's life has them. */
export const GUEST_EVENT_TYPES = [
  'connected',
  'disconnected',
  'ready',
  'reset',
  'state',
  'target',
  'actual',
  'target-reached',
  'stuck',
  'statistics',
  'hint',
  'migration',
  'policy',
  'error',
] as const;
