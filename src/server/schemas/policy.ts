/** What the HTTP API is asked of a memory policy and answers, as zod schemas; see control/policy.ts for what fields mean. */
import { z } from '@hono/zod-openapi';
import { LEASE_MS_MAX } from '../../control/limits.ts';
import {
  type GuestPolicy,
  type GuestPolicyChanges,
  type GuestPolicyDecision,
  type GuestPolicySettings,
  type LeaseRenewal,
  type LeaseRenewalOrder,
  POLICY_BOUNDS,
  POLICY_HELDS,
  POLICY_MODES,
  POLICY_STATES,
  type PolicyBudget,
  type PolicyChanges,
  type PolicyHistory,
  type PolicyStatus,
  RESERVATION_MS,
  RESERVATION_MS_MAX,
  type Reservation,
  type ReservationOrder,
  SHARES_MAX,
  SILENCE_RULES,
} from '../../control/policy.ts';
import { GUEST_NAME_LENGTH_MAX } from './requests.ts';
import { bytes, count, milliseconds, mirror, omissible, orNull, unknownable } from './values.ts';

const moment = z.number().openapi({ description: 'Milliseconds since the epoch.' });

const PolicyModeSchema = z.enum(POLICY_MODES).openapi('PolicyMode', {
  description:
    '`auto`: the policy sets the guest’s target. `hold`: its target stays as it is. `off`: the policy leaves it alone.',
});

const PolicyBoundSchema = z.enum(POLICY_BOUNDS).openapi('PolicyBound', {
  description:
    'What bound what the guest is to keep. `room`: the host has memory for all that every guest may have. `surplus`: its need, and a part of what is left. `shares`: the guests need more than there is, it has its part by shares. `floor`: that part is below its floor, which it keeps. `fixed`: not the policy’s to choose.',
});

const PolicyHeldSchema = z.enum(POLICY_HELDS).openapi('PolicyHeld', {
  description:
    'Why the target is not what the guest is to keep in the end. `no`: it is. `step`: less is taken at a time. `small`: too small a change. `blocked`: it moved the other way a moment ago. `harm`: it suffered after memory was taken. `stale`: its statistics are old or missing. `boot`: it has just started. `waiting`: other guests have not given the memory yet. `stuck`: its balloon does not grow. `hold`, `off`: its mode. `unknown`: what it says cannot be.',
});

const PolicyBudgetSchema = mirror<PolicyBudget>()(
  z
    .object({
      totalBytes: bytes,
      availableBytes: bytes,
      reserveBytes: bytes.openapi({ description: 'What the host keeps for itself.' }),
      othersBytes: bytes.openapi({ description: 'What its other programs use.' }),
      reservedBytes: bytes.openapi({ description: 'Kept for guests that are about to start.' }),
      budgetBytes: bytes.openapi({ description: 'What the guests may keep together.' }),
      fixedBytes: bytes.openapi({ description: 'Part of it with guests that the policy does not steer.' }),
      floorsBytes: bytes.openapi({ description: 'Sum of the floors of those that it steers.' }),
      needBytes: bytes.openapi({ description: 'Sum of their needs, floors included.' }),
      surplusBytes: bytes.openapi({ description: 'What is left of the budget beyond fixed and need.' }),
      maxBytes: bytes.openapi({ description: 'Sum of the most that they may have.' }),
      waitingBytes: bytes.openapi({ description: 'Decided, and waiting for other guests to give it.' }),
      overcommitted: z.boolean(),
      floorsAbove: z.boolean().openapi({ description: 'The floors alone are more than the budget.' }),
      sentence: z.string(),
    })
    .openapi('PolicyBudget', { description: 'The host’s memory, divided.' }),
);

export const ReservationSchema = mirror<Reservation>()(
  z
    .object({
      name: z.string().openapi({ description: 'The guest that it is for, and that ends it by connecting.' }),
      bytes,
      ready: z.boolean().openapi({ description: 'All of it is physically free at the host.' }),
      missingBytes: bytes,
      endsInMs: milliseconds,
    })
    .openapi('Reservation'),
);

const GuestPolicySettingsSchema = mirror<GuestPolicySettings>()(
  z
    .object({
      minBytes: unknownable,
      maxBytes: unknownable,
      shares: z.number().nullable(),
      mode: orNull(PolicyModeSchema),
    })
    .openapi('GuestPolicySettings', { description: 'Null where the default holds.' }),
);

const GuestPolicyDecisionSchema = mirror<GuestPolicyDecision>()(
  z
    .object({
      timeMs: moment,
      memoryBytes: unknownable,
      usedBytes: unknownable,
      nowBytes: bytes.openapi({ description: 'What the guest has to have at once.' }),
      needBytes: bytes.openapi({
        description: 'What it should have: its use of the last minute with head-room, and what was learned.',
      }),
      learnedBytes: bytes.openapi({
        description: 'What it was learned to need, when it suffered with less; 0 for nothing.',
      }),
      floorBytes: bytes.openapi({ description: 'What it keeps whatever happens.' }),
      maxBytes: bytes,
      shares: z.number(),
      wantBytes: unknownable.openapi({ description: 'What it is to keep in the end.' }),
      keepBytes: unknownable.openapi({ description: 'What it may keep by the target that was decided.' }),
      targetBytes: unknownable.openapi({
        description: 'What its balloon is to hold; null: it is left alone.',
      }),
      actualBytes: unknownable,
      statisticsAgeMs: milliseconds
        .nullable()
        .openapi({ description: 'Since the guest said them, by the policy’s own clock.' }),
      bound: PolicyBoundSchema,
      held: PolicyHeldSchema,
      distress: z.boolean(),
      stuck: z.boolean(),
      contradiction: z.boolean().openapi({ description: 'The minimum is above the maximum, which counts.' }),
      moved: z.boolean().openapi({ description: 'The target is another one than before.' }),
      sentence: z.string().openapi({ description: 'The same for people.' }),
    })
    .openapi('GuestPolicyDecision', { description: 'One decision about one guest, and what led to it.' }),
);

export const GuestPolicySchema = mirror<GuestPolicy>()(
  z
    .object({
      name: z.string(),
      mode: PolicyModeSchema,
      settings: GuestPolicySettingsSchema,
      heldSinceMs: orNull(moment).openapi({
        description:
          'Since when the guest is on hold because a person set its target, in milliseconds since the epoch.',
      }),
      leaseUntilMs: orNull(moment).openapi({
        description: 'Until when the target is the policy’s, in milliseconds since the epoch.',
      }),
      harms: count.openapi({ description: 'How often it suffered after memory was taken.' }),
      oomKills: count.openapi({ description: 'Programs that its kernel killed since the policy started.' }),
      error: z.string().nullable(),
      decision: orNull(GuestPolicyDecisionSchema),
    })
    .openapi('GuestPolicy'),
);

export const PolicyStatusSchema = mirror<PolicyStatus>()(
  z
    .object({
      state: z.enum(POLICY_STATES).openapi({
        description:
          '`off`: there is none. `dry-run`: it decides and moves nothing. `silent`: it has decided nothing for two periods.',
      }),
      dryRun: z.boolean(),
      periodMs: milliseconds.nullable(),
      decidedAgoMs: milliseconds.nullable(),
      decisions: count,
      moves: count.openapi({ description: 'Targets that it set.' }),
      onSilence: orNull(
        z.enum(SILENCE_RULES).openapi({
          description: 'What becomes of targets when the policy is silent: they stay, or all memory is back.',
        }),
      ),
      settingsPath: z.string().nullable(),
      settingsError: z.string().nullable().openapi({
        description: 'Why the newest version of the settings was refused; those before it are in force.',
      }),
      budget: orNull(PolicyBudgetSchema),
      reservations: z.array(ReservationSchema).readonly(),
      guests: z.array(GuestPolicySchema).readonly(),
    })
    .openapi('PolicyStatus'),
);

export const PolicyHistorySchema = mirror<PolicyHistory>()(
  z.object({ decisions: z.array(GuestPolicyDecisionSchema).readonly() }).openapi('PolicyHistory', {
    description: 'Oldest first: decisions that changed something, and others now and then.',
  }),
);

export const PolicyPatchSchema = mirror<PolicyChanges>()(
  z
    .strictObject({ dryRun: omissible(z.boolean()) })
    .refine(patch => Object.keys(patch).length > 0, { error: 'name at least one thing to change' })
    .openapi('PolicyPatch', { minProperties: 1 }),
);

export const GuestPolicyPatchSchema = mirror<GuestPolicyChanges>()(
  z
    .strictObject({
      minBytes: omissible(unknownable.openapi({ description: 'Null for the default.' })),
      maxBytes: omissible(unknownable.openapi({ description: 'Null for the default.' })),
      shares: omissible(orNull(count.min(1).max(SHARES_MAX))),
      mode: omissible(orNull(PolicyModeSchema)),
    })
    .refine(patch => Object.keys(patch).length > 0, { error: 'name at least one thing to change' })
    .openapi('GuestPolicyPatch', { minProperties: 1 }),
);

const guestName = z.string().min(1).max(GUEST_NAME_LENGTH_MAX);

export const ReservationOrderSchema = mirror<ReservationOrder>()(
  z
    .strictObject({
      name: guestName,
      bytes: bytes.min(1),
      forMs: omissible(
        count
          .min(1)
          .max(RESERVATION_MS_MAX)
          .openapi({ description: `It ends by itself after so long; ${RESERVATION_MS} when left out.` }),
      ),
    })
    .openapi('ReservationOrder'),
);

export const ReservationQuerySchema = z.object({
  name: guestName.openapi({ description: 'For whom the reservation is that is given up.' }),
});

export const LeaseRenewalOrderSchema = mirror<LeaseRenewalOrder>()(
  z
    .strictObject({
      forMs: count.min(1).max(LEASE_MS_MAX),
      onSilence: omissible(
        z.enum(SILENCE_RULES).openapi({
          description:
            'What becomes of the targets when they are not renewed again; as they were ordered where nothing is said.',
        }),
      ),
    })
    .openapi('LeaseRenewalOrder'),
);

export const LeaseRenewalSchema = mirror<LeaseRenewal>()(
  z
    .object({ renewed: count.openapi({ description: 'Targets whose leases were renewed.' }) })
    .openapi('LeaseRenewal'),
);
