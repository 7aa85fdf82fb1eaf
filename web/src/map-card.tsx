/**
 * The memory map: fetched while it is visible, drawn on a canvas, zoomed by pointer and keyboard. A click zooms to
 * a sixteenth around the cell, a drag to what was dragged over.
 */

import type { RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { isMoving } from '../../src/control/judgement.ts';
import { MAP_MOVING_MS, MAP_MS } from '../../src/server/page-pace.ts';
import { api, type MapLayer, RefusalError } from './api.ts';
import { address, size } from './format.ts';
import { type GuestView, isMigrating } from './live.ts';
import { draw } from './map-drawing.ts';
import {
  columnsFor,
  divideCell,
  type MapPart,
  PARTS,
  type Picture,
  physicalOf,
  pictureOf,
} from './map-picture.ts';
import { useStore } from './store.ts';
import { theme } from './theme.ts';

/** A daemon that has no map now will hardly have one in a second. */
const REFUSED_MS = 5000;
/** A page a cell. */
const ZOOM_BYTES_MIN = 16 * 2 ** 20;
const ZOOM_FACTOR = 16;

interface Range {
  readonly fromBytes: number;
  readonly bytes: number;
}

const LEGEND: readonly (readonly [part: MapPart, layer: MapLayer, label: string, title: string])[] = [
  ['resident', 'resident', 'resident', 'The host holds memory for it'],
  ['ballooned', 'ballooned', 'ballooned', 'The guest gave it away'],
  ['pending', 'pending', 'pending', 'Given away, not yet given back to the host'],
  ['reported', 'reported', 'reported', 'Given back by free page reporting, and not used again'],
  ['hinted', 'hinted', 'hinted', 'The guest said in the newest hint session that it does not use it'],
  ['dirty', 'dirty', 'dirty', 'The migration under way has it still to send'],
];

export function MapCard({ guest }: { guest: GuestView }) {
  const { memoryBytes, connected } = guest.status;
  /** The ranges that were zoomed into, the widest first. */
  const [zooms, setZooms] = useState<readonly Range[]>([]);
  const range = zooms.at(-1);
  const card = useRef<HTMLElement>(null);
  const { picture, refused } = usePicture(guest, range, card);

  useEffect(() => setZooms([]), [memoryBytes]);

  const zoomTo = (wanted: Range) => {
    const bytes = Math.max(ZOOM_BYTES_MIN, wanted.bytes);
    if (memoryBytes === null || bytes >= (range?.bytes ?? memoryBytes)) return;
    const fromBytes = Math.max(0, Math.min(wanted.fromBytes, memoryBytes - bytes));
    setZooms([...zooms, { fromBytes, bytes }]);
  };
  return (
    <section ref={card} class="card map" aria-label="Memory map">
      <div class="map-head">
        <h2>Memory map</h2>
        {memoryBytes !== null && (
          <Trail memory={memoryBytes} zooms={zooms} onGo={depth => setZooms(zooms.slice(0, depth))} />
        )}
      </div>
      {picture === undefined ? (
        <p class="note map-none">{refused || (connected ? 'Looking…' : 'No guest is connected.')}</p>
      ) : (
        <MapCanvas picture={picture} onZoom={zoomTo} onBack={() => setZooms(zooms.slice(0, -1))} />
      )}
    </section>
  );
}

/** The picture of a range, looked at again and again while the card is seen; why there is none, where it is refused. */
function usePicture(guest: GuestView, range: Range | undefined, card: RefObject<HTMLElement>) {
  const { name, memoryBytes, connected } = guest.status;
  const moving = isMoving(guest.status) || isMigrating(guest);
  const [picture, setPicture] = useState<Picture | undefined>();
  const [refused, setRefused] = useState('');
  useEffect(() => {
    if (!connected || memoryBytes === null) {
      setPicture(undefined);
      return;
    }
    const ending = new AbortController();
    let tag = '';
    let timer = 0;
    let seen = true;
    const watch = new IntersectionObserver(entries => {
      seen = entries.some(entry => entry.isIntersecting);
    });
    if (card.current !== null) watch.observe(card.current);
    const look = async () => {
      let wait = moving ? MAP_MOVING_MS : MAP_MS;
      try {
        if (seen && !document.hidden) {
          const answer = await api.map(name, range ?? {}, tag, ending.signal);
          if (answer !== undefined && !ending.signal.aborted) {
            tag = answer.tag;
            setPicture(pictureOf(answer.map));
          }
          setRefused('');
        }
      } catch (error) {
        if (ending.signal.aborted) return;
        setRefused((error as Error).message);
        wait = error instanceof RefusalError ? REFUSED_MS : MAP_MS;
      }
      timer = window.setTimeout(look, wait);
    };
    void look();
    return () => {
      ending.abort();
      watch.disconnect();
      window.clearTimeout(timer);
    };
  }, [name, connected, memoryBytes, range?.fromBytes, range?.bytes, moving]);
  return { picture, refused };
}

function Trail({
  memory,
  zooms,
  onGo,
}: {
  memory: number;
  zooms: readonly Range[];
  onGo: (depth: number) => void;
}) {
  return (
    <nav class="trail" aria-label="Zoom">
      <button type="button" disabled={zooms.length === 0} onClick={() => onGo(0)}>
        all {size(memory)}
      </button>
      {zooms.map(({ fromBytes, bytes }, index) => (
        <button
          key={`${fromBytes}+${bytes}`}
          type="button"
          disabled={index === zooms.length - 1}
          onClick={() => onGo(index + 1)}
        >
          {size(bytes)} at {size(fromBytes)}
        </button>
      ))}
    </nav>
  );
}

interface CanvasProps {
  readonly picture: Picture;
  readonly onZoom: (range: Range) => void;
  readonly onBack: () => void;
}

function MapCanvas({ picture, onZoom, onBack }: CanvasProps) {
  const { edition } = useStore(theme);
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [cursor, setCursor] = useState<number | undefined>();
  const [dragFrom, setDragFrom] = useState<number | undefined>();
  const { map, cells } = picture;
  const columns = columnsFor(width, cells);

  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const sized = new ResizeObserver(() => setWidth(element.clientWidth));
    sized.observe(element);
    return () => sized.disconnect();
  }, []);

  useEffect(() => {
    if (width > 0) draw(canvas.current as HTMLCanvasElement, picture, columns, width, { cursor, dragFrom });
  }, [picture, columns, width, edition, cursor, dragFrom]);

  const cellAt = (event: PointerEvent) => cellUnder(event, canvas.current as Element, columns, cells);
  const zoomAround = (cell: number) => onZoom(rangeAround(map, cell));
  const onPointerUp = (event: PointerEvent) => {
    const to = cellAt(event);
    if (dragFrom === undefined) return;
    const [first, last] = dragFrom < to ? [dragFrom, to] : [to, dragFrom];
    setDragFrom(undefined);
    if (first === last) zoomAround(first);
    else onZoom(rangeOf(map, first, last));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const walked = walk(event.key, cursor, columns, cells);
    if (walked !== undefined) setCursor(walked);
    else if (event.key === 'Enter' || event.key === '+') zoomAround(cursor ?? 0);
    else if (event.key === 'Escape' || event.key === '-' || event.key === 'Backspace') onBack();
    else return;
    event.preventDefault();
  };
  return (
    <>
      <div
        ref={box}
        class="map-box"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: one walks the map with the arrow keys
        tabIndex={0}
        role="application"
        aria-roledescription="memory map"
        aria-label={`Memory map, ${cells} cells of ${size(map.cellBytes)}. Arrow keys move, Enter zooms in, Escape out.`}
        aria-describedby="map-readout"
        onKeyDown={onKeyDown}
        onPointerDown={event => {
          event.currentTarget.setPointerCapture(event.pointerId);
          setDragFrom(cellAt(event));
        }}
        onPointerMove={event => setCursor(cellAt(event))}
        onPointerLeave={() => setCursor(undefined)}
        onPointerUp={onPointerUp}
        onPointerCancel={() => setDragFrom(undefined)}
      >
        <canvas ref={canvas} />
      </div>
      <Readout picture={picture} cursor={cursor} />
      <Legend totals={map.totals} />
    </>
  );
}

/** What a click at a cell zooms to. */
function rangeAround(map: Picture['map'], cell: number): Range {
  const bytes = Math.max(ZOOM_BYTES_MIN, 2 ** Math.ceil(Math.log2(map.bytes / ZOOM_FACTOR)));
  const at = map.fromBytes + cell * map.cellBytes;
  return { fromBytes: Math.floor(at / bytes) * bytes, bytes };
}

const rangeOf = (map: Picture['map'], first: number, last: number): Range => ({
  fromBytes: map.fromBytes + first * map.cellBytes,
  bytes: (last - first + 1) * map.cellBytes,
});

function Readout({ picture, cursor }: { picture: Picture; cursor: number | undefined }) {
  const { map, cells } = picture;
  return (
    <p id="map-readout" class="readout" aria-live="polite">
      {cursor !== undefined && cursor < cells
        ? describeCell(picture, cursor)
        : `${size(map.cellBytes)} a cell`}
      {map.layers.resident === null && ' · what the host holds is not known'}
      {map.layers.resident !== null &&
        map.residentAgeMs === null &&
        ` · ${size(map.unseenBytes)} of it still to be looked at`}
    </p>
  );
}

function Legend({ totals }: { totals: Picture['map']['totals'] }) {
  return (
    <ul class="legend" aria-label="Colours of the map">
      {LEGEND.map(([part, layer, label, title]) => (
        <li key={part} title={title}>
          <i class={`swatch ${part}`} />
          {label} <b data-layer={layer}>{size(totals[layer])}</b>
        </li>
      ))}
      <li title="The host holds nothing for it, and neither guest nor host said anything of it">
        <i class="swatch empty" />
        none of these
      </li>
    </ul>
  );
}

/** The cell at the pointer, or the nearest one. */
function cellUnder(event: PointerEvent, canvas: Element, columns: number, cells: number): number {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const within = (at: number, cellsAcross: number) =>
    Math.max(0, Math.min(cellsAcross - 1, Math.floor(at * cellsAcross)));
  const column = within((event.clientX - left) / width, columns);
  const row = within((event.clientY - top) / height, Math.ceil(cells / columns));
  return Math.min(cells - 1, row * columns + column);
}

/** Where a key takes the cursor; undefined for a key that does not move it. */
function walk(key: string, cursor: number | undefined, columns: number, cells: number): number | undefined {
  const steps: Record<string, number> = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: columns,
    ArrowUp: -columns,
  };
  const step = steps[key];
  if (step !== undefined) return Math.max(0, Math.min(cells - 1, (cursor ?? -step) + step));
  if (key === 'Home') return 0;
  return key === 'End' ? cells - 1 : undefined;
}

const PART_WORDS: Record<MapPart, string> = {
  ballooned: 'ballooned',
  pending: 'pending',
  hinted: 'resident, hinted',
  dirty: 'dirty, still to be sent',
  resident: 'resident',
  reported: 'reported',
  empty: 'nothing held, nothing said',
};

function describeCell(picture: Picture, cell: number): string {
  const { map } = picture;
  const from = map.fromBytes + cell * map.cellBytes;
  const bytes = Math.min(map.cellBytes, map.fromBytes + map.bytes - from);
  const parts = { ballooned: 0, pending: 0, hinted: 0, dirty: 0, resident: 0, reported: 0, empty: 0 };
  divideCell(picture, cell, parts);
  const words = PARTS.filter(part => parts[part] > 0).map(part =>
    parts[part] === 255
      ? PART_WORDS[part]
      : `${PART_WORDS[part]} ${Math.max(1, Math.round((parts[part] * 100) / 255))} %`,
  );
  return `${address(physicalOf(map, from))} + ${size(bytes)}: ${words.join(', ')}`;
}
