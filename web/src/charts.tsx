/** Time series since the page was opened: memory, what goes back to the host, and the rings. */
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { clock, countText, size, UNKNOWN } from './format.ts';
import { type Gauge, HISTORY_SAMPLES_MAX, type History, type Total } from './history.ts';
import type { GuestView } from './live.ts';
import { useStore } from './store.ts';
import { colour, theme } from './theme.ts';

type Values = readonly (number | null)[];

interface Line {
  readonly label: string;
  /** A custom property of style.css. */
  readonly colour: string;
  readonly dashed?: boolean;
  readonly filled?: boolean;
  /** Drawn as steps: it holds its value until it changes. */
  readonly stepped?: boolean;
  readonly values: (history: History) => Values;
}

interface Chart {
  readonly title: string;
  readonly unit: (value: number | null | undefined) => string;
  readonly lines: readonly Line[];
  readonly height: number;
  /** Of what only our own device counts. */
  readonly counted?: boolean;
  /** The scale reaches at least so far. */
  readonly top: number;
}

const gauge = (name: Gauge) => (history: History) => history.gauge(name);
const rate = (name: Total) => (history: History) => history.rate(name);
const perSecond = (format: typeof size) => (value: number | null | undefined) =>
  value === null || value === undefined ? UNKNOWN : `${format(value)}/s`;

const MIB = 2 ** 20;

const CHARTS: readonly Chart[] = [
  {
    title: 'Memory',
    unit: size,
    height: 190,
    top: MIB,
    lines: [
      { label: 'host resident', colour: 'resident', filled: true, values: gauge('resident') },
      { label: 'balloon', colour: 'ballooned', values: gauge('ballooned') },
      { label: 'target', colour: 'ballooned', dashed: true, stepped: true, values: gauge('target') },
      { label: 'available in the guest', colour: 'available', values: gauge('available') },
    ],
  },
  {
    title: 'Between guest and host',
    unit: perSecond(size),
    height: 110,
    counted: true,
    top: MIB,
    lines: [
      { label: 'given back, inflation', colour: 'ballooned', filled: true, values: rate('discarded') },
      { label: 'given back, reporting', colour: 'reported', values: rate('reported') },
      { label: 'deflated', colour: 'pending', values: rate('deflated') },
    ],
  },
  {
    title: 'Rings',
    unit: perSecond(countText),
    height: 110,
    counted: true,
    top: 10,
    lines: [
      { label: 'buffers', colour: 'resident', filled: true, values: rate('buffers') },
      { label: 'kicks', colour: 'pending', values: rate('kicks') },
      { label: 'interrupts', colour: 'hinted', values: rate('notifications') },
    ],
  },
];

/** Charts are compared moment by moment. */
const TOGETHER = 'guest';
const TICKS_MAX = 4;
/** A chart that was just opened is not to stretch two samples over all of its width. */
const WINDOW_SECONDS_MIN = 60;
const TIME_STEPS_SECONDS = [1, 5, 10, 15, 30, 60, 120, 300, 600];

export function Charts({ guest }: { guest: GuestView }) {
  return (
    <section class="card charts" aria-label="Time series">
      {CHARTS.filter(chart => !chart.counted || guest.status.counters !== null).map(chart => (
        <ChartFigure key={chart.title} chart={chart} guest={guest} />
      ))}
      <p class="note">
        Since this page was opened, as far as {HISTORY_SAMPLES_MAX} samples go: one a second, five while the
        guest moves.
      </p>
    </section>
  );
}

function ChartFigure({ chart, guest }: { chart: Chart; guest: GuestView }) {
  const { edition } = useStore(theme);
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  /** The sample under the pointer, in this chart or another. */
  const [pointed, setPointed] = useState<number | null>(null);
  const { history } = guest;

  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const options = optionsOf(chart, element.clientWidth, TOGETHER);
    const hooks = { setCursor: [({ cursor }: uPlot) => setPointed(cursor.idx ?? null)] };
    const made = new uPlot({ ...options, hooks }, dataOf(chart, history), element);
    plot.current = made;
    const sized = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: chart.height }),
    );
    sized.observe(element);
    return () => {
      sized.disconnect();
      made.destroy();
    };
  }, [chart, history, edition]);

  useEffect(() => {
    plot.current?.setData(dataOf(chart, history));
  }, [guest]);

  const newest = chart.lines.map(({ label, values }) => `${label} ${chart.unit(values(history).at(-1))}`);
  const shown = pointed !== null && pointed < history.length ? pointed : undefined;
  return (
    <figure>
      <figcaption>
        <span class="chart-title">
          {chart.title}
          {shown !== undefined && <time> at {clock(history.times()[shown] * 1000)}</time>}
        </span>
        {chart.lines.map(({ label, colour, dashed, values }) => (
          <span key={label} class="line-label">
            <i class={dashed ? `stroke dashed ${colour}` : `stroke ${colour}`} />
            {label} <b>{chart.unit(values(history).at(shown ?? -1))}</b>
          </span>
        ))}
      </figcaption>
      <div
        ref={box}
        class="plot"
        role="img"
        aria-label={`${chart.title} over time; now ${newest.join(', ')}`}
      />
    </figure>
  );
}

function dataOf({ lines }: Chart, history: History): uPlot.AlignedData {
  return [history.times(), ...lines.map(({ values }) => [...values(history)])];
}

/** What a chart looks like, wherever its values are from. */
export type Look = Pick<Chart, 'unit' | 'height' | 'top'> & {
  readonly lines: readonly Omit<Line, 'values'>[];
};

/** Charts with the same `together` show the same moment. */
export function optionsOf(
  { unit, lines, height, top }: Look,
  width: number,
  together: string,
): uPlot.Options {
  const axis = {
    stroke: colour('ink-3'),
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
    grid: { stroke: colour('line-soft'), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height,
    legend: { show: false },
    padding: [8, 4, 0, 0],
    cursor: { sync: { key: together }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: (_, min, max) => [Math.min(min, max - WINDOW_SECONDS_MIN), max] },
      y: { range: (_, __, max) => [0, scaleTop(Math.max(top, max ?? 0))] },
    },
    axes: [
      {
        ...axis,
        size: 26,
        space: 80,
        incrs: TIME_STEPS_SECONDS,
        values: (_, seconds) => seconds.map(at => new Date(at * 1000).toLocaleTimeString('en-GB')),
      },
      {
        ...axis,
        size: 74,
        splits: (_, __, min, max) =>
          Array.from({ length: TICKS_MAX + 1 }, (___, tick) => min + ((max - min) * tick) / TICKS_MAX),
        values: (_, values) => values.map(value => unit(value)),
      },
    ],
    series: [
      {},
      ...lines.map(
        ({ label, colour: name, dashed, filled, stepped }): uPlot.Series => ({
          label,
          stroke: colour(name),
          width: dashed ? 1.25 : 1.75,
          points: { show: false },
          ...(dashed ? { dash: [5, 4] } : {}),
          ...(filled ? { fill: colour(`${name}-faint`) } : {}),
          ...(stepped && uPlot.paths.stepped !== undefined
            ? { paths: uPlot.paths.stepped({ align: 1 }) }
            : {}),
        }),
      ),
    ],
  };
}

/** The next number above `max` that divides into quarters which read well, in powers of two as memory comes. */
function scaleTop(max: number): number {
  const power = 2 ** Math.floor(Math.log2(max));
  return (
    [1, 1.25, 1.5, 2].map(factor => factor * power).find(candidate => candidate >= max * 1.02) ?? 4 * power
  );
}
