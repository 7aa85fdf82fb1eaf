/** A memory policy that decides nothing: what it says of guests is what a test gives it, or plausible. */
import { GuestStateError, PolicyOffError } from '../../src/control/errors.ts';
import {
  type GuestPolicy,
  type GuestPolicyChanges,
  type GuestPolicyDecision,
  POLICY_OFF,
  type PolicyChanges,
  type PolicyHistory,
  type PolicyStatus,
  RESERVATION_MS,
  type Reservation,
  type ReservationOrder,
} from '../../src/control/policy.ts';

const GIB = 2 ** 30;
const NOW_MS = 1_700_000_000_000;

/** A guest that uses 1.5 GiB of 4, needs 1.75, and keeps 2.5 on its way to 2. */
export const policyDecision = (
  name: string,
  overrides: Partial<GuestPolicyDecision> = {},
): GuestPolicyDecision => ({
  timeMs: NOW_MS,
  memoryBytes: 4 * GIB,
  usedBytes: 1.5 * GIB,
  nowBytes: 1.75 * GIB,
  needBytes: 1.75 * GIB,
  learnedBytes: 0,
  floorBytes: GIB,
  maxBytes: 4 * GIB,
  shares: 1000,
  wantBytes: 2 * GIB,
  keepBytes: 2.5 * GIB,
  targetBytes: 1.5 * GIB,
  actualBytes: 1.25 * GIB,
  statisticsAgeMs: 800,
  bound: 'surplus',
  held: 'step',
  distress: false,
  stuck: false,
  contradiction: false,
  moved: true,
  sentence: `${name} keeps 2.5G of 4G: it uses 1.5G and needs 1.75G, and gets its part of what is left of 56G; it is to keep 2G in the end, and gives the rest step by step.`,
  ...overrides,
});

export const guestPolicy = (name: string, overrides: Partial<GuestPolicy> = {}): GuestPolicy => ({
  name,
  mode: 'auto',
  settings: { minBytes: null, maxBytes: null, shares: null, mode: null },
  heldSinceMs: null,
  leaseUntilMs: NOW_MS + 4000,
  harms: 0,
  oomKills: 0,
  error: null,
  decision: policyDecision(name),
  ...overrides,
});

/** A policy that runs over guests of these names. */
export const policyStatus = (
  names: readonly string[],
  overrides: Partial<PolicyStatus> = {},
): PolicyStatus => ({
  state: 'running',
  dryRun: false,
  periodMs: 2000,
  decidedAgoMs: 700,
  decisions: 1234,
  moves: 56,
  onSilence: 'keep',
  settingsPath: '/etc/aerostat/policy.toml',
  settingsError: null,
  budget: {
    totalBytes: 64 * GIB,
    availableBytes: 40 * GIB,
    reserveBytes: 3.25 * GIB,
    othersBytes: 2.75 * GIB,
    reservedBytes: 2 * GIB,
    budgetBytes: 56 * GIB,
    fixedBytes: 0,
    floorsBytes: names.length * GIB,
    needBytes: names.length * 1.75 * GIB,
    surplusBytes: (56 - names.length * 1.75) * GIB,
    maxBytes: names.length * 4 * GIB,
    waitingBytes: 0,
    overcommitted: false,
    floorsAbove: false,
    sentence: 'The guests may keep 56G of 64G (reserve 3.25G, others 2.75G, 2G kept for guests that start).',
  },
  reservations: [{ name: 'vm9', bytes: 2 * GIB, ready: true, missingBytes: 0, endsInMs: 300_000 }],
  guests: names.map(name => guestPolicy(name)),
  ...overrides,
});

export class FakePolicy {
  status: PolicyStatus = POLICY_OFF;
  /** Whether what is reserved is free. */
  ready = true;
  /** The history of each guest; its newest decision where a test says nothing. */
  readonly decisions = new Map<string, readonly GuestPolicyDecision[]>();

  /** @throws PolicyOffError when it is off */
  get running(): PolicyStatus {
    if (this.status.state === 'off') throw new PolicyOffError();
    return this.status;
  }

  change({ dryRun = this.status.dryRun }: PolicyChanges): PolicyStatus {
    this.status = { ...this.running, dryRun, state: dryRun ? 'dry-run' : 'running' };
    return this.status;
  }

  reserve({ name, bytes, forMs = RESERVATION_MS }: ReservationOrder): Reservation {
    const { reservations } = this.running;
    const reservation = {
      name,
      bytes,
      ready: this.ready,
      missingBytes: this.ready ? 0 : bytes,
      endsInMs: forMs,
    };
    const others = reservations.filter(one => one.name !== name);
    this.status = { ...this.status, reservations: [...others, reservation] };
    return reservation;
  }

  release(name: string): PolicyStatus {
    const reservations = this.running.reservations.filter(one => one.name !== name);
    if (reservations.length === this.status.reservations.length) {
      throw new GuestStateError(`nothing is reserved for ${name}`);
    }
    this.status = { ...this.status, reservations };
    return this.status;
  }

  guest(name: string): GuestPolicy {
    return this.running.guests.find(guest => guest.name === name) ?? guestPolicy(name);
  }

  alter(name: string, overrides: Partial<GuestPolicy>): GuestPolicy {
    const altered = { ...this.guest(name), ...overrides };
    const guests = this.status.guests.map(guest => (guest.name === name ? altered : guest));
    this.status = { ...this.status, guests };
    return altered;
  }

  changeGuest(name: string, changes: GuestPolicyChanges): GuestPolicy {
    const { settings, mode } = this.guest(name);
    const after = { ...settings, ...changes };
    return this.alter(name, { settings: after, mode: 'mode' in changes ? (after.mode ?? 'auto') : mode });
  }

  history(name: string): PolicyHistory {
    const { decision } = this.guest(name);
    return { decisions: this.decisions.get(name) ?? (decision === null ? [] : [decision]) };
  }
}
