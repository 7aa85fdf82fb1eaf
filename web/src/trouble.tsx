/** What is shown when the daemon does not answer, or needs a token. */
import { useState } from 'preact/hooks';
import { api, RefusalError, setToken } from './api.ts';
import { clock } from './format.ts';
import { live, type PageView } from './live.ts';

export function Trouble({ view }: { view: PageView }) {
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
function departureWords({ guests }: PageView): string {
  const homes = guests.map(({ status, migration }) =>
    migration?.migration?.report ? `${status.name} runs at ${migration.migration.to} now` : '',
  );
  if (homes.length === 0 || homes.includes('')) return '';
  return `${homes.join(', ')}; what served this page ended with that. What you see is from before.`;
}

export function Locked() {
  const [text, setText] = useState('');
  const [refused, setRefused] = useState('');
  const enter = async (event: Event) => {
    event.preventDefault();
    if (!setToken(text))
      return setRefused('This is no token: it has letters, digits and signs, and no spaces.');
    setRefused('');
    try {
      await api.daemon();
    } catch (error) {
      const wrong = error instanceof RefusalError && error.status === 401;
      setRefused(wrong ? 'The token is wrong.' : `${(error as Error).message}.`);
    }
    live.refresh();
  };
  return (
    <main class="locked">
      <form class="card" onSubmit={event => void enter(event)}>
        <h1>Aerostat</h1>
        <p>
          This daemon asks for its token: the one in its <code>--token-file</code>, or in{' '}
          <code>AEROSTAT_TOKEN</code>. The address that <code>aerostat dashboard</code> prints holds it.
        </p>
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
          {refused}
        </p>
      </form>
    </main>
  );
}
