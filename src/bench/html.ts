/**
 * A benchmark's report as one HTML file that needs nothing else, and its charts as SVG for documents. How bars are drawn
 * is bar-chart.ts's.
 */
import { writeFileSync } from 'node:fs';
import { type Bar, drawBars, escapeXml as escapeHtml } from './bar-chart.ts';
import type { BenchReport, BenchRow, Spread } from './report.ts';
import { drawScatter, type Point } from './scatter-chart.ts';

/** What is drawn of a report. */
export type ChartPlan = BarPlan | ScatterPlan;

/** One figure against another, a point for each case, a chart for each of `scenarios`. */
export interface ScatterPlan {
  readonly title: string;
  readonly scenarios: readonly string[];
  readonly x: readonly [figure: string, label: string];
  readonly y: readonly [figure: string, label: string];
  /** The case that is marked. */
  readonly marked?: string;
  readonly logarithmic?: boolean;
}

/** One chart: bars by case, a chart for each scenario. */
export interface BarPlan {
  readonly title: string;
  /** Figures of a row, with what they are called. */
  readonly figures: readonly (readonly [figure: string, label: string])[];
  readonly unit: string;
  /** Which scenarios; all unless this is said. */
  readonly scenarios?: readonly string[];
  /** The figures are parts of one whole; they stand side by side unless this is said. */
  readonly stacked?: boolean;
  readonly logarithmic?: boolean;
}

export interface NamedChart {
  /** Fit for a file's name. */
  readonly name: string;
  readonly svg: string;
}

function barOf(value: BenchRow[string] | undefined): Bar | undefined {
  if (typeof value === 'number') return { value };
  if (typeof value !== 'object' || value === null) return undefined;
  const { min, median, max } = value;
  return { value: median, range: { min, max } };
}

const nameOf = (title: string, scenario: string): string =>
  `${title} ${scenario}`.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');

/** The charts of all plans; a scenario of which no row has a plan's figures has no chart of it. */
export function drawCharts(report: BenchReport, plans: readonly ChartPlan[]): NamedChart[] {
  const scenarios = [...new Set(report.rows.map(row => row.scenario))];
  return plans.flatMap(plan =>
    scenarios
      .filter(scenario => plan.scenarios?.includes(scenario) ?? true)
      .flatMap(scenario => {
        const rows = report.rows.filter(row => row.scenario === scenario);
        const svg = 'x' in plan ? scatterOf(plan, scenario, rows) : barsOf(plan, scenario, rows);
        return svg === undefined ? [] : [{ name: nameOf(plan.title, scenario), svg }];
      }),
  );
}

function barsOf(plan: BarPlan, scenario: string, rows: readonly BenchRow[]): string | undefined {
  const { title, figures, scenarios: _, ...rest } = plan;
  const bars = rows.map(row => ({ label: row.case, bars: figures.map(([figure]) => barOf(row[figure])) }));
  if (bars.every(row => row.bars.every(bar => bar === undefined))) return undefined;
  const series = figures.map(([, label]) => label);
  return drawBars({ ...rest, title: `${title}, ${scenario}`, series, rows: bars });
}

function scatterOf(plan: ScatterPlan, scenario: string, rows: readonly BenchRow[]): string | undefined {
  const { title, x, y, marked, logarithmic = false } = plan;
  const points = rows.flatMap((row): Point[] => {
    const [across, up] = [barOf(row[x[0]]), barOf(row[y[0]])];
    if (across === undefined || up === undefined) return [];
    return [{ name: row.case, x: across.value, y: up.value, marked: row.case === marked }];
  });
  if (points.length === 0) return undefined;
  return drawScatter({ title: `${title}, ${scenario}`, xLabel: x[1], yLabel: y[1], points, logarithmic });
}

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
export function writeHtmlReport(path: string, report: BenchReport, plans: readonly ChartPlan[]): void {
  const charts = drawCharts(report, plans);
  writeFileSync(path, htmlReport(report, charts));
  const stem = path.replace(/\.html?$/, '');
  for (const { name, svg } of charts) writeFileSync(`${stem}-${name}.svg`, svg);
}
