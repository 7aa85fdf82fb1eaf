/**
 * The memory map: fetched while it is visible, drawn on a canvas, zoomed by pointer and keyboard. A click zooms to
 * a sixteenth around the cell, a drag to what was dragged over.
 */

import { useEffect, useRef, useState } from 'preact/hooks';
import { isMoving } from '../../src/control/judgement.ts';
import { MAP_MOVING_MS, MAP_MS } from '../../src/server/page-pace.ts';
import { api, type MapLayer, RefusalError } from './api.ts';
import { address, size } from './format.ts';
import { type GuestView, isMigrating } from './live.ts';
import {
  columnsFor,
  divide,
  type MapPart,
  PARTS,
  type Picture,
  paint,
  physicalOf,
  pictureOf,
} from './map-picture.ts';
import { useStore } from './store.ts';
import { colour, rgb, theme } from './theme.ts';

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
  const { name, memoryBytes, connected } = guest.status;
  /** The ranges that were zoomed into, the widest first. */
  const [zooms, setZooms] = useState<readonly Range[]>([]);
  const [picture, setPicture] = useState<Picture | undefined>();
  const [refused, setRefused] = useState('');
  const range = zooms.at(-1);
  const moving = isMoving(guest.status) || isMigrating(guest);
  const card = useRef<HTMLElement>(null);

  useEffect(() => setZooms([]), [memoryBytes]);

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
  const rows = Math.ceil(cells / columns);

  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const sized = new ResizeObserver(() => setWidth(element.clientWidth));
    sized.observe(element);
    return () => sized.disconnect();
  }, []);

  useEffect(() => {
    if (width > 0) draw(canvas.current as HTMLCanvasElement, picture, columns, width, { cursor, dragFrom });
  }, [picture, columns, width, edition, cursor, dragFrom]);

  const cellAt = (event: PointerEvent): number => {
    const { left, top, width: shown, height } = (canvas.current as Element).getBoundingClientRect();
    const within = (at: number, cellsAcross: number) =>
      Math.max(0, Math.min(cellsAcross - 1, Math.floor(at * cellsAcross)));
    const column = within((event.clientX - left) / shown, columns);
    const row = within((event.clientY - top) / height, rows);
    return Math.min(cells - 1, row * columns + column);
  };
  const zoomAround = (cell: number) => {
    const bytes = Math.max(ZOOM_BYTES_MIN, 2 ** Math.ceil(Math.log2(map.bytes / ZOOM_FACTOR)));
    const at = map.fromBytes + cell * map.cellBytes;
    onZoom({ fromBytes: Math.floor(at / bytes) * bytes, bytes });
  };
  const onPointerUp = (event: PointerEvent) => {
    const to = cellAt(event);
    if (dragFrom === undefined) return;
    const [first, last] = dragFrom < to ? [dragFrom, to] : [to, dragFrom];
    setDragFrom(undefined);
    if (first === last) return zoomAround(first);
    onZoom({
      fromBytes: map.fromBytes + first * map.cellBytes,
      bytes: (last - first + 1) * map.cellBytes,
    });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const steps: Record<string, number> = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
    };
    const step = steps[event.key];
    if (step !== undefined) setCursor(Math.max(0, Math.min(cells - 1, (cursor ?? -step) + step)));
    else if (event.key === 'Home') setCursor(0);
    else if (event.key === 'End') setCursor(cells - 1);
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
      <p id="map-readout" class="readout" aria-live="polite">
        {cursor !== undefined && cursor < cells
          ? describeCell(picture, cursor)
          : `${size(map.cellBytes)} a cell`}
        {map.layers.resident === null && ' · what the host holds is not known'}
        {map.layers.resident !== null &&
          map.residentAgeMs === null &&
          ` · ${size(map.unseenBytes)} of it still to be looked at`}
      </p>
      <ul class="legend" aria-label="Colours of the map">
        {LEGEND.map(([part, layer, label, title]) => (
          <li key={part} title={title}>
            <i class={`swatch ${part}`} />
            {label} <b data-layer={layer}>{size(map.totals[layer])}</b>
          </li>
        ))}
        <li title="The host holds nothing for it, and neither guest nor host said anything of it">
          <i class="swatch empty" />
          none of these
        </li>
      </ul>
    </>
  );
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
  divide(picture, cell, parts);
  const words = PARTS.filter(part => parts[part] > 0).map(part =>
    parts[part] === 255
      ? PART_WORDS[part]
      : `${PART_WORDS[part]} ${Math.max(1, Math.round((parts[part] * 100) / 255))} %`,
  );
  return `${address(physicalOf(map, from))} + ${size(bytes)}: ${words.join(', ')}`;
}

interface Marked {
  readonly cursor: number | undefined;
  readonly dragFrom: number | undefined;
}

const scratch = document.createElement('canvas');

/** Width to height that a map has at least, unless its cells would be flatter than squares. */
const ASPECT = 2.4;

/** Cells in device pixels; a box is seldom a whole number of them, so edges are rounded one by one. */
interface Grid {
  readonly columns: number;
  readonly rows: number;
  readonly cellWidth: number;
  readonly cellHeight: number;
}

function draw(
  canvas: HTMLCanvasElement,
  picture: Picture,
  columns: number,
  width: number,
  marked: Marked,
): void {
  const start = performance.now();
  const rows = Math.ceil(picture.cells / columns);
  const ratio = Math.max(1, window.devicePixelRatio);
  const cellWidth = (width * ratio) / columns;
  const cellHeight = Math.round(
    Math.min(2 * cellWidth, Math.max(cellWidth, (width * ratio) / ASPECT / rows)),
  );
  canvas.width = Math.round(width * ratio);
  canvas.height = rows * cellHeight;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${(rows * cellHeight) / ratio}px`;
  const context = canvas.getContext('2d') as CanvasRenderingContext2D;
  scratch.width = columns;
  scratch.height = rows;
  const small = scratch.getContext('2d') as CanvasRenderingContext2D;
  const image = small.createImageData(columns, rows);
  paint(picture, coloursNow(), image.data);
  small.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
  const grid = { columns, rows, cellWidth, cellHeight };
  drawLines(context, grid);
  drawMarked(context, grid, marked);
  canvas.dataset.drawMs = (performance.now() - start).toFixed(2);
}

/** Lines between cells, where there is room for them. */
function drawLines(context: CanvasRenderingContext2D, { columns, rows, cellWidth, cellHeight }: Grid): void {
  if (cellWidth < 4) return;
  const { width, height } = context.canvas;
  context.fillStyle = colour('card');
  for (let column = 1; column < columns; column++) {
    context.fillRect(Math.round(column * cellWidth) - 1, 0, 1, height);
  }
  for (let row = 1; row < rows; row++) context.fillRect(0, row * cellHeight - 1, width, 1);
}

function drawMarked(context: CanvasRenderingContext2D, grid: Grid, { cursor, dragFrom }: Marked): void {
  if (cursor === undefined) return;
  const box = (cell: number): [x: number, y: number, width: number, height: number] => {
    const column = cell % grid.columns;
    const x = Math.round(column * grid.cellWidth);
    const y = Math.floor(cell / grid.columns) * grid.cellHeight;
    return [x, y, Math.round((column + 1) * grid.cellWidth) - x - 1, grid.cellHeight - 1];
  };
  const [first, last] = [Math.min(cursor, dragFrom ?? cursor), Math.max(cursor, dragFrom ?? cursor)];
  context.fillStyle = colour('mark');
  context.globalAlpha = 0.35;
  for (let cell = first; cell <= last && last > first; cell++) context.fillRect(...box(cell));
  context.globalAlpha = 1;
  context.strokeStyle = colour('ink');
  context.lineWidth = 2;
  context.strokeRect(...box(cursor));
}

function coloursNow() {
  return {
    ballooned: rgb('ballooned'),
    pending: rgb('pending'),
    hinted: rgb('hinted'),
    dirty: rgb('dirty'),
    resident: rgb('resident'),
    reported: rgb('reported'),
    empty: rgb('empty'),
  };
}
