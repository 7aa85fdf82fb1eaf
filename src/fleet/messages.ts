/**
 * Messages between the hosts of a fleet: their shapes, and how they are read. All that arrives was written by a stranger
 * who has credentials: a message that is too large, of a newer version or no message at all is refused with a reason, and
 * is never thrown through. What hosts do with them is said elsewhere.
 */
import { z } from 'zod';

/** A message of another version is refused: its writer may mean something else by the same words. */
export const VERSION = 1;
/** As large as NATS carries by itself; a host with a thousand guests says a third of that. */
export const MESSAGE_BYTES_MAX = 1024 * 1024;
const GUESTS_MAX = 2000;
const ORDERS_MAX = 256;
const WORDS_MAX = 1000;
const LEFT_MAX = 64;
const ANSWERS_MAX = 1000;

/** A token of a subject and a key of a bucket. Dots are allowed as in names of hosts. */
export const HOST_NAME = /^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,7}$/;
/** As cli/guest-options.ts has it. */
const GUEST_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** A number of a UUID; a key of a bucket. */
const ID = /^[A-Za-z0-9-]{1,64}$/;

const host = z.string().regex(HOST_NAME).max(128);
const guest = z.string().regex(GUEST_NAME);
const id = z.string().regex(ID);
const bytes = z.int().nonnegative();
const words = z.string().max(WORDS_MAX);
const version = z.literal(VERSION);
const ms = z.number().nonnegative();
const incarnation = z.string().max(100);
/** Revision of the leader's key at which the leader began to lead: a later leader has a higher one. */
const epoch = z.int().nonnegative();
const revision = z.int().nonnegative();

const left = z.array(z.object({ host, agoMs: ms })).max(LEFT_MAX);

const Because = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('short'), shortBytes: bytes, budgetBytes: z.int() }),
  z.object({ kind: z.literal('drain') }),
  z.object({ kind: z.literal('wish') }),
]);

/** As placement/types.ts has it. */
const FleetOrder = z.object({
  id,
  guest,
  incarnation,
  from: host,
  to: host,
  fromRevision: revision,
  toRevision: revision,
  reserveBytes: bytes,
  sendBytes: z.number().nonnegative(),
  sendMs: ms,
  left,
  because: Because,
});

export type FleetOrder = z.output<typeof FleetOrder>;

const ReportedGuest = z.object({
  guest,
  incarnation,
  sizeBytes: bytes,
  residentBytes: bytes,
  needBytes: bytes,
  minBytes: bytes,
  dirtyBytesPerSecond: bytes.nullable(),
  obstacle: words.nullable(),
  moving: z.object({ order: id, to: host }).nullable(),
  left,
});
export type ReportedGuest = z.output<typeof ReportedGuest>;

/** How an order ended. `unknown`: the host that had it was lost, or cannot find out. */
const RESULTS = ['moved', 'failed', 'refused', 'withdrawn', 'unknown'] as const;

const OrderOutcome = z.object({ id, result: z.enum(RESULTS), why: words.nullable() });
export type OrderOutcome = z.output<typeof OrderOutcome>;

/** A guest on its way from a host. */
const Departure = z.object({
  order: id,
  guest,
  to: host,
  /** In words of the migration, or of what comes before it. */
  status: words,
  sentBytes: bytes.nullable(),
  remainingBytes: bytes.nullable(),
});
export type Departure = z.output<typeof Departure>;

const Report = z.object({
  version,
  host,
  /** Of the agent's process: two reports that have one are of the same agent. */
  agent: id,
  periodMs: z.int().min(1).max(3_600_000),
  program: words,
  /** The highest leader that it has heard of. */
  epoch,
  memoryBytes: bytes,
  /** What it keeps for itself, and what it uses besides its guests. */
  reserveBytes: bytes,
  othersBytes: bytes,
  linkBytesPerSecond: z.number().positive(),
  guests: z.array(ReportedGuest).max(GUESTS_MAX),
  /** Memory that is kept for guests on their way to it. */
  incoming: z.array(z.object({ order: id, guest, from: host, bytes })).max(ORDERS_MAX),
  departures: z.array(Departure).max(ORDERS_MAX),
  /** The orders that ended last, newest last. */
  outcomes: z.array(OrderOutcome).max(ORDERS_MAX),
  /** Orders that it refused since it joined. */
  refusals: z.int().nonnegative(),
  /** Wall clock of the host: for people, and for nothing else. */
  atMs: z.number(),
});
export type Report = z.output<typeof Report>;

const Leader = z.object({
  version,
  host,
  incarnation: id,
  /** Null in the first record: it is that record's own revision. */
  epoch: epoch.nullable(),
});
export type LeaderRecord = z.output<typeof Leader>;

const WishedMove = z.object({ id, guest, to: host });
export type WishedMove = z.output<typeof WishedMove>;

const WishRecord = z.object({
  version,
  /** Hosts that are to be empty. */
  draining: z.array(host).max(10_000),
  /** Moves that persons asked for and that have not ended. */
  moves: z.array(WishedMove).max(ORDERS_MAX),
  /** Those that ended last, newest last. */
  ended: z.array(OrderOutcome).max(ORDERS_MAX),
});
export type WishRecord = z.output<typeof WishRecord>;

/** What became of an order at one of its two hosts: it is made before anything is done. */
const Claim = z.object({
  version,
  order: FleetOrder,
  host,
  /** The agent of the host that claimed it. */
  by: id,
  result: z.enum(['begun', ...RESULTS]),
  why: words.nullable(),
});
export type Claim = z.output<typeof Claim>;

const question = { version, epoch };
const HostQuestion = z.discriminatedUnion('ask', [
  /** Of the leader, to the source. */
  z.object({ ...question, ask: z.literal('move'), order: FleetOrder }),
  /** Of the source, to the destination: make room, and say where the machine is to be sent. */
  z.object({ ...question, ask: z.literal('receive'), order: FleetOrder }),
  /** Of the source: the guest did not leave. */
  z.object({ ...question, ask: z.literal('release'), order: FleetOrder }),
  /** Of the source: whether the guest runs at the destination. */
  z.object({ ...question, ask: z.literal('arrived'), order: FleetOrder }),
]);
export type HostQuestion = z.output<typeof HostQuestion>;

const HostAnswer = z.object({
  version,
  /** Why not; null for yes. */
  refusal: words.nullable(),
  /** Where a machine is awaited. */
  address: words.nullable(),
});
export type HostAnswer = z.output<typeof HostAnswer>;

const LeaderQuestion = z.discriminatedUnion('ask', [
  z.object({ version, ask: z.literal('drain'), id, host }),
  z.object({ version, ask: z.literal('undrain'), id, host }),
  z.object({ version, ask: z.literal('move'), id, guest, from: host.nullable(), to: host }),
  z.object({ version, ask: z.literal('plan') }),
]);
export type LeaderQuestion = z.output<typeof LeaderQuestion>;

const LeaderAnswer = z.object({
  version,
  host,
  epoch,
  refusal: words.nullable(),
  /** What would be ordered now. */
  orders: z.array(FleetOrder).max(ANSWERS_MAX),
  /** Why, and why not, for people. */
  reasons: z.array(words).max(ANSWERS_MAX),
});
export type LeaderAnswer = z.output<typeof LeaderAnswer>;

const at = { version, epoch };
const AuditEvent = z.discriminatedUnion('event', [
  z.object({ ...at, event: z.literal('leads'), host }),
  z.object({ ...at, event: z.literal('drain'), host, wish: id }),
  z.object({ ...at, event: z.literal('undrain'), host, wish: id }),
  z.object({ ...at, event: z.literal('wish'), wish: WishedMove }),
  z.object({ ...at, event: z.literal('wish-ended'), outcome: OrderOutcome }),
  /** All that a decision was made of: made anew, it is the same decision. */
  z.object({
    ...at,
    event: z.literal('decision'),
    orders: z.array(FleetOrder).max(ANSWERS_MAX),
    reasons: z.array(words).max(ANSWERS_MAX),
    /** The arguments of the plan; null where they are larger than a message may be. */
    input: z.object({ view: z.unknown(), memory: z.unknown(), settings: z.unknown() }).nullable(),
  }),
  z.object({ ...at, event: z.literal('order'), order: FleetOrder }),
  z.object({ ...at, event: z.literal('outcome'), order: FleetOrder, outcome: OrderOutcome }),
]);
export type AuditEvent = z.output<typeof AuditEvent>;

export const SCHEMAS = {
  report: Report,
  leader: Leader,
  wishes: WishRecord,
  claim: Claim,
  hostQuestion: HostQuestion,
  hostAnswer: HostAnswer,
  leaderQuestion: LeaderQuestion,
  leaderAnswer: LeaderAnswer,
  audit: AuditEvent,
} as const;
type Schemas = typeof SCHEMAS;
export type MessageKind = keyof Schemas;
export type MessageOf<Kind extends MessageKind> = z.output<Schemas[Kind]>;

/** Why a message was not taken. */
export const REFUSALS = ['too-large', 'newer', 'nonsense'] as const;
export type Refusal = (typeof REFUSALS)[number];

type Read<Value> = { readonly value: Value } | { readonly refusal: Refusal; readonly why: string };

/** Reads a message that may be anything. */
export function readMessage<Kind extends MessageKind>(kind: Kind, data: Uint8Array): Read<MessageOf<Kind>> {
  // Before a character of it is decoded: the cost of a message is bounded by its length.
  if (data.length > MESSAGE_BYTES_MAX) {
    return { refusal: 'too-large', why: `it has ${data.length} bytes; the most is ${MESSAGE_BYTES_MAX}` };
  }
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
  } catch {
    return { refusal: 'nonsense', why: 'it is no JSON' };
  }
  const written = versionOf(document);
  if (written !== null && written > VERSION) {
    return {
      refusal: 'newer',
      why: `it is of version ${written}, and version ${VERSION} is understood here`,
    };
  }
  const checked = SCHEMAS[kind].safeParse(document);
  if (checked.success) return { value: checked.data as MessageOf<Kind> };
  const [{ path, message }] = checked.error.issues;
  return {
    refusal: 'nonsense',
    why: `${path.map(String).join('.') || 'it'}: ${message}`.slice(0, WORDS_MAX),
  };
}

function versionOf(document: unknown): number | null {
  if (typeof document !== 'object' || document === null || !('version' in document)) return null;
  return typeof document.version === 'number' ? document.version : null;
}

/** @param message is of ours: a stranger's is never written on */
export const writeMessage = <Kind extends MessageKind>(_kind: Kind, message: MessageOf<Kind>): string =>
  JSON.stringify(message);

/** What a destination answers that has a place for a guest which has not come yet: it is to be asked again. */
export const AWAITED = 'it is awaited still';

/** As much of a sentence as a message may have. */
export const inWords = (text: string): string => text.slice(0, WORDS_MAX);
