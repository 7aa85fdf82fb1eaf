/** One host of a fleet: how it is, its memory as a bar, and its guests. */
import type { FleetHostView } from './api.ts';
import { countText, duration, percent, size, UNKNOWN } from './format.ts';

type Kind = 'bad' | 'noted' | 'calm' | 'quiet';

const STATES: Readonly<Record<FleetHostView['state'], readonly [kind: Kind, words: string, title: string]>> =
  {
    steady: ['calm', 'steady', 'The needs of its guests fit'],
    short: ['bad', 'short', 'Its guests need more than they may have there'],
    draining: ['noted', 'draining', 'It is to be empty: its guests are moved away'],
    empty: ['noted', 'drained', 'It is to be empty, and is'],
    silent: ['bad', 'silent', 'Its report stands still: what is shown is old'],
    unseen: ['bad', 'age unknown', 'Its report was found stored, and may be of any age'],
    implausible: ['bad', 'implausible', 'Its figures make no sense'],
  };

/** What is shown of it is of an old report. */
const isOld = ({ state }: FleetHostView): boolean => state === 'silent' || state === 'unseen';

function ageWords({ state, ageMs }: FleetHostView): string {
  if (ageMs === null) return 'reported at a time that is not known';
  return state === 'silent' ? `silent since ${duration(ageMs)}` : `reported ${duration(ageMs)} ago`;
}

interface Part {
  readonly kind: 'reserve' | 'resident' | 'reserved';
  readonly label: string;
  readonly bytes: number;
}

const partsOf = ({ reserveBytes, residentBytes, incomingBytes }: FleetHostView): readonly Part[] => [
  { kind: 'reserve', label: 'kept by the host', bytes: reserveBytes },
  { kind: 'resident', label: 'held for guests', bytes: residentBytes },
  { kind: 'reserved', label: 'reserved for guests that come', bytes: incomingBytes },
];

interface Props {
  readonly host: FleetHostView;
  readonly open: boolean;
  /** Opens or closes it. */
  readonly turn: () => void;
  /** Asks for its guests. */
  readonly ask: () => void;
}

export function FleetHostCard({ host, open, turn, ask }: Props) {
  const { name, state, leads, guestCount, shortBytes } = host;
  const [kind, words, title] = STATES[state];
  const inside = `guests-of-${name}`;
  return (
    <section
      class={isOld(host) ? 'card fleet-host old' : 'card fleet-host'}
      aria-label={`Host ${name}`}
      data-host={name}
    >
      <div class="policy-row">
        <h3>
          <button type="button" class="fold" aria-expanded={open} aria-controls={inside} onClick={turn}>
            {name}
          </button>
        </h3>
        <span class="marks">
          <span class={`mark ${kind}`} title={title} data-figure="state">
            {words}
          </span>
          {leads && <span class="mark quiet">leads</span>}
          {shortBytes > 0 && (
            <span class="mark bad" data-figure="short">
              {size(shortBytes)} short
            </span>
          )}
        </span>
        <span class="note" data-figure="age">
          {ageWords(host)}
        </span>
      </div>
      <HostBar host={host} />
      <dl class="policy-figures">
        <Figure name="resident" label="held" value={size(host.residentBytes)} />
        <Figure name="need" label="needed" value={size(host.needBytes)} />
        <Figure name="reserved" label="reserved" value={size(host.incomingBytes)} />
        <Figure name="limit" label="limit" value={size(host.memoryBytes - host.reserveBytes)} />
        <Figure name="guests" label={guestCount === 1 ? 'guest' : 'guests'} value={countText(guestCount)} />
      </dl>
      <div id={inside} hidden={!open}>
        {open && <Guests host={host} ask={ask} />}
      </div>
    </section>
  );
}

function Figure({ name, label, value }: { name: string; label: string; value: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd data-figure={name}>{value}</dd>
    </div>
  );
}

function HostBar({ host }: { host: FleetHostView }) {
  const { name, memoryBytes, reserveBytes, needBytes } = host;
  const parts = partsOf(host);
  const all = Math.max(
    memoryBytes,
    reserveBytes + needBytes,
    parts.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  const share = (bytes: number) => `${all === 0 ? 0 : (100 * bytes) / all}%`;
  const spoken = parts.map(({ label, bytes }) => `${label} ${size(bytes)}`).join(', ');
  return (
    <span
      class="budget-bar fleet-bar"
      role="img"
      aria-label={`Memory of ${name}, ${size(memoryBytes)}: ${spoken}; its guests need ${size(needBytes)}${isOld(host) ? '; by an old report' : ''}`}
    >
      {parts.map(({ kind, label, bytes }) => (
        <i key={kind} class={kind} style={{ width: share(bytes) }} title={`${label} ${size(bytes)}`} />
      ))}
      <i
        class="needed"
        style={{ left: share(reserveBytes + needBytes) }}
        title={`needed ${size(needBytes)}`}
      />
    </span>
  );
}

export function FleetLegend() {
  return (
    <ul class="legend" aria-label="Colours of the bars">
      <li>
        <i class="swatch reserve" /> kept by the host
      </li>
      <li>
        <i class="swatch resident" /> held for guests
      </li>
      <li>
        <i class="swatch reserved" /> reserved for guests that come
      </li>
      <li>
        <i class="swatch mark-line" /> needed
      </li>
    </ul>
  );
}

function Guests({ host: { name: host, guests, guestCount }, ask }: { host: FleetHostView; ask: () => void }) {
  if (guestCount === 0) return <p class="note">No guests.</p>;
  if (guests === null) {
    return (
      <p class="note">
        <button type="button" onClick={ask}>
          Show the {countText(guestCount)} guests of {host}
        </button>
      </p>
    );
  }
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
    <section class="fleet-guests" aria-label={`Guests of ${host}`} tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Guest</th>
            <th scope="col">Memory</th>
            <th scope="col">Held</th>
            <th scope="col">Needed</th>
            <th scope="col">Written a second</th>
            <th scope="col">Move</th>
          </tr>
        </thead>
        <tbody>
          {guests.map(
            ({ name, memoryBytes, residentBytes, needBytes, dirtyBytesPerSecond, obstacle, to }) => (
              <tr key={name} data-fleet-guest={name}>
                <th scope="row">{name}</th>
                <td data-figure="memory">{size(memoryBytes)}</td>
                <td
                  data-figure="resident"
                  title={percent(memoryBytes === 0 ? null : residentBytes / memoryBytes)}
                >
                  {size(residentBytes)}
                </td>
                <td data-figure="need">{size(needBytes)}</td>
                <td data-figure="dirty">
                  {dirtyBytesPerSecond === null ? UNKNOWN : size(dirtyBytesPerSecond)}
                </td>
                <td data-figure="move">{to === null ? (obstacle ?? '') : `to ${to}`}</td>
              </tr>
            ),
          )}
        </tbody>
      </table>
    </section>
  );
}
