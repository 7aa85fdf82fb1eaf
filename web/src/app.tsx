/** The frame of the page: header, trouble, and what the route shows. */
import { useEffect } from 'preact/hooks';
import { GuestPage } from './guest-page.tsx';
import { Header } from './header.tsx';
import { live } from './live.ts';
import { Overview } from './overview.tsx';
import { route } from './route.ts';
import { useStore } from './store.ts';
import { Locked, Trouble } from './trouble.tsx';

export function App() {
  const view = useStore(live.view);
  const { guest: name } = useStore(route);
  const guest = view.guests.find(({ status }) => status.name === name);
  useEffect(() => {
    document.title = name === undefined ? 'Aerostat' : `${name} · Aerostat`;
  }, [name]);
  if (view.connection === 'locked') return <Locked />;
  return (
    <>
      <Header view={view} />
      <Trouble view={view} />
      <main class={view.connection === 'lost' ? 'stale' : ''}>
        {view.seenAtMs === null ? (
          <p class="empty">{view.connection === 'lost' ? '' : 'Asking the daemon…'}</p>
        ) : name === undefined ? (
          <Overview guests={view.guests} />
        ) : (
          <GuestPage key={name} name={name} guest={guest} />
        )}
      </main>
    </>
  );
}
