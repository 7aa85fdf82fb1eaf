/** Columns of text for people: aligned by what is seen, without lines, so that they can be cut and sorted. */

export interface Column<Row> {
  readonly title: string;
  readonly align?: 'left' | 'right';
  readonly text: (row: Row) => string;
  /** Colours a cell after it was padded. */
  readonly paint?: (padded: string, row: Row) => string;
}

const GAP = '  ';

export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const cells = rows.map(row => columns.map(column => column.text(row)));
  const widths = columns.map((column, at) =>
    Math.max(column.title.length, ...cells.map(row => row[at].length)),
  );
  const pad = (text: string, at: number) => {
    if (columns[at].align === 'right') return text.padStart(widths[at]);
    return at === columns.length - 1 ? text : text.padEnd(widths[at]);
  };
  const head = columns.map(({ title }, at) => pad(title, at)).join(GAP);
  const body = rows.map((row, line) =>
    columns
      .map(({ paint }, at) => {
        const padded = pad(cells[line][at], at);
        return paint === undefined ? padded : paint(padded, row);
      })
      .join(GAP),
  );
  return [head, ...body].map(line => line.trimEnd());
}

/** Names and values in two columns, indented. */
export function renderFields(fields: readonly (readonly [name: string, value: string])[]): string[] {
  const width = Math.max(...fields.map(([name]) => name.length));
  return fields.map(([name, value]) => `  ${name.padEnd(width)}${GAP}${value}`);
}

interface BarPart {
  readonly character: string;
  /** Of the whole, 0 to 1. */
  readonly share: number;
  readonly paint?: (text: string) => string;
}

/**
 * A bar of `width` cells that shows parts of a whole; what is left over is blank. A part above nothing is
 * never invisible, and the parts never exceed the bar.
 */
export function renderBar(parts: readonly BarPart[], width: number): string {
  let left = width;
  const painted = parts.map(({ character, share, paint = text => text }) => {
    const cells = Math.min(left, share > 0 ? Math.max(1, Math.round(share * width)) : 0);
    left -= cells;
    return paint(character.repeat(cells));
  });
  return painted.join('') + ' '.repeat(left);
}

/** Lines of at most so many columns, broken at spaces; a word that is wider than that is broken where it must be. */
export const wrap = (text: string, columns: number): readonly string[] =>
  (text.match(new RegExp(`.{1,${columns}}(?: |$)|.{${columns}}`, 'g')) ?? []).map(line => line.trimEnd());
