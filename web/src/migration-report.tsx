/** What a migration that is over came to. */
import type { MigrationReport } from './api.ts';
import { countText, duration, size } from './format.ts';

export function MigrationReportList({ to, report }: { to: string; report: MigrationReport }) {
  const rows: readonly (readonly [label: string, value: string])[] = [
    ['rounds', countText(report.rounds)],
    ['over the wire', size(report.bytes)],
    ['pages sent', countText(report.pages)],
    ['only zeros', countText(report.zeroPages)],
    ['sent again', countText(report.resentPages)],
    ['not sent: named as free', countText(report.freePages)],
    ['not sent: ballooned', countText(report.balloonPages)],
    ['not sent: nothing was held for them', countText(report.unbackedPages)],
    ['named as free, then written and sent', countText(report.hintRaces)],
  ];
  return (
    <div class="outcome" role="status">
      <p class="now">
        {to.startsWith('file:') ? 'Written to' : 'Runs at'} <b>{to.replace(/^file:/, '')}</b>
      </p>
      <p class="note">
        There in {duration(report.totalMs)}; it stood still for <b>{duration(report.downtimeMs)}</b>.
      </p>
      <dl class="pairs">
        {rows.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
