/** What happened to a guest, newest first, as far back as the daemon remembers. */
import type { GuestEvent } from './api.ts';
import { clock, duration, size } from './format.ts';
import { live } from './live.ts';
import { useStore } from './store.ts';

const SHOWN_MAX = 60;

export function Events({ name }: { name: string }) {
  const events = useStore(live.events).filter(({ guest }) => guest === name);
  return (
    <section class="card" aria-label="Events">
      <h2>Events</h2>
      {events.length === 0 ? (
        <p class="note">None that the daemon remembers.</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
        <ol class="events" tabIndex={0} aria-label="Events, newest first">
          {events.slice(0, SHOWN_MAX).map((event, index) => (
            <li key={events.length - index} class={event.type}>
              <time dateTime={new Date(event.timeMs).toISOString()}>{clock(event.timeMs)}</time>
              <span>{wordsOf(event)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function wordsOf({ type, detail }: GuestEvent): string {
  const bytes = (name: string) => size(typeof detail[name] === 'number' ? (detail[name] as number) : null);
  switch (type) {
    case 'connected':
      return 'front-end connected';
    case 'disconnected':
      return 'front-end gone';
    case 'ready':
      return 'driver started';
    case 'reset':
      return 'device reset';
    case 'state':
      return `guest ${String(detail.state)}`;
    case 'target':
      return `target ${bytes('targetBytes')}`;
    case 'target-reached':
      return typeof detail.reachedMs === 'number'
        ? `target reached in ${duration(detail.reachedMs)}`
        : 'target reached';
    case 'hint':
      return `hints ${String(detail.state)}`;
    case 'migration':
      return migrationWords(detail);
    case 'error':
      return String(detail.message);
    default:
      return type;
  }
}

function migrationWords({ to, status, round, message }: GuestEvent['detail']): string {
  const file = typeof to === 'string' && to.startsWith('file:') ? to.slice('file:'.length) : undefined;
  switch (status) {
    case 'connecting':
    case 'setup':
      return file === undefined ? `moves to ${to}` : `is written to ${file}`;
    case 'copying':
    case 'active':
      return round === 0 || round === null ? 'its memory is sent' : `round ${round}`;
    case 'stopping':
    case 'device':
      return 'stands still for the last pages';
    case 'handing-over':
      return file === undefined ? 'is handed over' : 'runs on, and the file is finished';
    case 'done':
      return file === undefined ? `runs at ${to}` : `was written to ${file}`;
    default:
      return String(message ?? `migration: ${status}`);
  }
}
