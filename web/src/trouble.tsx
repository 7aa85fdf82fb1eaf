/** What is shown when the daemon does not answer, or wants a token. */
import { useState } from 'preact/hooks';
import { setToken } from './api.ts';
import { clock } from './format.ts';
import { live, type View } from './live.ts';

export function Trouble({ view }: { view: View }) {
  const { connection, trouble, seenAtMs } = view;
  const gone = departureWords(view);
  return (
    <div role="status" aria-live="polite">
      {connection === 'lost' && gone !== '' && <p class="trouble">{gone}</p>}
      {connection === 'lost' && gone === '' && (
        <p class="trouble">
          <strong>Connection lost:</strong> {trouble}.{' '}
          {seenAtMs === null ? 'Nothing is known yet.' : `What you see is from ${clock(seenAtMs)}.`} Trying
          again every second.
        </p>
      )}
    </div>
  );
}

/** A machine's daemon ends when the machine has left, which is no trouble; empty where that is not the reason. */
function departureWords({ guests }: View): string {
  const homes = guests.map(({ status, migration }) =>
    migration?.migration?.report ? `${status.name} runs at ${migration.migration.to} now` : '',
  );
  if (homes.length === 0 || homes.includes('')) return '';
  return `${homes.join(', ')}; what served this page ended with that. What you see is from before.`;
}

export function Locked() {
  const [text, setText] = useState('');
  const [tried, setTried] = useState(false);
  const { trouble } = live.view.value;
  const enter = (event: Event) => {
    event.preventDefault();
    setToken(text);
    setTried(true);
    live.refresh();
  };
  return (
    <main class="locked">
      <form class="card" onSubmit={enter}>
        <h1>Aerostat</h1>
        <p>This daemon asks for its token: the one in its --token-file, or in AEROSTAT_TOKEN.</p>
        <label>
          Token
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            required
            value={text}
            onInput={event => setText(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="primary">
          Enter
        </button>
        <p class="refused" role="alert">
          {tried ? trouble : ''}
        </p>
      </form>
    </main>
  );
}
