/** The top of every page: the host's memory and pressure, the daemon, and the theme. */

import { type Sum, sumKnown } from '../../src/control/memory-use.ts';
import type { HostStatus } from './api.ts';
import { duration, percent, size } from './format.ts';
import type { PageView } from './live.ts';
import { FLEET_LINK, OVERVIEW_LINK, POLICY_LINK, route } from './route.ts';
import { useStore } from './store.ts';
import { chooseTheme, THEMES, theme } from './theme.ts';

const CONNECTION_WORDS = { connecting: 'connecting', live: 'live', lost: 'lost', locked: 'locked' } as const;

export function Header({ view }: { view: PageView }) {
  const { daemon, connection } = view;
  return (
    <header class="top">
      <a class="brand" href={OVERVIEW_LINK} aria-label="Aerostat, all guests">
        <img src="./favicon.svg" alt="" width="22" height="22" />
        <span>Aerostat</span>
      </a>
      {view.host !== undefined && <HostStrip host={view.host} resident={residentOf(view)} />}
      <div class="top-end">
        <PlaceLinks />
        <span class={`connection ${connection}`} title={daemonTitle(view)}>
          {CONNECTION_WORDS[connection]}
          {daemon !== undefined && <span class="version"> · {daemon.version}</span>}
        </span>
        <ThemeButton />
      </div>
    </header>
  );
}

function PlaceLinks() {
  const { policy, fleet } = useStore(route);
  return (
    <>
      <a class="place" href={FLEET_LINK} aria-current={fleet ? 'page' : undefined}>
        Fleet
      </a>
      <a class="place" href={POLICY_LINK} aria-current={policy ? 'page' : undefined}>
        Memory policy
      </a>
    </>
  );
}

function daemonTitle({ daemon }: PageView): string {
  if (daemon === undefined) return '';
  const cpu = (daemon.cpuUserMs + daemon.cpuSystemMs) / daemon.uptimeMs;
  return `daemon ${daemon.pid}, up ${duration(daemon.uptimeMs)}, ${size(daemon.residentBytes)} resident, ${percent(cpu)} of a core since it started`;
}

/** Of guests that have memory: what waits for its front-end holds none. */
const residentOf = ({ guests }: PageView): Sum =>
  sumKnown(guests.filter(({ use }) => use !== undefined).map(({ status }) => status.residentBytes));

/** Above this share of time spent waiting for memory, programs suffer. */
const PRESSURE_PERCENT_NOTED = 1;
const PRESSURE_PERCENT_BAD = 10;

function HostStrip({ host, resident: { bytes, unknown } }: { host: HostStatus; resident: Sum }) {
  const resident = bytes ?? 0;
  const { totalBytes, availableBytes, pressure } = host;
  const total = totalBytes ?? 0;
  const others = total === 0 || availableBytes === null ? 0 : Math.max(0, total - availableBytes - resident);
  const share = (bytes: number) => `${total === 0 ? 0 : (100 * bytes) / total}%`;
  const some = pressure?.some10Percent ?? null;
  const level =
    some === null ? '' : some >= PRESSURE_PERCENT_BAD ? 'bad' : some >= PRESSURE_PERCENT_NOTED ? 'noted' : '';
  return (
    <section class="host" aria-label="Host">
      <span class="host-name">Host</span>
      <span
        class="host-bar"
        role="img"
        aria-label={`Host memory: guests hold ${size(bytes)}, everything else ${size(others)}, available ${size(availableBytes)} of ${size(totalBytes)}`}
      >
        <i class="resident" style={{ width: share(resident) }} />
        <i class="others" style={{ width: share(others) }} />
      </span>
      <span class="host-figures">
        <span>
          guests <b>{size(bytes)}</b>
          {bytes !== null && unknown > 0 && ` (${unknown} not known)`}
        </span>
        <span>
          available <b>{size(availableBytes)}</b> of {size(totalBytes)}
        </span>
        <span
          class={`pressure ${level}`}
          title="Share of the last 10 seconds in which some program of the host waited for memory (PSI)"
        >
          pressure <b>{some === null ? 'not known' : percent(some / 100)}</b>
        </span>
      </span>
    </section>
  );
}

function ThemeButton() {
  const { choice } = useStore(theme);
  const next = THEMES[(THEMES.indexOf(choice) + 1) % THEMES.length];
  return (
    <button
      type="button"
      class="theme"
      onClick={() => chooseTheme(next)}
      aria-label={`Theme: ${choice}. Change to ${next}`}
      title={`Theme: ${choice}`}
    >
      {{ auto: '◐', light: '☀', dark: '☾' }[choice]}
    </button>
  );
}
