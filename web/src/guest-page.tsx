/** One guest in depth. */
import { residentWords } from '../../src/control/judgement.ts';
import type { MemoryUse } from '../../src/control/memory-use.ts';
import { Charts } from './charts.tsx';
import { Counters } from './counters.tsx';
import { Events } from './events.tsx';
import { size } from './format.ts';
import { Marks } from './guest-state.tsx';
import { HintCard } from './hint-card.tsx';
import type { GuestView } from './live.ts';
import { MapCard } from './map-card.tsx';
import { MemoryBar, segmentsOf, titleOf } from './memory-bar.tsx';
import { MigrationCard } from './migration-card.tsx';
import { RequestCard } from './request-card.tsx';
import { OVERVIEW_LINK } from './route.ts';
import { StatisticsCard } from './statistics.tsx';
import { TargetCard } from './target-card.tsx';

export function GuestPage({ name, guest }: { name: string; guest: GuestView | undefined }) {
  if (guest === undefined) {
    return (
      <p class="empty">
        This daemon serves no guest called {name}. <a href={OVERVIEW_LINK}>All guests</a>
      </p>
    );
  }
  const { status, use } = guest;
  return (
    <article class="guest" aria-label={name}>
      <div class="guest-head">
        <a class="back" href={OVERVIEW_LINK}>
          ← All guests
        </a>
        <h1>{name}</h1>
        <Marks guest={guest} />
        <p class="facts">
          {[status.profile, status.discard && `discard ${status.discard}`, status.socketPath]
            .filter(fact => fact !== null)
            .join(' · ')}
        </p>
      </div>
      {use === undefined ? (
        <p class="empty wide">
          {status.connected
            ? 'The guest is connected; its driver has not started yet.'
            : 'No guest is connected. Its target is kept and holds from the moment that it is.'}
        </p>
      ) : (
        <UseCard use={use} residentWords={residentWords(status)} />
      )}
      <div class="main-column">
        <MapCard guest={guest} />
        <Charts guest={guest} />
      </div>
      <div class="side-column">
        <TargetCard guest={guest} />
        <RequestCard guest={guest} />
        <HintCard guest={guest} />
        <MigrationCard guest={guest} />
        <StatisticsCard guest={guest} />
        <Counters guest={guest} />
        <Events name={name} />
      </div>
    </article>
  );
}

function UseCard({ use, residentWords }: { use: MemoryUse; residentWords: string }) {
  return (
    <section class="card use wide" aria-label="Memory">
      <MemoryBar use={use} large />
      <dl class="figures">
        {segmentsOf(use).map(({ kind, label, bytes }) => (
          <div key={kind} title={titleOf(kind)}>
            <dt>
              <i class={`swatch ${kind}`} /> {label}
            </dt>
            <dd data-figure={kind}>{size(bytes)}</dd>
          </div>
        ))}
        <div title={titleOf('resident')}>
          <dt>
            <i class="swatch resident" /> host resident
          </dt>
          <dd data-figure="resident">{size(use.resident)}</dd>
        </div>
        {residentWords !== '' && (
          <div class="note" data-figure="resident-kind">
            {residentWords}
          </div>
        )}
        <div title="What the guest was given: its balloon included">
          <dt>memory</dt>
          <dd data-figure="memory">{size(use.memory)}</dd>
        </div>
      </dl>
    </section>
  );
}
