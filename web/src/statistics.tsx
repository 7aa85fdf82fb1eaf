/** What the guest says of its memory, every figure with whether it said it. */
import { useEffect, useState } from 'preact/hooks';
import type { GuestStatistics } from './api.ts';
import { countText, duration, size, UNKNOWN } from './format.ts';
import type { GuestView } from './live.ts';

const ROWS: readonly (readonly [name: keyof GuestStatistics, label: string, format: typeof size])[] = [
  ['totalBytes', 'total', size],
  ['freeBytes', 'free', size],
  ['availableBytes', 'available', size],
  ['cacheBytes', 'cache', size],
  ['swapInBytes', 'swapped in', size],
  ['swapOutBytes', 'swapped out', size],
  ['majorFaults', 'major faults', countText],
  ['minorFaults', 'minor faults', countText],
  ['hugetlbAllocations', 'huge pages taken', countText],
  ['hugetlbFailures', 'huge pages refused', countText],
  ['oomKills', 'out-of-memory kills', countText],
  ['allocationStalls', 'allocation stalls', countText],
  ['asyncScannedPages', 'scanned, background', countText],
  ['directScannedPages', 'scanned, waiting', countText],
  ['asyncReclaimedPages', 'reclaimed, background', countText],
  ['directReclaimedPages', 'reclaimed, waiting', countText],
];

export function StatisticsCard({ guest: { sample, sampledAtMs, status } }: { guest: GuestView }) {
  const told = ROWS.filter(([name]) => (sample?.statistics[name] ?? null) !== null);
  const untold = ROWS.length - told.length;
  return (
    <section class="card" aria-label="Statistics">
      <h2>
        The guest says <Age atMs={sampledAtMs} />
      </h2>
      {sampledAtMs === null || !status.connected ? (
        <p class="note">Nothing: it sent no statistics.</p>
      ) : (
        <dl class="pairs">
          {told.map(([name, label, format]) => (
            <div key={name}>
              <dt>{label}</dt>
              <dd data-statistic={name}>{format(sample?.statistics[name])}</dd>
            </div>
          ))}
        </dl>
      )}
      {sampledAtMs !== null && untold > 0 && (
        <p
          class="note"
          title={ROWS.filter(row => !told.includes(row))
            .map(([, label]) => label)
            .join(', ')}
        >
          {untold} more that its driver does not tell.
        </p>
      )}
    </section>
  );
}

/** How long ago, counted on while nothing new comes. */
function Age({ atMs }: { atMs: number | null }) {
  const [nowMs, setNowMs] = useState(Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNowMs(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, []);
  if (atMs === null) return null;
  const ageMs = Math.max(0, nowMs - atMs);
  return (
    <small class={ageMs > 60_000 ? 'age old' : 'age'}>
      {ageMs < 1500 ? 'just now' : `${duration(ageMs) || UNKNOWN} ago`}
    </small>
  );
}
