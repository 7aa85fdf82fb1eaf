/** The host's memory as the memory policy divides it: budget, guests, what was decided and why, and what can be set. */
import { useState } from 'preact/hooks';
import { api, type PolicyStatus } from './api.ts';
import { BudgetCard } from './budget-card.tsx';
import { countText, duration, size } from './format.ts';
import { PolicyGuest } from './policy-guest.tsx';
import { type PolicyView, usePolicy } from './policy-live.ts';
import { OVERVIEW_LINK } from './route.ts';

/** Of fewer guests all are open from the beginning. */
const OPEN_MAX = 3;

export function PolicyPage() {
  const view = usePolicy();
  const { policy, trouble } = view;
  return (
    <article class="policy" aria-label="Memory policy">
      <div class="guest-head">
        <a class="back" href={OVERVIEW_LINK}>
          ← All guests
        </a>
        <h1>Memory policy</h1>
        {policy !== undefined && <StateMark policy={policy} />}
      </div>
      {trouble !== '' && (
        <p class="refused" role="alert">
          How the policy is cannot be said: {trouble}
        </p>
      )}
      {policy === undefined ? (
        <p class="empty">{trouble === '' ? 'Asking the daemon…' : ''}</p>
      ) : policy.state === 'off' ? (
        <NoPolicy />
      ) : (
        <Running policy={policy} act={view.act} />
      )}
    </article>
  );
}

const STATES = {
  off: ['quiet', 'off'],
  'dry-run': ['noted', 'dry run: moves nothing'],
  running: ['calm', 'running'],
  silent: ['bad', 'silent'],
} as const;

function StateMark({ policy: { state } }: { policy: PolicyStatus }) {
  const [kind, words] = STATES[state];
  return (
    <span class={`mark ${kind}`} data-figure="policy-state">
      {words}
    </span>
  );
}

function NoPolicy() {
  return (
    <section class="card no-policy" aria-label="No policy">
      <h2>No memory policy runs here</h2>
      <p>Every guest keeps the target that it was given by hand.</p>
      <p>
        Start one with <code>aerostat policy run</code>. With <code>--dry-run</code> it decides and explains,
        and moves nothing.
      </p>
    </section>
  );
}

function Running({ policy, act }: { policy: PolicyStatus; act: PolicyView['act'] }) {
  const few = policy.guests.length <= OPEN_MAX;
  return (
    <>
      <Alarms policy={policy} />
      <BudgetCard policy={policy} />
      <Facts policy={policy} act={act} />
      <section class="policy-guests" aria-label="Guests">
        {policy.guests.map(guest => (
          <PolicyGuest key={guest.name} guest={guest} act={act} few={few} />
        ))}
        {policy.guests.length === 0 && <p class="empty">The policy looks after no guest.</p>}
      </section>
    </>
  );
}

function Alarms({ policy }: { policy: PolicyStatus }) {
  const { state, decidedAgoMs, onSilence, settingsError, settingsPath, budget } = policy;
  const after = onSilence === 'release' ? 'they get their memory back' : 'they keep their targets';
  return (
    <div role="status" class="alarms">
      {state === 'silent' && (
        <p class="alarm">
          The policy is silent
          {decidedAgoMs !== null && `: its last decision was ${duration(decidedAgoMs)} ago`}. Nothing looks
          after the guests; {after}.
        </p>
      )}
      {budget?.floorsAbove === true && (
        <p class="alarm">The floors of the guests are more than the budget. No policy can help.</p>
      )}
      {budget?.overcommitted === true && !budget.floorsAbove && (
        <p class="alarm">
          The host is overcommitted: the guests need more than it has, and divide it by shares.
        </p>
      )}
      {settingsError !== null && (
        <p class="alarm">
          {settingsPath ?? 'The settings'} is refused, and the settings before it are in force:{' '}
          {settingsError}
        </p>
      )}
    </div>
  );
}

function Facts({ policy, act }: { policy: PolicyStatus; act: PolicyView['act'] }) {
  const { periodMs, decidedAgoMs, decisions, moves, settingsPath, reservations } = policy;
  return (
    <section class="card policy-facts" aria-label="The policy">
      <DryRun policy={policy} act={act} />
      <p class="note">
        Decides every {duration(periodMs)}, last {duration(decidedAgoMs)} ago ·{' '}
        <b data-figure="policy-decisions">{countText(decisions)}</b> decisions,{' '}
        <b data-figure="policy-moves">{countText(moves)}</b> targets set
        {settingsPath !== null && (
          <>
            {' '}
            · settings from <code>{settingsPath}</code>
          </>
        )}
      </p>
      {reservations.length > 0 && (
        <ul class="note" aria-label="Reservations">
          {reservations.map(({ name, bytes, ready, missingBytes, endsInMs }) => (
            <li key={name}>
              <b>{size(bytes)}</b> kept for {name}:{' '}
              {ready ? 'free at the host' : `${size(missingBytes)} of it not free yet`}, ends in{' '}
              {duration(endsInMs)}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function DryRun({ policy: { dryRun }, act }: { policy: PolicyStatus; act: PolicyView['act'] }) {
  const [refused, setRefused] = useState('');
  const turn = async () => {
    setRefused('');
    try {
      await act(() => api.changePolicy({ dryRun: !dryRun }));
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  return (
    <p class="switch-line">
      <button type="button" role="switch" class="switch" aria-checked={dryRun} onClick={() => void turn()}>
        Dry run
      </button>
      <span class="note">{dryRun ? 'It decides and explains, and moves nothing.' : 'It sets targets.'}</span>
      <span class="refused" role="alert">
        {refused}
      </span>
    </p>
  );
}
