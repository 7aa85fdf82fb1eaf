/** A fleet: its hosts, what moves and why, and what was decided last. Only hosts are drawn elsewhere (fleet-host.tsx). */
import { useEffect, useState } from 'preact/hooks';
import { api, type FleetPicture } from './api.ts';
import { FleetHostCard, FleetLegend } from './fleet-host.tsx';
import { clock, countText, duration, size, UNKNOWN } from './format.ts';
import { every } from './policy-live.ts';
import { OVERVIEW_LINK } from './route.ts';
import { Sift } from './sift.tsx';

/** Of more, one looks for a name. */
const SHOWN_MAX = 200;
const SIFT_FROM = 8;
/** Fewer hosts are open from the beginning. */
const OPEN_MAX = 6;

export function FleetPage() {
  const [picture, setPicture] = useState<FleetPicture>();
  const [trouble, setTrouble] = useState('');
  /** The host that was opened last: of a large fleet, its guests alone are told. */
  const [asked, setAsked] = useState<string>();
  useEffect(
    () =>
      every(async () => {
        try {
          setPicture(await api.fleet(asked));
          setTrouble('');
        } catch (error) {
          setTrouble((error as Error).message);
        }
      }),
    [asked],
  );
  return (
    <article class="fleet" aria-label="Fleet">
      <div class="guest-head">
        <a class="back" href={OVERVIEW_LINK}>
          ← All guests
        </a>
        <h1>{picture?.name == null ? 'Fleet' : `Fleet ${picture.name}`}</h1>
        {picture !== undefined && <Leader picture={picture} />}
      </div>
      {trouble !== '' && (
        <p class="refused" role="alert">
          How the fleet is cannot be said: {trouble}
        </p>
      )}
      {picture === undefined ? (
        <p class="empty">{trouble === '' ? 'Asking the daemon…' : ''}</p>
      ) : picture.state === 'none' ? (
        <NoFleet />
      ) : (
        <Known picture={picture} asked={asked} ask={setAsked} />
      )}
    </article>
  );
}

function Leader({ picture: { state, leader, epoch, seenAgoMs } }: { picture: FleetPicture }) {
  if (state === 'none' || seenAgoMs === null) return null;
  return (
    <span class={`mark ${leader === null ? 'bad' : 'calm'}`} data-figure="fleet-leader">
      {leader === null ? 'no host leads' : `${leader} leads, epoch ${epoch ?? UNKNOWN}`}
    </span>
  );
}

function NoFleet() {
  return (
    <section class="card no-policy" aria-label="No fleet">
      <h2>No fleet is looked at here</h2>
      <p>
        <code>aerostat fleet dashboard --nats nats://HOST:4222</code> shows one, and so does{' '}
        <code>aerostat dashboard</code> with a configuration that has <code>[fleet]</code>.
      </p>
    </section>
  );
}

interface KnownProps {
  readonly picture: FleetPicture;
  readonly asked: string | undefined;
  readonly ask: (host: string | undefined) => void;
}

function Known({ picture, asked, ask }: KnownProps) {
  return (
    <>
      <Silence picture={picture} />
      <Sums picture={picture} />
      <Moves picture={picture} />
      <Hosts picture={picture} asked={asked} ask={ask} />
      <Decisions picture={picture} />
    </>
  );
}

function Silence({ picture: { state, trouble, seenAgoMs, reportsRefused } }: { picture: FleetPicture }) {
  return (
    <div role="status" class="alarms">
      {state === 'silent' && (
        <p class="alarm">
          The fleet does not answer: {trouble}.{' '}
          {seenAgoMs === null ? 'Nothing is known of it yet.' : `What you see is ${duration(seenAgoMs)} old.`}
        </p>
      )}
      {reportsRefused > 0 && (
        <p class="alarm">
          {countText(reportsRefused)} reports were refused as nonsense, or as those of a newer version.
        </p>
      )}
    </div>
  );
}

function Sums({ picture: { hosts } }: { picture: FleetPicture }) {
  const sum = (of: (host: FleetPicture['hosts'][number]) => number) =>
    hosts.reduce((total, host) => total + of(host), 0);
  const states = new Map<string, number>();
  for (const { state } of hosts) states.set(state, (states.get(state) ?? 0) + 1);
  const words = [...states].map(([state, count]) => `${count} ${state}`).join(', ');
  const old = hosts.filter(({ state }) => ['silent', 'unseen'].includes(state)).length;
  return (
    <p class="sums" data-figure="fleet-sums">
      <b>{countText(hosts.length)}</b> {hosts.length === 1 ? 'host' : 'hosts'}
      {words !== '' && ` (${words})`} · <b>{countText(sum(({ guestCount }) => guestCount))}</b> guests hold{' '}
      <b>{size(sum(({ residentBytes }) => residentBytes))}</b> and need{' '}
      <b>{size(sum(({ needBytes }) => needBytes))}</b> of <b>{size(sum(({ memoryBytes }) => memoryBytes))}</b>
      {old > 0 && `, of ${old} by an old report`}
    </p>
  );
}

function Moves({ picture: { moves } }: { picture: FleetPicture }) {
  return (
    <section class="card fleet-moves" aria-label="Moves under way">
      <h2>Moves under way</h2>
      {moves.length === 0 ? (
        <p class="note">No guest is on its way.</p>
      ) : (
        <ul>
          {moves.map(({ order, guest, from, to, why, status, sentBytes, remainingBytes }) => (
            <li key={order} data-move={guest}>
              <b>{guest}</b> from {from} to {to}: {status}, <span>{size(sentBytes)}</span> sent,{' '}
              <span>{size(remainingBytes)}</span> left
              <p class="why">{why ?? 'Why is not known: its order cannot be read.'}</p>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Hosts({ picture: { hosts }, asked, ask }: KnownProps) {
  const [sift, setSift] = useState('');
  const [chosen, setChosen] = useState<ReadonlyMap<string, boolean>>(new Map());
  const wanted = sift.trim().toLowerCase();
  const found = hosts.filter(({ name }) => name.toLowerCase().includes(wanted));
  const isOpen = (name: string) => chosen.get(name) ?? hosts.length <= OPEN_MAX;
  const turn = (name: string) => {
    const open = !isOpen(name);
    setChosen(new Map([...chosen, [name, open]]));
    ask(open ? name : asked === name ? undefined : asked);
  };
  return (
    <section class="fleet-hosts" aria-label="Hosts">
      <div class="overview-head">
        <h2>Hosts</h2>
        {hosts.length >= SIFT_FROM && <Sift what="host" value={sift} change={setSift} />}
      </div>
      <FleetLegend />
      {found.slice(0, SHOWN_MAX).map(host => (
        <FleetHostCard
          key={host.name}
          host={host}
          open={isOpen(host.name)}
          turn={() => turn(host.name)}
          ask={() => ask(host.name)}
        />
      ))}
      {found.length === 0 && (
        <p class="empty">
          {hosts.length === 0 ? 'No host has reported.' : `No host’s name holds “${sift}”.`}
        </p>
      )}
      {found.length > SHOWN_MAX && <p class="note">{countText(found.length - SHOWN_MAX)} more hosts.</p>}
    </section>
  );
}

function Decisions({ picture: { events } }: { picture: FleetPicture }) {
  return (
    <section class="card" aria-label="Decisions">
      <h2>Decisions, orders and outcomes</h2>
      {events.length === 0 ? (
        <p class="note">None is known.</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
        <ol class="events" tabIndex={0} aria-label="Decisions, newest first">
          {events.map(({ sequence, timeMs, words }) => (
            <li key={sequence} data-decision={sequence}>
              <time dateTime={new Date(timeMs).toISOString()}>{clock(timeMs)}</time>
              <span>{words}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
