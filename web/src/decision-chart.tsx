/**
 * A guest's need beside what it has over time, as the policy decided, and the decisions that moved its target as marks:
 * the sentence of one is shown while the pointer is over its mark, or the keyboard is on it.
 */
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import type { GuestPolicyDecision } from './api.ts';
import { type Look, optionsOf } from './charts.tsx';
import { clock, size } from './format.ts';
import { useStore } from './store.ts';
import { theme } from './theme.ts';

type Decisions = readonly GuestPolicyDecision[];

const MIB = 2 ** 20;
/** A mark is a button; more of them would lie on each other. */
const MARKS_MAX = 40;

const LOOK: Look = {
  unit: size,
  height: 150,
  top: MIB,
  lines: [
    { label: 'has', colour: 'resident', filled: true, stepped: true },
    { label: 'may keep', colour: 'ballooned', dashed: true, stepped: true },
    { label: 'needs', colour: 'need', stepped: true },
    { label: 'uses', colour: 'available' },
    { label: 'floor', colour: 'floor', dashed: true, stepped: true },
  ],
};

const dataOf = (decisions: Decisions): uPlot.AlignedData => [
  decisions.map(({ timeMs }) => timeMs / 1000),
  decisions.map(({ memoryBytes, actualBytes }) =>
    memoryBytes === null || actualBytes === null ? null : memoryBytes - actualBytes,
  ),
  decisions.map(({ keepBytes }) => keepBytes),
  decisions.map(({ needBytes }) => needBytes),
  decisions.map(({ usedBytes }) => usedBytes),
  decisions.map(({ floorBytes }) => floorBytes),
];

export function DecisionChart({ name, decisions }: { name: string; decisions: Decisions }) {
  const { edition } = useStore(theme);
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  /** Left ends of marks, as the plot last drew them. */
  const [places, setPlaces] = useState<readonly number[]>([]);
  const marked = decisions.filter(({ moved }) => moved).slice(-MARKS_MAX);
  const shownMarks = useRef<Decisions>(marked);
  shownMarks.current = marked;

  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const place = (made: uPlot) =>
      setPlaces(before => {
        const now = shownMarks.current.map(({ timeMs }) =>
          Math.round(made.over.offsetLeft + made.valToPos(timeMs / 1000, 'x')),
        );
        return now.join() === before.join() ? before : now;
      });
    const hooks = { draw: [place] };
    const made = new uPlot(
      { ...optionsOf(LOOK, element.clientWidth, `policy of ${name}`), hooks },
      dataOf(decisions),
      element,
    );
    plot.current = made;
    const sized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: LOOK.height }));
    sized.observe(element);
    return () => {
      sized.disconnect();
      made.destroy();
    };
  }, [name, edition]);

  useEffect(() => {
    plot.current?.setData(dataOf(decisions));
  }, [decisions]);

  const newest = decisions.at(-1);
  return (
    <figure class="decision-chart">
      <figcaption>
        <span class="chart-title">Need and memory</span>
        {LOOK.lines.map(({ label, colour, dashed }) => (
          <span key={label} class="line-label">
            <i class={dashed ? `stroke dashed ${colour}` : `stroke ${colour}`} />
            {label}
          </span>
        ))}
      </figcaption>
      <div class="decision-plot">
        <div
          ref={box}
          class="plot"
          role="img"
          aria-label={`What ${name} needs and has over time; now it needs ${size(newest?.needBytes)} and may keep ${size(newest?.keepBytes)}`}
        />
        <Marks name={name} decisions={marked} places={places} />
      </div>
    </figure>
  );
}

interface MarksProps {
  readonly name: string;
  readonly decisions: Decisions;
  readonly places: readonly number[];
}

/** One stop for the keyboard; arrows go from decision to decision. */
function Marks({ name, decisions, places }: MarksProps) {
  const [at, setAt] = useState<number | undefined>();
  const bar = useRef<HTMLDivElement>(null);
  const current = Math.min(at ?? decisions.length - 1, decisions.length - 1);
  const go = (to: number) => {
    const next = Math.max(0, Math.min(decisions.length - 1, to));
    setAt(next);
    bar.current?.querySelectorAll('button')[next]?.focus();
  };
  const keys: Readonly<Record<string, () => number>> = {
    ArrowLeft: () => current - 1,
    ArrowRight: () => current + 1,
    Home: () => 0,
    End: () => decisions.length - 1,
  };
  const told = at === undefined ? undefined : decisions[current];
  return (
    <>
      <div
        ref={bar}
        class="decision-marks"
        role="toolbar"
        aria-label={`Decisions about ${name}; arrow keys go from one to the next`}
        onKeyDown={event => {
          const to = keys[event.key];
          if (to === undefined) return;
          event.preventDefault();
          go(to());
        }}
      >
        {decisions.map((decision, index) => (
          <button
            key={decision.timeMs}
            type="button"
            class="decision-mark"
            style={{ left: `${places[index] ?? 0}px` }}
            tabIndex={index === current ? 0 : -1}
            aria-label={`${clock(decision.timeMs)}: ${decision.sentence}`}
            onFocus={() => setAt(index)}
            onMouseEnter={() => setAt(index)}
            onMouseLeave={() => setAt(undefined)}
            onBlur={() => setAt(undefined)}
          />
        ))}
      </div>
      <p class="told" aria-hidden="true">
        {told === undefined ? (
          <span class="note">
            {decisions.length === 0
              ? 'No decision moved its target.'
              : 'Point at a mark, or go to it with the keyboard, for why.'}
          </span>
        ) : (
          <>
            <time>{clock(told.timeMs)}</time> {told.sentence}
          </>
        )}
      </p>
    </>
  );
}
