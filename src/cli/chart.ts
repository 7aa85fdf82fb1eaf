/** Sizes over time, drawn with characters: each series with lines of its own, so that they differ without colours too. */
import { formatSize } from './size.ts';

export interface Series {
  readonly label: string;
  readonly colour: 'blue' | 'green' | 'yellow' | 'red';
  /** Bytes, oldest first; null where nothing is known, which draws nothing. All series have the same number of them. */
  readonly values: readonly (number | null)[];
}

interface ChartOptions {
  /** Cells, the scale included. */
  readonly width: number;
  /** Rows, the legend excluded. */
  readonly height: number;
  readonly colours: boolean;
  /** Whether the terminal shows more than ASCII. Default: true. */
  readonly unicode?: boolean;
}

const SCALE_WIDTH = 7;
/** Between the scale and the first point. */
const AXIS_WIDTH = 2;

const CODES = { red: 31, green: 32, yellow: 33, blue: 34 } as const;

/** What a line is made of: level, upright, and the corners where it leaves a level and where it comes to one. */
interface Pen {
  readonly level: string;
  readonly upright: string;
  readonly leavesUp: string;
  readonly leavesDown: string;
  readonly comesUp: string;
  readonly comesDown: string;
}

const pen = ([level, upright, leavesUp, leavesDown, comesUp, comesDown]: string): Pen => ({
  ...{ level, upright, leavesUp, leavesDown, comesUp, comesDown },
});

/** In the order of the series. */
const PENS = ['─│╯╮╭╰', '╌╎╯╮╭╰', '━┃┛┓┏┗', '┅┇┛┓┏┗'].map(pen);
const ASCII_PENS = ['******', 'oooooo', '++++++', 'xxxxxx'].map(pen);

/** The chart's rows and a legend; of each series the newest part that fits. */
export function renderChart(
  series: readonly Series[],
  { width, height, colours, unicode = true }: ChartOptions,
): string[] {
  const points = Math.max(2, width - SCALE_WIDTH - AXIS_WIDTH);
  const shown = series.map(one => ({ ...one, values: one.values.slice(-points) }));
  if (shown[0].values.length === 0) return [];
  const most = Math.max(1, ...shown.flatMap(({ values }) => values.map(value => value ?? 0)));
  const last = height - 1;
  const rowOf = (bytes: number) => last - Math.round((bytes / most) * last);
  const pens = unicode ? PENS : ASCII_PENS;
  const paint = (text: string, colour: Series['colour']) =>
    colours ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
  const rows: string[][] = Array.from({ length: height }, (_, row) => {
    const scale = formatSize(Math.round((most * (last - row)) / last)).padStart(SCALE_WIDTH);
    return [scale, unicode ? ' ┤' : ' |', ...new Array<string>(points).fill(' ')];
  });
  for (const [at, { values, colour }] of shown.entries()) {
    const put = (row: number, column: number, text: string) => {
      rows[row][column + 2] = paint(text, colour);
    };
    drawLine(
      values.map(value => (value === null ? null : rowOf(value))),
      pens[at % pens.length],
      put,
    );
  }
  const legend = shown.map(({ label, colour }, at) => {
    const { level } = pens[at % pens.length];
    return paint(`${level}${level} ${label}`, colour);
  });
  return [
    ...rows.map(row => row.join('').trimEnd()),
    `${' '.repeat(SCALE_WIDTH + AXIS_WIDTH)}${legend.join('  ')}`,
  ];
}

/** A step from one level to the next is drawn in the column of the next. */
function drawLine(
  levels: readonly (number | null)[],
  { level, upright, leavesUp, leavesDown, comesUp, comesDown }: Pen,
  put: (row: number, column: number, text: string) => void,
): void {
  for (const [column, row] of levels.entries()) {
    const before = column === 0 ? row : levels[column - 1];
    if (row === null) continue;
    if (before === null || before === row) {
      put(row, column, level);
      continue;
    }
    const rises = row < before;
    put(before, column, rises ? leavesUp : leavesDown);
    for (let between = Math.min(row, before) + 1; between < Math.max(row, before); between++) {
      put(between, column, upright);
    }
    put(row, column, rises ? comesUp : comesDown);
  }
}
