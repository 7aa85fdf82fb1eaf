/** Draws the memory map on its canvas: cells, the lines between them, and what is marked. What a cell shows is map-picture.ts. */
import { type Picture, paint } from './map-picture.ts';
import { colour, rgb } from './theme.ts';

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

export function draw(
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
