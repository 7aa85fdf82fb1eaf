/**
 * Which figures of a memory policy there are for Prometheus, and where in its status each is found. A daemon without a
 * policy has its state alone. How figures are gathered is metrics.ts's.
 */
import { type GuestPolicy, POLICY_STATES, type PolicyBudget, type PolicyStatus } from '../control/policy.ts';
import { type Metrics, one, seconds } from './metric-tables.ts';

const gauge = one<PolicyStatus>('gauge');
const total = one<PolicyStatus>('counter');

/** The host's memory, part by part: together they are all of it, unless the guests need more than there is. */
function partsOf(budget: PolicyBudget): Readonly<Record<string, number>> {
  return {
    reserve: budget.reserveBytes,
    others: budget.othersBytes,
    reservations: budget.reservedBytes,
    fixed: budget.fixedBytes,
    floors: budget.floorsBytes,
    need: Math.max(0, budget.needBytes - budget.floorsBytes),
    surplus: budget.surplusBytes,
  };
}

function overcommittedBytes({ budget }: PolicyStatus): number | null {
  if (budget === null) return null;
  const { overcommitted, fixedBytes, needBytes, budgetBytes } = budget;
  return overcommitted ? Math.max(0, fixedBytes + needBytes - budgetBytes) : 0;
}

export const POLICY_METRICS: Metrics<PolicyStatus> = [
  {
    name: 'aerostat_policy_state',
    help: 'How the memory policy is: 1 for the state that it is in.',
    type: 'gauge',
    values: ({ state }) => POLICY_STATES.map(each => [{ state: each }, Number(each === state)]),
  },
];

/** Of a policy that runs. */
export const RUNNING_POLICY_METRICS: Metrics<PolicyStatus> = [
  total('aerostat_policy_decisions_total', 'Decisions over all guests.', p => p.decisions),
  total('aerostat_policy_moves_total', 'Targets that the policy set.', p => p.moves),
  gauge('aerostat_policy_period_seconds', 'Time from one decision to the next.', p => seconds(p.periodMs)),
  gauge('aerostat_policy_decision_age_seconds', 'Time since the last decision.', p =>
    seconds(p.decidedAgoMs),
  ),
  gauge('aerostat_policy_settings_refused', 'Whether the newest version of the settings was refused.', p =>
    Number(p.settingsError !== null),
  ),
  {
    name: 'aerostat_policy_budget_bytes',
    help: 'The memory of the host as the policy divides it, by part; need is what guests need above their floors.',
    type: 'gauge',
    values: ({ budget }) =>
      budget === null ? [] : Object.entries(partsOf(budget)).map(([part, bytes]) => [{ part }, bytes]),
  },
  gauge(
    'aerostat_policy_overcommitted_bytes',
    'What the guests need beyond what they may have together; 0 where that is enough.',
    overcommittedBytes,
  ),
  gauge(
    'aerostat_policy_waiting_bytes',
    'Decided for guests, and not given yet by others.',
    p => p.budget?.waitingBytes ?? null,
  ),
];

const guest = one<GuestPolicy>('gauge');
const ever = one<GuestPolicy>('counter');

export const GUEST_POLICY_METRICS: Metrics<GuestPolicy> = [
  guest(
    'aerostat_guest_policy_need_bytes',
    'What the guest should have.',
    g => g.decision?.needBytes ?? null,
  ),
  guest(
    'aerostat_guest_policy_floor_bytes',
    'What the guest keeps whatever happens.',
    g => g.decision?.floorBytes ?? null,
  ),
  guest(
    'aerostat_guest_policy_keep_bytes',
    'What the guest may keep by the target that was decided.',
    g => g.decision?.keepBytes ?? null,
  ),
  guest('aerostat_guest_policy_used_bytes', 'What its programs use.', g => g.decision?.usedBytes ?? null),
  guest(
    'aerostat_guest_policy_steered',
    'Whether the policy sets its target: not on hold, and not left alone.',
    g => Number(g.mode === 'auto'),
  ),
  guest(
    'aerostat_guest_policy_stuck',
    'Whether its balloon does not grow, so that it counts with what it holds.',
    g => (g.decision === null ? null : Number(g.decision.stuck)),
  ),
  ever('aerostat_guest_policy_harms_total', 'How often it suffered after memory was taken.', g => g.harms),
  ever(
    'aerostat_guest_policy_oom_kills_total',
    'Programs that its kernel killed for want of memory while the policy looked after it.',
    g => g.oomKills,
  ),
];
