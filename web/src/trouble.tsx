/** What is shown when the daemon does not answer, or wants a token. */
import { useState } from 'preact/hooks';
import { setToken } from './api.ts';
import { clock } from './format.ts';
import { live, type View } from './live.ts';

export function Trouble({ view: { connection, trouble, seenAtMs } }: { view: View }) {
  return (
    <div role="status" aria-live="polite">
      {connection === 'lost' && (
        <p class="trouble">
          <strong>Connection lost:</strong> {trouble}.{' '}
          {seenAtMs === null ? 'Nothing is known yet.' : `What you see is from ${clock(seenAtMs)}.`} Trying
          again every second.
        </p>
      )}
    </div>
  );
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
