/**
 * Points as SVG, drawn without a library: one figure against another, each point with its name, and the line of those
 * that none surpasses in both. It knows numbers and names, and nothing of benchmarks.
 */
import { type Axis, COLOURS, escapeXml, linearAxis, logarithmicAxis, tickLabel } from './bar-chart.ts';

export interface Point {
  readonly name: string;
  readonly x: number;
  readonly y: number;
  /** Drawn larger. */
  readonly marked?: boolean;
}

interface ScatterChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly points: readonly Point[];
  /** Of y. */
  readonly logarithmic?: boolean;
}

const WIDTH = 820;
const HEIGHT = 520;
const LEFT = 80;
const RIGHT = 130;
const TOP = 40;
const BOTTOM = 60;

/** Those that no other point surpasses: more of x, and less of y. In order of x. */
export function frontOf(points: readonly Point[]): Point[] {
  return points
    .filter(
      one =>
        !points.some(other => other.x >= one.x && other.y <= one.y && (other.x > one.x || other.y < one.y)),
    )
    .sort((a, b) => a.x - b.x);
}

/** The chart as an SVG document of its own. More of x and less of y is better. */
export function drawScatter(chart: ScatterChart): string {
  const { title, xLabel, yLabel, points, logarithmic = false } = chart;
  const xAxis = linearAxis(Math.max(0, ...points.map(({ x }) => x)));
  const ys = points.map(({ y }) => y);
  const yAxis = logarithmic ? logarithmicAxis(ys) : linearAxis(Math.max(0, ...ys));
  const x = (value: number): number => LEFT + Math.min(1, xAxis.at(value)) * (WIDTH - LEFT - RIGHT);
  const y = (value: number): number =>
    HEIGHT - BOTTOM - Math.min(1, yAxis.at(value)) * (HEIGHT - TOP - BOTTOM);
  const front = frontOf(points);
  const line = front.map(
    (point, at) => `${at === 0 ? 'M' : 'L'}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img"
 aria-label="${escapeXml(title)}" font-family="system-ui,sans-serif" font-size="12" fill="#333">
<rect width="100%" height="100%" fill="#fff"/>
<text x="${WIDTH / 2}" y="22" text-anchor="middle" font-size="15" font-weight="600">${escapeXml(title)}</text>
${grid(xAxis, yAxis, x, y)}
<path d="${line.join('')}" fill="none" stroke="${COLOURS[0]}" stroke-dasharray="4 3"/>
${labelled(points, x, y).join('\n')}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 18}" text-anchor="middle">${escapeXml(xLabel)}</text>
<text transform="translate(18 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escapeXml(yLabel)}</text>
</svg>`;
}

type Place = (value: number) => number;

function grid(xAxis: Axis, yAxis: Axis, x: Place, y: Place): string {
  const bottom = HEIGHT - BOTTOM;
  const xs = xAxis.ticks.map(
    tick =>
      `<path d="M${x(tick).toFixed(1)} ${TOP}V${bottom}" stroke="#ddd"/><text x="${x(tick).toFixed(1)}" y="${bottom + 16}" text-anchor="middle">${tickLabel(tick)}</text>`,
  );
  const ys = yAxis.ticks.map(
    tick =>
      `<path d="M${LEFT} ${y(tick).toFixed(1)}H${WIDTH - RIGHT}" stroke="#ddd"/><text x="${LEFT - 6}" y="${(y(tick) + 4).toFixed(1)}" text-anchor="end">${tickLabel(tick)}</text>`,
  );
  return [...xs, ...ys].join('\n');
}

const LABEL_HEIGHT = 13;

/** Points with their names; names that would lie on each other are moved apart. */
function labelled(points: readonly Point[], x: Place, y: Place): string[] {
  const taken: { readonly x: number; readonly y: number }[] = [];
  return [...points]
    .sort((a, b) => b.y - a.y)
    .map(({ name, x: px, y: py, marked = false }) => {
      const at = { x: x(px), y: y(py) };
      let labelY = at.y + 4;
      while (taken.some(other => Math.abs(other.x - at.x) < 110 && Math.abs(other.y - labelY) < LABEL_HEIGHT))
        labelY += LABEL_HEIGHT;
      taken.push({ x: at.x, y: labelY });
      const colour = marked ? COLOURS[5] : COLOURS[0];
      const said = `${name}: ${Number(px.toPrecision(4))}, ${Number(py.toPrecision(4))}`;
      return `<circle cx="${at.x.toFixed(1)}" cy="${at.y.toFixed(1)}" r="${marked ? 6 : 4}" fill="${colour}"><title>${escapeXml(said)}</title></circle><text x="${(at.x + 9).toFixed(1)}" y="${labelY.toFixed(1)}"${marked ? ' font-weight="600"' : ''}>${escapeXml(name)}</text>`;
    });
}
