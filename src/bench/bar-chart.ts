/**
 * Bars as SVG, drawn without a library: rows of bars side by side or stacked, on a linear or a logarithmic axis, with the
 * value at the end of each row. It knows sizes and numbers, and nothing of benchmarks.
 */

export interface Bar {
  readonly value: number;
  /** How far the measurements lie apart; drawn as a line over the bar's end. */
  readonly range?: { readonly min: number; readonly max: number };
}

interface BarRow {
  readonly label: string;
  /** One for each series, in their order; undefined where nothing was measured. */
  readonly bars: readonly (Bar | undefined)[];
}

interface BarChart {
  readonly title: string;
  readonly unit: string;
  readonly series: readonly string[];
  readonly rows: readonly BarRow[];
  /** The series are parts of one whole. */
  readonly stacked?: boolean;
  readonly logarithmic?: boolean;
}

const WIDTH = 820;
const BAR_HEIGHT = 16;
const ROW_GAP = 10;
const MARGIN = 14;
const TITLE_HEIGHT = 30;
const LEGEND_HEIGHT = 24;
const AXIS_HEIGHT = 44;
/** For the value behind the longest bar. */
const VALUE_WIDTH = 78;
/** Of a character of 12 px in common sans-serif fonts, on the generous side: SVG cannot measure text. */
const CHARACTER_WIDTH = 7;
/** A label longer than this is cut, and shown whole when the pointer rests on it. */
const LABEL_CHARACTERS_MAX = 44;
const TICKS_WANTED = 6;
/** Okabe and Ito's, which those who see fewer colours tell apart as well. */
export const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00'];

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
export const escapeXml = (text: string): string =>
  text.replaceAll(/[&<>"]/g, character => ESCAPES[character]);

/** Four digits that count, and thousands in groups. */
const shown = (value: number): string =>
  Number(value.toPrecision(4)).toLocaleString('en-US', { maximumFractionDigits: 10 });

/** Short, for an axis: 250, 1.5k, 3M. */
export function tickLabel(value: number): string {
  for (const [size, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (value >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  }
  return String(Number(value.toPrecision(3)));
}

export interface Axis {
  readonly ticks: readonly number[];
  /** Where `value` lies between the axis' ends, 0 to 1. */
  readonly at: (value: number) => number;
}

/** Round steps from 0 to at least `max`. */
export function linearAxis(max: number): Axis {
  const top = max > 0 ? max : 1;
  const rough = top / TICKS_WANTED;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find(factor => factor * power >= rough) ?? 10) * power;
  const count = Math.ceil(top / step - 1e-9);
  const ticks = Array.from({ length: count + 1 }, (_, index) => index * step);
  return { ticks, at: value => Math.max(0, value) / (count * step) };
}

/** Powers of ten around `values`; what is not positive lies at the axis' start. */
export function logarithmicAxis(values: readonly number[]): Axis {
  const positive = values.filter(value => value > 0);
  const low = Math.floor(Math.log10(Math.min(1e300, ...positive)) - 1e-9);
  const high = Math.ceil(Math.log10(Math.max(1e-300, ...positive)) + 1e-9);
  if (positive.length === 0) return { ticks: [1], at: () => 0 };
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { ticks, at: value => (value > 0 ? Math.max(0, (Math.log10(value) - low) / (high - low)) : 0) };
}

/** The chart as an SVG document of its own. */
export function drawBars(chart: BarChart): string {
  const { title, unit, series, rows, stacked = false, logarithmic = false } = chart;
  const labels = rows.map(({ label }) => label);
  const labelWidth =
    CHARACTER_WIDTH * Math.min(LABEL_CHARACTERS_MAX, Math.max(0, ...labels.map(label => label.length)));
  const left = MARGIN + labelWidth + 8;
  const right = WIDTH - MARGIN - VALUE_WIDTH;
  const top = TITLE_HEIGHT + (series.length > 1 ? LEGEND_HEIGHT : 0) + 8;
  const rowHeight = BAR_HEIGHT * (stacked ? 1 : series.length);
  const bottom = top + rows.length * (rowHeight + ROW_GAP);
  const ends = rows.flatMap(({ bars }) =>
    stacked ? [sumOf(bars)] : bars.map(bar => bar?.range?.max ?? bar?.value ?? 0),
  );
  const axis = logarithmic
    ? logarithmicAxis(rows.flatMap(({ bars }) => bars.map(bar => bar?.value ?? 0)))
    : linearAxis(Math.max(0, ...ends));
  const x = (value: number): number => left + Math.min(1, axis.at(value)) * (right - left);
  const body = rows.map((row, index) => {
    const y = top + index * (rowHeight + ROW_GAP) + ROW_GAP / 2;
    return drawRow(row, { y, height: rowHeight, x, left, series, stacked, unit });
  });
  const grid = axis.ticks.map(tick => {
    const at = x(tick).toFixed(1);
    return `<path d="M${at} ${top}V${bottom}" stroke="#ddd"/><text x="${at}" y="${bottom + 16}" text-anchor="middle">${tickLabel(tick)}</text>`;
  });
  const height = bottom + AXIS_HEIGHT;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img"
 aria-label="${escapeXml(title)}" font-family="system-ui,sans-serif" font-size="12" fill="#333">
<rect width="100%" height="100%" fill="#fff"/>
<text x="${WIDTH / 2}" y="22" text-anchor="middle" font-size="15" font-weight="600">${escapeXml(title)}</text>
${series.length > 1 ? drawLegend(series) : ''}
${grid.join('\n')}
${body.join('\n')}
<path d="M${left} ${top}V${bottom}" stroke="#888"/>
<text x="${(left + right) / 2}" y="${bottom + 36}" text-anchor="middle">${escapeXml(unit)}</text>
</svg>`;
}

const sumOf = (bars: BarRow['bars']): number => bars.reduce((sum, bar) => sum + (bar?.value ?? 0), 0);

function drawLegend(series: readonly string[]): string {
  let x = MARGIN;
  return series
    .map((name, index) => {
      const at = x;
      x += 34 + name.length * CHARACTER_WIDTH;
      return `<rect x="${at}" y="${TITLE_HEIGHT + 4}" width="12" height="12" fill="${colourOf(index)}"/><text x="${at + 18}" y="${TITLE_HEIGHT + 14}">${escapeXml(name)}</text>`;
    })
    .join('');
}

const colourOf = (index: number): string => COLOURS[index % COLOURS.length];

interface RowPlace {
  readonly y: number;
  readonly height: number;
  readonly x: (value: number) => number;
  readonly left: number;
  readonly series: readonly string[];
  readonly stacked: boolean;
  readonly unit: string;
}

function drawRow({ label, bars }: BarRow, { y, height, x, left, series, stacked, unit }: RowPlace): string {
  const cut = label.length > LABEL_CHARACTERS_MAX ? `${label.slice(0, LABEL_CHARACTERS_MAX - 1)}…` : label;
  const parts = [
    `<text x="${left - 8}" y="${y + height / 2 + 4}" text-anchor="end"><title>${escapeXml(label)}</title>${escapeXml(cut)}</text>`,
  ];
  let before = 0;
  for (const [index, bar] of bars.entries()) {
    if (bar === undefined) continue;
    const from = stacked ? x(before) : left;
    const to = stacked ? x(before + bar.value) : x(bar.value);
    const barY = stacked ? y : y + index * BAR_HEIGHT;
    const said = `${label}, ${series[index]}: ${shown(bar.value)} ${unit}${rangeWords(bar)}`;
    parts.push(
      `<rect x="${from.toFixed(1)}" y="${barY + 1}" width="${Math.max(0.5, to - from).toFixed(1)}" height="${BAR_HEIGHT - 2}" fill="${colourOf(index)}"><title>${escapeXml(said)}</title></rect>`,
    );
    if (!stacked)
      parts.push(drawRange(bar, x, barY), valueAt(x(bar.range?.max ?? bar.value), barY, bar.value));
    before += bar.value;
  }
  if (stacked) parts.push(valueAt(x(before), y, before));
  return parts.join('');
}

const rangeWords = ({ range }: Bar): string =>
  range === undefined || range.min === range.max ? '' : ` (${shown(range.min)} to ${shown(range.max)})`;

function drawRange({ range }: Bar, x: (value: number) => number, y: number): string {
  if (range === undefined || range.min === range.max) return '';
  const middle = y + BAR_HEIGHT / 2;
  const [from, to] = [x(range.min).toFixed(1), x(range.max).toFixed(1)];
  return `<path d="M${from} ${middle}H${to}M${from} ${middle - 3}v6M${to} ${middle - 3}v6" stroke="#333"/>`;
}

const valueAt = (x: number, y: number, value: number): string =>
  `<text x="${(x + 5).toFixed(1)}" y="${y + BAR_HEIGHT / 2 + 4}">${shown(value)}</text>`;
