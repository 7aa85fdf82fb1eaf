/**
 * The vocabulary of a memory policy at work: how it is, what it decided about each guest and why, what can be changed of
 * it. How it decides is the policy room's; who runs it is the steering room's. Sizes are bytes, times milliseconds, and
 * what is not known is null.
 */
import { BOUNDS, HELDS, MODES } from '../policy/types.ts';

export { BOUNDS as POLICY_BOUNDS, HELDS as POLICY_HELDS, MODES as POLICY_MODES };

type PolicyBound = (typeof BOUNDS)[number];
type PolicyHeld = (typeof HELDS)[number];
type PolicyMode = (typeof MODES)[number];

/**
 * `off`: no policy looks after the guests of this daemon. `dry-run`: it decides and explains, and moves nothing.
 * `silent`: it has decided nothing for two of its periods, though it should have.
 */
export const POLICY_STATES = ['off', 'dry-run', 'running', 'silent'] as const;
export type PolicyState = (typeof POLICY_STATES)[number];

/** What becomes of a guest's target when the policy that set it is silent: it stays, or all memory is the guest's again. */
export const SILENCE_RULES = ['keep', 'release'] as const;
export type SilenceRule = (typeof SILENCE_RULES)[number];

/** The host's memory, divided. Budget, reserve, others and reservations add up to the total. */
export interface PolicyBudget {
  readonly totalBytes: number;
  readonly availableBytes: number;
  /** What the host keeps for itself. */
  readonly reserveBytes: number;
  /** What its other programs use. */
  readonly othersBytes: number;
  /** Kept for guests that are about to start. */
  readonly reservedBytes: number;
  /** What the guests may keep together. */
  readonly budgetBytes: number;
  /** The part of it that guests have about which the policy decides nothing: on hold, off, or unknown. */
  readonly fixedBytes: number;
  /** Sum of the floors of the others. */
  readonly floorsBytes: number;
  /** Sum of their needs, floors included. */
  readonly needBytes: number;
  /** What is left of the budget beyond fixed and need; 0 where they are more than it. */
  readonly surplusBytes: number;
  /** Sum of the most that they may have. */
  readonly maxBytes: number;
  /** Decided for guests and not promised yet, because other guests have not given it. */
  readonly waitingBytes: number;
  /** The guests need more than the budget. */
  readonly overcommitted: boolean;
  /** The floors alone are more than the budget: no policy can help. */
  readonly floorsAbove: boolean;
  /** The above for people. */
  readonly sentence: string;
}

/** Memory that is kept for a guest that is about to start. */
export interface Reservation {
  /** For whom: the name of a guest, which ends the reservation when it connects. */
  readonly name: string;
  readonly bytes: number;
  /** All of it is physically free at the host. */
  readonly ready: boolean;
  /** What is not yet. */
  readonly missingBytes: number;
  /** When it ends by itself. */
  readonly endsInMs: number;
}

/** What settings say of a guest; null where they say nothing and the default holds. */
export interface GuestPolicySettings {
  readonly minBytes: number | null;
  readonly maxBytes: number | null;
  readonly shares: number | null;
  readonly mode: PolicyMode | null;
}

/** One decision about one guest, with what led to it. */
export interface GuestPolicyDecision {
  /** Wall clock, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly memoryBytes: number | null;
  /** What its programs use, as far as that is known. */
  readonly usedBytes: number | null;
  /** What it has to have at once. */
  readonly nowBytes: number;
  /** What it should have: its use of the last minute with head-room, and what was learned. */
  readonly needBytes: number;
  /** What it was learned to need, when it suffered with less; 0 for nothing. */
  readonly learnedBytes: number;
  /** What it keeps whatever happens. */
  readonly floorBytes: number;
  /** The most that it may have. */
  readonly maxBytes: number;
  readonly shares: number;
  /** What it is to keep in the end. */
  readonly wantBytes: number | null;
  /** What it may keep by the target that was decided. */
  readonly keepBytes: number | null;
  /** What its balloon is to hold; null: it is left alone. */
  readonly targetBytes: number | null;
  /** What its balloon held when this was decided. */
  readonly actualBytes: number | null;
  /** By our own clock, since the guest said them; what it said before is known by its date or by being the same. */
  readonly statisticsAgeMs: number | null;
  /** The rule that bound what it is to keep in the end. */
  readonly bound: PolicyBound;
  /** Why the target is not that. */
  readonly held: PolicyHeld;
  /** It showed distress. */
  readonly distress: boolean;
  /** Its balloon does not grow, so it counts with what it holds. */
  readonly stuck: boolean;
  /** Its minimum is above its maximum, which counts. */
  readonly contradiction: boolean;
  /** The target is another one than before. */
  readonly moved: boolean;
  /** The above for people. */
  readonly sentence: string;
}

/** How the policy sees one guest. */
export interface GuestPolicy {
  readonly name: string;
  /** In force: `hold` also where a person set the target by hand. */
  readonly mode: PolicyMode;
  readonly settings: GuestPolicySettings;
  /** Since when it is on hold because a person set its target; wall clock. Null where that is not why. */
  readonly heldSinceMs: number | null;
  /** Until when the target is the policy's; wall clock. Null where no target is. */
  readonly leaseUntilMs: number | null;
  /** How often it suffered after memory was taken, since the policy started. */
  readonly harms: number;
  /** Programs that the guest's kernel killed for want of memory while the policy looked after it. */
  readonly oomKills: number;
  /** Why it cannot be asked or steered; null where it can. */
  readonly error: string | null;
  /** The newest; null before the first. */
  readonly decision: GuestPolicyDecision | null;
}

export interface PolicyStatus {
  readonly state: PolicyState;
  readonly dryRun: boolean;
  readonly periodMs: number | null;
  /** How long ago it decided last, by a clock that is never set; null before the first time. */
  readonly decidedAgoMs: number | null;
  /** Since it started. */
  readonly decisions: number;
  /** Targets that it set. */
  readonly moves: number;
  readonly onSilence: SilenceRule | null;
  /** The file that its settings are from. */
  readonly settingsPath: string | null;
  /** Why the newest version of that file was refused; the settings before it are in force. */
  readonly settingsError: string | null;
  readonly budget: PolicyBudget | null;
  readonly reservations: readonly Reservation[];
  readonly guests: readonly GuestPolicy[];
}

export const POLICY_OFF: PolicyStatus = {
  state: 'off',
  dryRun: false,
  periodMs: null,
  decidedAgoMs: null,
  decisions: 0,
  moves: 0,
  onSilence: null,
  settingsPath: null,
  settingsError: null,
  budget: null,
  reservations: [],
  guests: [],
};

/** What can be changed of a policy. */
export interface PolicyChanges {
  readonly dryRun?: boolean;
}

/** What can be changed of a guest's settings; null for the default. */
export interface GuestPolicyChanges {
  readonly minBytes?: number | null;
  readonly maxBytes?: number | null;
  readonly shares?: number | null;
  readonly mode?: PolicyMode | null;
}

/** As large as any that settings may say; a thousand times the default. */
export const SHARES_MAX = 1_000_000;
/** Of a reservation that does not say how long it lasts. */
export const RESERVATION_MS = 600_000;
export const RESERVATION_MS_MAX = 86_400_000;

/** Asked for again, it is the same one with other figures. */
export interface ReservationOrder {
  readonly name: string;
  readonly bytes: number;
  /** It ends by itself after so long: {@link RESERVATION_MS} where nothing is said. */
  readonly forMs?: number;
}

/** The newest decisions about a guest, oldest first: those that changed something, and others now and then. */
export interface PolicyHistory {
  readonly decisions: readonly GuestPolicyDecision[];
}

export interface LeaseRenewalOrder {
  readonly forMs: number;
  /** What becomes of the targets when they are not renewed again; as they were ordered where nothing is said. */
  readonly onSilence?: SilenceRule;
}

export interface LeaseRenewal {
  /** Targets whose leases were renewed. */
  readonly renewed: number;
}
