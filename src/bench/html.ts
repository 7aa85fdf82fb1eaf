/**
 * A benchmark's report as one HTML file that needs nothing else, and its charts as SVG for documents. The drawing is
 * echarts', run without a browser; it is loaded only when a report is asked for.
 */
import { writeFileSync } from 'node:fs';
import { AerostatError } from '../sys/error.ts';
import type { BenchReport, BenchRow, Spread } from './report.ts';

/** One chart: bars by case, stacked or side by side, a chart for each scenario. */
export interface ChartPlan {
  readonly title: string;
  /** Figures of a row, with what they are called; more than one are stacked. */
  readonly figures: readonly (readonly [figure: string, label: string])[];
  readonly unit: string;
  readonly logarithmic?: boolean;
}

export interface NamedChart {
  /** Fit for a file's name. */
  readonly name: string;
  readonly svg: string;
}

const WIDTH = 820;
const ROW_HEIGHT = 26;
const FRAME_HEIGHT = 130;

const medianOf = (value: BenchRow[string] | undefined): number => {
  if (typeof value === 'number') return value;
  return typeof value === 'object' && value !== null ? (value as Spread).median : 0;
};

/** @throws AerostatError AEROSTAT_REPORT when the drawing library is not installed */
export async function drawCharts(report: BenchReport, plans: readonly ChartPlan[]): Promise<NamedChart[]> {
  const echarts = await import('echarts').catch(cause => {
    throw new AerostatError('AEROSTAT_REPORT', 'a report needs the package echarts; npm install echarts', {
      cause,
    });
  });
  const scenarios = [...new Set(report.rows.map(row => row.scenario))];
  return plans.flatMap(plan =>
    scenarios.map(scenario => {
      const rows = report.rows.filter(row => row.scenario === scenario);
      const height = FRAME_HEIGHT + rows.length * ROW_HEIGHT;
      const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
      chart.setOption(optionsOf(plan, scenario, rows));
      const svg = chart.renderToSVGString();
      chart.dispose();
      const name = `${plan.title} ${scenario}`.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
      return { name, svg };
    }),
  );
}

function optionsOf(
  { title, figures, unit, logarithmic = false }: ChartPlan,
  scenario: string,
  rows: readonly BenchRow[],
) {
  return {
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: `${title}, ${scenario}`, left: 'center', textStyle: { fontSize: 14 } },
    legend: { top: 28 },
    grid: { left: 10, right: 30, top: 62, bottom: 34, containLabel: true },
    xAxis: { type: logarithmic ? 'log' : 'value', name: unit, nameLocation: 'middle', nameGap: 26 },
    yAxis: { type: 'category', inverse: true, data: rows.map(row => row.case) },
    series: figures.map(([figure, label]) => ({
      name: label,
      type: 'bar',
      ...(figures.length > 1 ? { stack: 'all' } : {}),
      data: rows.map(row => Number(medianOf(row[figure]).toPrecision(4))),
    })),
  } as const;
}

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeHtml = (text: string): string => text.replaceAll(/[&<>"]/g, character => ESCAPES[character]);

const STYLE = `body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c1c1c}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap}
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}tr:nth-child(even){background:#f4f4f4}figure{margin:1.5rem 0}svg{max-width:100%;height:auto}
code{background:#f4f4f4;padding:.1rem .3rem}`;

/** The report as one page: what was run and where, the charts, and every row. */
export function htmlReport(report: BenchReport, charts: readonly NamedChart[]): string {
  const { command, date, host, version, rows, ratios } = report;
  const figures = [...new Set(rows.flatMap(row => Object.keys(row)))].filter(
    name => name !== 'case' && name !== 'scenario',
  );
  const cell = (value: BenchRow[string] | undefined): string => {
    if (value === undefined || value === null) return '–';
    if (typeof value === 'string') return escapeHtml(value);
    if (typeof value === 'number') return String(Number(value.toPrecision(4)));
    const { min, median, max } = value as Spread;
    return `<span title="${min.toPrecision(4)} to ${max.toPrecision(4)}">${Number(median.toPrecision(4))}</span>`;
  };
  const head = ['scenario', 'case', ...figures].map(name => `<th>${escapeHtml(name)}</th>`).join('');
  const body = rows
    .map(
      row =>
        `<tr>${['scenario', 'case', ...figures].map(name => `<td>${cell(row[name])}</td>`).join('')}</tr>`,
    )
    .join('\n');
  const ratioRows = Object.entries(ratios)
    .map(([name, value]) => `<tr><td>${escapeHtml(name)}</td><td>${value}</td></tr>`)
    .join('\n');
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(command)}</title><style>${STYLE}</style>
<h1>${escapeHtml(command)}</h1>
<p>Aerostat ${escapeHtml(version)}, ${escapeHtml(date)}, Linux ${escapeHtml(host.kernel)}, Node ${escapeHtml(host.node)},
${host.cores} × ${escapeHtml(host.cpu)}, ${(host.memoryBytes / 2 ** 30).toFixed(0)} GiB.
Figures are medians of one run (hover for minimum and maximum); ratios matter, absolute times are the machine's.</p>
${charts.map(({ svg }) => `<figure>${svg}</figure>`).join('\n')}
<h2>Ratios</h2><table><tr><th>ratio</th><th>value</th></tr>${ratioRows}</table>
<h2>Rows</h2><table><tr>${head}</tr>
${body}</table></html>
`;
}

/** Writes the page to `path` and each chart beside it. */
export async function writeHtmlReport(
  path: string,
  report: BenchReport,
  plans: readonly ChartPlan[],
): Promise<void> {
  const charts = await drawCharts(report, plans);
  writeFileSync(path, htmlReport(report, charts));
  const stem = path.replace(/\.html?$/, '');
  for (const { name, svg } of charts) writeFileSync(`${stem}-${name}.svg`, svg);
}
