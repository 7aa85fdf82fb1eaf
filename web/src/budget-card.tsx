/** The host's memory in one bar: reserve, reservations, others, and of the guests floors, needs and what is left over. */
import type { PolicyBudget, PolicyStatus } from './api.ts';
import { size } from './format.ts';

/** Of more guests the bar shows their sums. */
const EACH_MAX = 24;

interface Part {
  /** Names a colour of style.css, and a figure. */
  readonly kind: 'reserve' | 'reserved' | 'others' | 'fixed' | 'floor' | 'need' | 'surplus';
  readonly label: string;
  readonly bytes: number;
}

const TITLES: Readonly<Record<Part['kind'], string>> = {
  reserve: 'What the host keeps for itself',
  reserved: 'Kept for guests that are about to start',
  others: 'What programs of the host use besides its guests',
  fixed: 'With guests that the policy does not steer',
  floor: 'What the guests keep whatever happens',
  need: 'What they need beyond their floors',
  surplus: 'Left over, and divided among the guests',
};

/** What the legend has: sums. */
function sumsOf(budget: PolicyBudget): Part[] {
  const { reserveBytes, reservedBytes, othersBytes, fixedBytes, floorsBytes, needBytes, surplusBytes } =
    budget;
  return [
    { kind: 'reserve', label: 'reserve', bytes: reserveBytes },
    { kind: 'reserved', label: 'reservations', bytes: reservedBytes },
    { kind: 'others', label: 'others', bytes: othersBytes },
    { kind: 'fixed', label: 'not steered', bytes: fixedBytes },
    { kind: 'floor', label: 'floors', bytes: floorsBytes },
    { kind: 'need', label: 'need above floors', bytes: Math.max(0, needBytes - floorsBytes) },
    { kind: 'surplus', label: 'surplus', bytes: surplusBytes },
  ];
}

/** What the bar shows: floors and needs of each guest beside each other, where there are few. */
function partsOf({ guests }: PolicyStatus, sums: readonly Part[]): readonly Part[] {
  const steered = guests.filter(({ mode, decision }) => mode === 'auto' && decision !== null);
  if (steered.length > EACH_MAX) return sums;
  const each = steered.flatMap(({ name, decision }): Part[] => {
    const { floorBytes = 0, needBytes = 0 } = decision ?? {};
    return [
      { kind: 'floor', label: `${name}: floor`, bytes: floorBytes },
      { kind: 'need', label: `${name}: need above its floor`, bytes: Math.max(0, needBytes - floorBytes) },
    ];
  });
  return sums.flatMap(part => (part.kind === 'floor' ? each : part.kind === 'need' ? [] : [part]));
}

export function BudgetCard({ policy }: { policy: PolicyStatus }) {
  const { budget } = policy;
  if (budget === null) {
    return (
      <section class="card" aria-label="Budget">
        <p class="note">The policy has not decided yet.</p>
      </section>
    );
  }
  const sums = sumsOf(budget);
  const parts = partsOf(policy, sums);
  const all = Math.max(
    budget.totalBytes,
    parts.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  const spoken = sums.map(({ label, bytes }) => `${label} ${size(bytes)}`).join(', ');
  return (
    <section class="card budget" aria-label="Budget">
      <h2>
        Budget of the guests: <b data-figure="budget">{size(budget.budgetBytes)}</b> of{' '}
        <b data-figure="total">{size(budget.totalBytes)}</b>
      </h2>
      <span
        class="budget-bar"
        role="img"
        aria-label={`Memory of the host, ${size(budget.totalBytes)}: ${spoken}`}
      >
        {parts.map(({ kind, label, bytes }) => (
          <i
            key={label}
            class={kind}
            style={{ width: `${all === 0 ? 0 : (100 * bytes) / all}%` }}
            title={`${label} ${size(bytes)}`}
          />
        ))}
      </span>
      <dl class="figures">
        {sums.map(({ kind, label, bytes }) => (
          <div key={kind} title={TITLES[kind]}>
            <dt>
              <i class={`swatch ${kind}`} /> {label}
            </dt>
            <dd data-figure={kind}>{size(bytes)}</dd>
          </div>
        ))}
      </dl>
      <p class="note">{budget.sentence}</p>
    </section>
  );
}
