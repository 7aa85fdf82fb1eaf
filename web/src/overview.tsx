/** All guests at a glance: one row each, sorted and filtered. */

import { useState } from 'preact/hooks';
import { availableShare, keptWords, removedWords, residentWords } from '../../src/control/judgement.ts';
import { balloonOf, sumKnown } from '../../src/control/memory-use.ts';
import { percent, size } from './format.ts';
import { Marks } from './guest-state.tsx';
import type { GuestView } from './live.ts';
import { BarLegend, MemoryBar } from './memory-bar.tsx';
import { FLEET_LINK, guestLink } from './route.ts';
import { Sift } from './sift.tsx';

type Order = 'name' | 'memory' | 'balloon' | 'resident' | 'available';

const availableOf = ({ status, sample }: GuestView) => availableShare(status, sample);

/** At least so much, where the balloon grew after the guest had said how much it has. */
function availableWords(guest: GuestView): string {
  const available = guest.status.connected ? availableOf(guest) : null;
  return `${available?.old ? '≥ ' : ''}${percent(available?.share)}`;
}

/** What an order sorts by, the largest first; a guest that does not tell comes last. */
const KEYS: Record<Exclude<Order, 'name'>, (guest: GuestView) => number> = {
  memory: ({ status }) => status.memoryBytes ?? -1,
  balloon: ({ status }) => balloonOf(status) ?? -1,
  resident: ({ status }) => status.residentBytes ?? -1,
  // The neediest first.
  available: guest => -(availableOf(guest)?.share ?? 2),
};

const byName = new Intl.Collator('en', { numeric: true });

function sorted(guests: readonly GuestView[], order: Order): GuestView[] {
  const names = (a: GuestView, b: GuestView) => byName.compare(a.status.name, b.status.name);
  if (order === 'name') return [...guests].sort(names);
  const key = KEYS[order];
  return [...guests].sort((a, b) => key(b) - key(a) || names(a, b));
}

const COLUMNS: readonly (readonly [order: Order, label: string, title: string])[] = [
  ['name', 'Guest', 'By name'],
  ['memory', 'Memory', 'What the guest was given; the largest first'],
  ['balloon', 'Balloon', 'What it gave away again, and the target where it is another; the largest first'],
  ['resident', 'Resident', 'What the host holds for it; the largest first'],
  ['available', 'Available', 'Share of its memory that its programs can still get; the neediest first'],
];

/** Sorted the other way round than the rest. */
const RISING: readonly Order[] = ['name', 'available'];

/** Fewer are seen at once anyway. */
const SIFT_FROM = 8;

export function Overview({ guests }: { guests: readonly GuestView[] }) {
  const [order, setOrder] = useState<Order>('name');
  const [sift, setSift] = useState('');
  const wanted = sift.trim().toLowerCase();
  const shown = sorted(
    guests.filter(({ status }) => status.name.toLowerCase().includes(wanted)),
    order,
  );
  if (guests.length === 0) return <NoGuests />;
  return (
    <section class="overview" aria-label="Guests">
      <div class="overview-head">
        <h1>{guests.length === 1 ? '1 guest' : `${guests.length} guests`}</h1>
        <Sums guests={guests} />
        {guests.length >= SIFT_FROM && <Sift what="guest" value={sift} change={setSift} />}
      </div>
      <BarLegend />
      <fieldset class="columns" aria-label="Order">
        {COLUMNS.map(([column, label, title]) => (
          <button
            key={column}
            type="button"
            class={`column ${column} ${RISING.includes(column) ? 'rising' : 'falling'}`}
            title={title}
            aria-pressed={order === column}
            onClick={() => setOrder(column)}
          >
            {label}
          </button>
        ))}
      </fieldset>
      <ul class="guests">
        {shown.map(guest => (
          <Row key={guest.status.name} guest={guest} />
        ))}
      </ul>
      {shown.length === 0 && <p class="empty">No guest’s name holds “{sift}”.</p>}
    </section>
  );
}

function NoGuests() {
  return (
    <section class="overview" aria-label="Guests">
      <h1>No guests</h1>
      <p class="empty">
        A daemon serves one for each <code>--socket-path</code> that it is started with. Guests of QEMU and
        domains of libvirt are here as long as they run. Guests of other hosts are with their{' '}
        <a href={FLEET_LINK}>fleet</a>.
      </p>
    </section>
  );
}

function Sums({ guests }: { guests: readonly GuestView[] }) {
  // What has shown no memory is waiting, and has none to be summed.
  const shown = guests.filter(({ use }) => use !== undefined);
  const sum = (of: (guest: GuestView) => number | null | undefined) => sumKnown(shown.map(of)).bytes;
  const held = sumKnown(shown.map(({ use }) => use?.freeHeld));
  return (
    <p class="sums">
      <b>{size(sum(({ use }) => use?.memory))}</b> given · <b>{size(sum(({ use }) => use?.ballooned))}</b>{' '}
      ballooned · <b>{size(held.bytes)}</b> free and yet held
      {held.bytes !== null && held.unknown > 0 && ` (${held.unknown} not known)`}
    </p>
  );
}

function Row({ guest }: { guest: GuestView }) {
  const { status, use } = guest;
  const { targetBytes } = status;
  const balloonBytes = balloonOf(status);
  return (
    <li>
      <a
        class={status.connected ? 'row' : 'row waiting'}
        href={guestLink(status.name)}
        data-guest={status.name}
      >
        <span class="name">
          <b>{status.name}</b>
          <Marks guest={guest} />
        </span>
        {use === undefined ? <span class="memory-bar none" /> : <MemoryBar use={use} />}
        <Figure name="memory" value={size(status.memoryBytes)} />
        <Figure
          name="balloon"
          value={size(balloonBytes)}
          more={targetBytes === null || targetBytes === balloonBytes ? '' : `→ ${size(targetBytes)}`}
          title={[keptWords(status, size), removedWords(status, size)]
            .filter(words => words !== '')
            .join('; ')}
        />
        <Figure name="resident" value={size(status.residentBytes)} title={residentWords(status)} />
        <Figure name="available" value={availableWords(guest)} />
      </a>
    </li>
  );
}

interface FigureProps {
  readonly name: Order;
  readonly value: string;
  readonly more?: string;
  /** What the figure counts, where its caption does not say it. */
  readonly title?: string;
}

function Figure({ name, value, more = '', title = '' }: FigureProps) {
  return (
    <span class={`figure ${name}`} title={title === '' ? undefined : title}>
      <span class="caption">{name}</span> {value}
      {more !== '' && <small> {more}</small>}
    </span>
  );
}
