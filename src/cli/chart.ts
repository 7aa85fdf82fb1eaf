/** Sizes over time, drawn with characters. */
import asciichart from 'asciichart';
import { formatSize } from './size.ts';

export interface Series {
  readonly label: string;
  readonly colour: 'blue' | 'green' | 'yellow' | 'red';
  /** Bytes, oldest first; all series have the same number of them. */
  readonly values: readonly number[];
}

export interface ChartOptions {
  /** Cells, the scale included. */
  readonly width: number;
  /** Rows, the legend excluded. */
  readonly height: number;
  readonly colours: boolean;
}

const SCALE_WIDTH = 7;
/** Between the scale and the first point. */
const AXIS_WIDTH = 2;

/** The chart's rows and a legend; of each series the newest part that fits. */
export function renderChart(series: readonly Series[], { width, height, colours }: ChartOptions): string[] {
  const points = Math.max(2, width - SCALE_WIDTH - AXIS_WIDTH);
  const shown = series.map(({ values }) => values.slice(-points));
  if (shown[0].length === 0) return [];
  const rows = asciichart.plot(shown, {
    min: 0,
    height: height - 1,
    format: value => formatSize(Math.max(0, Math.round(value))).padStart(SCALE_WIDTH),
    ...(colours ? { colors: series.map(({ colour }) => asciichart[colour]) } : {}),
  });
  const legend = series.map(({ label, colour }) =>
    colours ? `${asciichart[colour]}${label}\u001b[0m` : label,
  );
  return [...rows.split('\n'), `${' '.repeat(SCALE_WIDTH + AXIS_WIDTH)}${legend.join('  ')}`];
}
