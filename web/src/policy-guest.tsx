/** One guest under the memory policy: what it needs beside what it has, why, and its settings. */
import { useState } from 'preact/hooks';
import type { GuestPolicy, GuestPolicyDecision } from './api.ts';
import { DecisionChart } from './decision-chart.tsx';
import { clock, size } from './format.ts';
import { type PolicyView, useDecisions } from './policy-live.ts';
import { PolicySettings } from './policy-settings.tsx';
import { guestLink } from './route.ts';

/** Of these, the newest first. */
const LISTED_MAX = 8;

interface Props {
  readonly guest: GuestPolicy;
  readonly act: PolicyView['act'];
  readonly few: boolean;
}

/** What it keeps at the moment; null where that is not known. */
function hasBytes(decision: GuestPolicyDecision | null): number | null {
  const { memoryBytes = null, actualBytes = null } = decision ?? {};
  return memoryBytes === null || actualBytes === null ? null : memoryBytes - actualBytes;
}

export function PolicyGuest({ guest, act, few }: Props) {
  const [open, setOpen] = useState(few);
  const { name, decision, error } = guest;
  const inside = `policy-of-${name}`;
  return (
    <section class="card policy-guest" aria-label={name} data-policy-guest={name}>
      <div class="policy-row">
        <h2>
          <button
            type="button"
            class="fold"
            aria-expanded={open}
            aria-controls={inside}
            onClick={() => setOpen(!open)}
          >
            {name}
          </button>
        </h2>
        <GuestMarks guest={guest} />
        <NeedBar decision={decision} name={name} />
        <dl class="policy-figures">
          <Figure kind="uses" label="uses" bytes={decision?.usedBytes} />
          <Figure kind="needs" label="needs" bytes={decision?.needBytes} />
          <Figure kind="has" label="has" bytes={hasBytes(decision)} />
          <Figure kind="keeps" label="may keep" bytes={decision?.keepBytes} />
          <Figure kind="floors" label="floor" bytes={decision?.floorBytes} />
          <Figure kind="maximum" label="most" bytes={decision?.maxBytes} />
        </dl>
      </div>
      <p class="why" data-figure="why">
        {error ?? decision?.sentence ?? 'Nothing is decided about it yet.'}
      </p>
      <div id={inside} hidden={!open} class="policy-inside">
        {open && <Inside guest={guest} act={act} />}
      </div>
    </section>
  );
}

function Inside({ guest, act }: Omit<Props, 'few'>) {
  const { name, decision } = guest;
  const decisions = useDecisions(name, decision?.timeMs);
  const moves = decisions.filter(({ moved }) => moved);
  return (
    <>
      <DecisionChart name={name} decisions={decisions} />
      <div class="policy-columns">
        <section class="decisions" aria-label={`Decisions about ${name}`}>
          <h3>Decisions that moved its target</h3>
          {moves.length === 0 && <p class="note">None that is remembered.</p>}
          <ol>
            {moves
              .slice(-LISTED_MAX)
              .reverse()
              .map(({ timeMs, sentence }) => (
                <li key={timeMs}>
                  <time>{clock(timeMs)}</time> {sentence}
                </li>
              ))}
          </ol>
          <p class="note">
            <a href={guestLink(name)}>All of {name}</a>
          </p>
        </section>
        <PolicySettings guest={guest} act={act} />
      </div>
    </>
  );
}

function GuestMarks({
  guest: { mode, heldSinceMs, harms, oomKills, error, decision },
}: {
  guest: GuestPolicy;
}) {
  return (
    <span class="marks">
      {mode === 'hold' && (
        <span class="mark noted">
          on hold{heldSinceMs !== null && ` since ${clock(heldSinceMs)}: a person set its target`}
        </span>
      )}
      {mode === 'off' && <span class="mark quiet">not steered</span>}
      {decision?.stuck === true && <span class="mark bad">balloon is stuck</span>}
      {decision?.distress === true && <span class="mark bad">in distress</span>}
      {decision?.contradiction === true && <span class="mark noted">minimum above maximum</span>}
      {harms > 0 && <span class="mark noted">harmed {harms === 1 ? 'once' : `${harms} times`}</span>}
      {oomKills > 0 && (
        <span class="mark bad">
          {oomKills} {oomKills === 1 ? 'program' : 'programs'} killed
        </span>
      )}
      {error !== null && <span class="mark bad">cannot be asked</span>}
    </span>
  );
}

function Figure({ kind, label, bytes }: { kind: string; label: string; bytes: number | null | undefined }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd data-figure={kind}>{size(bytes)}</dd>
    </div>
  );
}

/** Its memory: up to its floor, up to its need, up to what it has; a line at what it may keep. */
function NeedBar({ decision, name }: { decision: GuestPolicyDecision | null; name: string }) {
  const memory = decision?.memoryBytes ?? 0;
  if (decision === null || memory === 0) return <span class="need-bar none" />;
  const has = hasBytes(decision) ?? 0;
  const { floorBytes, needBytes, keepBytes } = decision;
  const at = (bytes: number) => `${Math.min(100, (100 * bytes) / memory)}%`;
  const words = `${name} has ${size(has)} of ${size(memory)}, needs ${size(needBytes)}, may keep ${size(keepBytes)}; floor ${size(floorBytes)}`;
  return (
    <span class="need-bar" role="img" aria-label={words} title={words}>
      <i class="has" style={{ width: at(has) }} />
      <i class="need" style={{ width: at(needBytes) }} />
      <i class="floor" style={{ width: at(Math.min(floorBytes, needBytes)) }} />
      {keepBytes !== null && <i class="keep" style={{ left: at(keepBytes) }} />}
    </span>
  );
}
