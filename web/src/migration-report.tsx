/** What a migration that is over came to. */
import type { MigrationReport } from './api.ts';
import { count, duration, size } from './format.ts';

export function MigrationReportList({ to, report }: { to: string; report: MigrationReport }) {
  const rows: readonly (readonly [label: string, value: string])[] = [
    ['rounds', count(report.rounds)],
    ['over the wire', size(report.bytes)],
    ['pages sent', count(report.pages)],
    ['only zeros', count(report.zeroPages)],
    ['sent again', count(report.resentPages)],
    ['not sent: named as free', count(report.freePages)],
    ['not sent: ballooned', count(report.balloonPages)],
    ['not sent: nothing was held for them', count(report.unbackedPages)],
    ['named as free, then written and sent', count(report.hintRaces)],
  ];
  return (
    <div class="outcome" role="status">
      <p class="now">
        Runs at <b>{to}</b>
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
