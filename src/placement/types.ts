/**
 * What placement is told and what it answers: what hosts of a fleet report, what people wish, its memory between plans,
 * and the orders to move guests, with their reasons. All of it is plain data that JSON can hold. Sizes are bytes. Times
 * are milliseconds of the leader's monotonic clock; no host's clock is ever read, hosts say how long ago something was.
 * How a plan comes about is plan.ts's.
 */

/** A host that a guest has left, and how long ago by the monotonic clock of the host that reports it. */
export interface LeftHost {
  readonly host: string;
  readonly agoMs: number;
}

export interface FleetGuest {
  readonly guest: string;
  /** Another one for each running copy: a guest that arrives at a host has a new one there. */
  readonly incarnation: string;
  /** All of its memory, the balloon's included. */
  readonly sizeBytes: number;
  /** What the host holds for it: what a migration has to send. */
  readonly residentBytes: number;
  /** What it should have, as the host's policy says. */
  readonly needBytes: number;
  /** What its balloon never takes from it. */
  readonly minBytes: number;
  /** What it writes to, a second; null where the host cannot tell. */
  readonly dirtyBytesPerSecond: number | null;
  /** Why it cannot be moved, in words for a person; null: it can. */
  readonly obstacle: string | null;
  /** The order by which it is leaving its host right now; null: it stays. */
  readonly moving: { readonly order: string; readonly to: string } | null;
  /** Hosts that it left lately, as orders handed them on ({@link MoveOrder.left}); empty where nothing is known. */
  readonly left: readonly LeftHost[];
}

/** Memory that a host keeps for a guest that an order moves to it. It ends when the guest is there, or never will be. */
export interface IncomingGuest {
  readonly order: string;
  readonly guest: string;
  readonly from: string;
  readonly bytes: number;
}

/** What a host reports of itself. */
export interface FleetHost {
  readonly host: string;
  /** Of the report: another number for each, as the store counts them. Orders are named after it. */
  readonly revision: number;
  /**
   * How long ago the leader saw this report's revision change, by its own clock; null where it has not seen it change:
   * then the report may be of any age.
   */
  readonly ageMs: number | null;
  readonly draining: boolean;
  readonly memoryBytes: number;
  /** What the host keeps for itself. */
  readonly reserveBytes: number;
  /** What it uses besides its guests. */
  readonly othersBytes: number;
  /** What migrations to and from it can use together. */
  readonly linkBytesPerSecond: number;
  /** Those that run there; one that is arriving is not among them until it runs. */
  readonly guests: readonly FleetGuest[];
  readonly incoming: readonly IncomingGuest[];
}

/** A person wants this guest on that host. */
export interface MoveWish {
  readonly guest: string;
  readonly to: string;
}

export interface FleetView {
  /** By the leader's monotonic clock. */
  readonly atMs: number;
  /**
   * The last report of each host, also of those that are silent, for {@link PlacementSettings.missedMs} at least: a new
   * leader knows only from them that a host may still have guests that another one claims.
   */
  readonly hosts: readonly FleetHost[];
  /** Moves that people asked for and that are not done; they come before the plan's own. */
  readonly wishes?: readonly MoveWish[];
  /** Ids of orders that are known to have failed or to have been refused, as the hosts answered. */
  readonly failed?: readonly string[];
}

/** Defaults are in settings.ts, with their reasons. */
export interface PlacementSettings {
  /** Nothing moves from or to a host whose report is older. */
  readonly staleMs?: number;
  /** How long a new leader looks on before its first order: orders of the former one must have shown by then. */
  readonly settleMs?: number;
  /** How long a host is short before a guest is moved for it. */
  readonly patienceMs?: number;
  /** No guest returns within so long to a host that it left. */
  readonly coolDownMs?: number;
  /** An order of which nothing is seen for so long has failed. */
  readonly pickUpMs?: number;
  /** A host that was seen so lately and is missing counts as one that is cut off. */
  readonly missedMs?: number;
  /** What a host that was short has free when it is helped, in parts of its memory. */
  readonly spare?: number;
  /** What stays free of a host that receives, in parts of its memory. */
  readonly headroom?: number;
  /** Moves at a time away from a host that is short; from one that drains; to any host; over the fleet. */
  readonly leavesMax?: number;
  readonly drainsMax?: number;
  readonly arrivesMax?: number;
  readonly movesMax?: number;
}

/** Why an order was given. */
export type Because =
  | { readonly kind: 'short'; readonly shortBytes: number; readonly budgetBytes: number }
  | { readonly kind: 'drain' }
  | { readonly kind: 'wish' };

/** One guest is to be moved live. `to` reserves the memory first; the guest begins to move when it has. */
export interface MoveOrder {
  /** The same for the same guest, hosts and report of its source: what carries orders out does each id once. */
  readonly id: string;
  readonly guest: string;
  /** The copy that is meant: an order for another one is void. */
  readonly incarnation: string;
  readonly from: string;
  readonly to: string;
  /**
   * The reports that it goes by. A host refuses an order that goes by a report of its own of long ago (by its own clock):
   * what was late on its way is void, and no two clocks are compared.
   */
  readonly fromRevision: number;
  readonly toRevision: number;
  /** What `to` keeps for it. The guest may have no more while it moves. */
  readonly reserveBytes: number;
  /** What is to be sent by estimate: the memory in use, and what is written meanwhile. */
  readonly sendBytes: number;
  /** How long that takes by estimate. */
  readonly sendMs: number;
  /** For the destination to report as {@link FleetGuest.left}: `from` with 0, and those that it left before. */
  readonly left: readonly LeftHost[];
  readonly because: Because;
}

/**
 * Why a guest that should leave its host is not ordered away now. `obstacle`: it cannot be moved. `doubtful`: more than
 * one host reports it, a host had it that is silent now, or a copy that is known to have moved away is back. `stale`: its host's report is old or makes no sense.
 * `implausible`: its own figures make no sense. `moving`: it is on its way. `dirty`: it writes faster than the link can send. `room`: no host that may receive has
 * the memory. `link`: the links are busy; it would take too long beside the moves under way. `cool-down`: only hosts
 * that it left a moment ago have room. `bound`: as many moves as may be are under way. `rest`: an order for it failed a
 * moment ago. `next`: others are ordered first. `there`: it is where it is wanted. `missing`: no guest or host of this
 * name is reported. `receiver`: the host that it is wanted on may not receive.
 */
export type Stay =
  | 'obstacle'
  | 'doubtful'
  | 'stale'
  | 'implausible'
  | 'moving'
  | 'dirty'
  | 'room'
  | 'link'
  | 'cool-down'
  | 'bound'
  | 'rest'
  | 'next'
  | 'there'
  | 'missing'
  | 'receiver';

/** A guest that should leave and stays for now. */
export interface StayingGuest {
  readonly guest: string;
  readonly host: string;
  readonly why: Stay;
  /** The guest's own obstacle, the hosts that report it, or the host that it is wanted on. */
  readonly detail: string;
  /** What it would need elsewhere. */
  readonly bytes: number;
}

/**
 * What a host is to placement. `steady`: its guests' needs fit. `short`: they do not. `draining`: it is to be empty.
 * `empty`: it drains and has no guests left. `stale`: its report is old. `unseen`: it has not reported since this leader
 * began. `missing`: it was there a moment ago. `implausible`: its figures make no sense. `twice`: two hosts have this
 * name.
 */
export type HostState =
  | 'steady'
  | 'short'
  | 'draining'
  | 'empty'
  | 'stale'
  | 'unseen'
  | 'missing'
  | 'implausible'
  | 'twice';

/** The answer for one host. A size of -1 is not known. */
export interface HostPlacement {
  readonly host: string;
  readonly state: HostState;
  readonly ageMs: number;
  /** What its guests may have together. */
  readonly budgetBytes: number;
  /** What they need together. */
  readonly needBytes: number;
  /** Kept for guests that are on their way to it. */
  readonly incomingBytes: number;
  /** Needed by guests that are on their way from it. */
  readonly outgoingBytes: number;
  /** By how much the needs are above the budget, without the guests that are leaving; 0: they fit. */
  readonly shortBytes: number;
  readonly shortMs: number;
  /** Whether guests may be moved to it. */
  readonly receives: boolean;
  readonly leaving: number;
  readonly arriving: number;
}

/**
 * Whether orders were given at all. `moves`: nothing stands against it. `settling`: this leader has just begun.
 * `partition`: half of the hosts or more are stale, unseen or missing.
 */
export type FleetState = 'moves' | 'settling' | 'partition';

/** An order that is neither seen to be done nor known to have failed. */
export interface OrderRecord {
  readonly id: string;
  readonly guest: string;
  /** Empty where the order was found in reports, and they do not say. */
  readonly incarnation: string;
  readonly from: string;
  readonly to: string;
  readonly reserveBytes: number;
  readonly atMs: number;
  /** When a report last showed it: a reservation, or a guest that is moving. */
  readonly seenMs: number;
  readonly because: Because['kind'] | 'found';
}

/** A guest that has moved, as long as its cool-down lasts. */
export interface MoveRecord {
  readonly guest: string;
  readonly from: string;
  readonly to: string;
  /** Of the copy that was at `from`. Where it shows up again, it is a ghost. */
  readonly incarnation: string;
  readonly atMs: number;
}

/** A guest whose orders failed. */
export interface FailureRecord {
  readonly guest: string;
  readonly count: number;
  readonly atMs: number;
}

export interface HostRecord {
  readonly host: string;
  /** When its last fresh report was there. */
  readonly seenMs: number;
  /** Since when it is short; -1: it is not. */
  readonly shortMs: number;
  /** While it is silent, what it had when it was heard last: it may have it still. */
  readonly guests: readonly Pick<FleetGuest, 'guest' | 'incarnation'>[];
}

/** What the leader knows besides the view. A leader that begins has none; it belongs to one leader's clock. */
export interface PlacementMemory {
  readonly version: 1;
  /** When this leader made its first plan, and its last; -1: never. */
  readonly sinceMs: number;
  readonly atMs: number;
  readonly hosts: readonly HostRecord[];
  readonly orders: readonly OrderRecord[];
  readonly moves: readonly MoveRecord[];
  readonly failures: readonly FailureRecord[];
}

/** What became of an order since the plan before. `found`: reports show one that this leader did not give. */
export interface OrderEnd {
  readonly order: OrderRecord;
  readonly end: 'done' | 'failed' | 'found';
}

/** A plan with all that led to it. */
export interface Placement {
  readonly atMs: number;
  readonly state: FleetState;
  /** Of {@link hosts}, those that nothing is known of now. */
  readonly unknownHosts: number;
  readonly orders: readonly MoveOrder[];
  /** In the order of the view, then those that are missing. */
  readonly hosts: readonly HostPlacement[];
  /** Guests that drains and wishes are waiting for; of a host that is short, its cheapest one that cannot go. */
  readonly staying: readonly StayingGuest[];
  readonly ends: readonly OrderEnd[];
  readonly memory: PlacementMemory;
  /** Guests and hosts that were looked at: what this plan cost, in no unit of time. */
  readonly looks: number;
}
