/** What the rings and the discards do: rates of the moment, and totals since the guest's socket was opened. */
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { GuestCounters } from './api.ts';
import { countText, percent, size } from './format.ts';
import type { GuestView } from './live.ts';

export function Counters({ guest: { status, history } }: { guest: GuestView }) {
  const { counters } = status;
  if (counters === null) return null;
  const rate = (name: 'buffers' | 'kicks' | 'notifications') => {
    const now = history.rateNow(name);
    return now === null || now === 0 ? '' : `${countText(now)}/s`;
  };
  const rows: readonly (readonly [label: string, total: string, now?: string])[] = [
    ['buffers taken', countText(counters.buffers), rate('buffers')],
    ['kicks from the guest', countText(counters.kicks), rate('kicks')],
    ['interrupts to it', countText(counters.notifications), rate('notifications')],
    ['inflated', size(counters.pages * PAGE_SIZE)],
    ['deflated', size(counters.deflatedPages * PAGE_SIZE)],
    ['kept: taken back while pending', size(counters.keptPages * PAGE_SIZE)],
    ['given back, inflation', size(status.discardedBytes)],
    ['given back, reporting', size(status.reportedBytes)],
    ['calls that gave it back', countText(counters.punches)],
  ];
  const wrong = wrongs(counters);
  return (
    <section class="card" aria-label="Rings and discards">
      <h2>Rings and discards</h2>
      <dl class="pairs">
        {rows.map(([label, total, now = '']) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>
              {now !== '' && <small>{now} · </small>}
              {total}
            </dd>
          </div>
        ))}
        {wrong.map(([label, total]) => (
          <div key={label} class="wrong">
            <dt>{label}</dt>
            <dd>{countText(total)}</dd>
          </div>
        ))}
      </dl>
      {status.lastError !== null && <p class="refused">{status.lastError}</p>}
      {status.lastError === null && wrong.length === 0 && (
        <p class="note">Nothing was refused and nothing failed.</p>
      )}
      {status.features !== null && status.features.length > 0 && (
        <p class="note features">Features that its driver took: {status.features.join(', ')}.</p>
      )}
    </section>
  );
}

function wrongs(counters: GuestCounters): readonly (readonly [label: string, total: number])[] {
  return (
    [
      ['buffers refused', counters.badBuffers],
      ['pages that are none of its own', counters.badPages],
      ['pages taken back that are not known', counters.unknownPages],
      ['requests refused', counters.badRequests],
      ['rings broken', counters.brokenRings],
      [
        `discards failed (${percent(counters.punchFailures / Math.max(1, counters.punches))})`,
        counters.punchFailures,
      ],
    ] as const
  ).filter(([, total]) => total > 0);
}
