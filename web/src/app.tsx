/** The frame of the page: header, trouble, and what the route shows. */
import { useEffect } from 'preact/hooks';
import { FleetPage } from './fleet-page.tsx';
import { GuestPage } from './guest-page.tsx';
import { Header } from './header.tsx';
import { live } from './live.ts';
import { Overview } from './overview.tsx';
import { PolicyPage } from './policy-page.tsx';
import { route } from './route.ts';
import { useStore } from './store.ts';
import { Locked, Trouble } from './trouble.tsx';

export function App() {
  const view = useStore(live.view);
  const { guest: name, policy, fleet } = useStore(route);
  const guest = view.guests.find(({ status }) => status.name === name);
  useEffect(() => {
    const place = policy ? 'Memory policy' : fleet ? 'Fleet' : name;
    document.title = place === undefined ? 'Aerostat' : `${place} · Aerostat`;
  }, [name, policy, fleet]);
  if (view.connection === 'locked') return <Locked />;
  return (
    <>
      <Header view={view} />
      <Trouble view={view} />
      <main class={view.connection === 'lost' ? 'stale' : ''}>
        {view.seenAtMs === null ? (
          <p class="empty">{view.connection === 'lost' ? '' : 'Asking the daemon…'}</p>
        ) : policy ? (
          <PolicyPage />
        ) : fleet ? (
          <FleetPage />
        ) : name === undefined ? (
          <Overview guests={view.guests} />
        ) : (
          <GuestPage key={name} name={name} guest={guest} />
        )}
      </main>
    </>
  );
}
