/**
 * What `aerostat top` shows and what its keys do, apart from any terminal: keys go in, lines come out, and what is to
 * be asked of the daemon is handed to whoever holds it.
 */
import type { GuestStatus, HostStatus, StatisticsSample } from '../control/contract.ts';
import { type Available, availableShare, doubtOf, isMoving, NEED_SHARE } from '../control/judgement.ts';
import { type MemoryUse, MemoryUseTracker } from '../control/memory-use.ts';
import { AerostatError } from '../sys/error.ts';
import type { Key } from './keys.ts';
import { formatSize, parsePages, SizeError } from './size.ts';
import type { Style } from './style.ts';
import { type Column, renderBar, renderTable } from './table.ts';

export const ORDERS = ['name', 'memory', 'balloon', 'resident', 'available'] as const;
export type Order = (typeof ORDERS)[number];

/** The key that sorts by each. */
const ORDER_KEYS: Readonly<Record<string, Order>> = {
  n: 'name',
  m: 'memory',
  b: 'balloon',
  r: 'resident',
  a: 'available',
};

const HELP = '↑↓ select   t target   sort by n name  m memory  b balloon  r resident  a available   q quit';
const HELP_SHORT = '↑↓ select  t target  n m b r a sort  q quit';
const BAR_WIDTH_MIN = 10;
const BAR_WIDTH_MAX = 48;
const PAGE_ROWS = 10;

interface Row {
  readonly guest: GuestStatus;
  readonly use: MemoryUse | undefined;
  /** Share of its memory that it has available, by its own word; null where it did not say. */
  readonly available: Available | null;
}

export interface Seen {
  readonly guests: readonly GuestStatus[];
  readonly samples: Readonly<Record<string, StatisticsSample>>;
  readonly host: HostStatus;
  readonly atMs: number;
}

/** What a person is being asked. */
type Prompt =
  | { readonly kind: 'target'; readonly guest: string; readonly text: string }
  | { readonly kind: 'sure'; readonly guest: string; readonly bytes: number; readonly why: string };

export class TopScreen {
  readonly #setTarget: (guest: string, bytes: number) => void;
  readonly #trackers = new Map<string, MemoryUseTracker>();
  #rows: readonly Row[] = [];
  #host: HostStatus | undefined;
  #order: Order = 'name';
  #selected: string | undefined;
  #prompt: Prompt | undefined;
  /** What the last key came to. */
  #message = '';
  /** Why the rows are not of this moment. */
  trouble = '';
  /** Somebody wants it to end. */
  ended = false;

  constructor(setTarget: (guest: string, bytes: number) => void) {
    this.#setTarget = setTarget;
  }

  get order(): Order {
    return this.#order;
  }

  set order(order: Order) {
    this.#order = order;
    this.#sort();
  }

  get selected(): string | undefined {
    return this.#selected;
  }

  say(message: string): void {
    this.#message = message;
  }

  see({ guests, samples, host, atMs }: Seen): void {
    this.trouble = '';
    this.#host = host;
    this.#rows = guests.map(guest => {
      const tracker = this.#trackers.get(guest.name) ?? new MemoryUseTracker();
      this.#trackers.set(guest.name, tracker);
      const use = tracker.see(guest, samples[guest.name], atMs);
      return { guest, use, available: guest.connected ? availableShare(guest, tracker.sample) : null };
    });
    this.#sort();
  }

  press(key: Key): void {
    this.#message = '';
    if (key === 'interrupt') this.ended = true;
    else if (this.#prompt?.kind === 'target') this.#type(this.#prompt, key);
    else if (this.#prompt?.kind === 'sure') this.#answer(this.#prompt, key);
    else this.#command(key);
  }

  #command(key: Key): void {
    const order = ORDER_KEYS[key];
    if (order !== undefined) this.order = order;
    else if (key === 'q') this.ended = true;
    else if (key === 'up' || key === 'k') this.#move(-1);
    else if (key === 'down' || key === 'j') this.#move(1);
    else if (key === 'page-up') this.#move(-PAGE_ROWS);
    else if (key === 'page-down') this.#move(PAGE_ROWS);
    else if (key === 'home') this.#move(-this.#rows.length);
    else if (key === 'end') this.#move(this.#rows.length);
    else if ((key === 't' || key === 'enter') && this.#selected !== undefined) {
      this.#prompt = { kind: 'target', guest: this.#selected, text: '' };
    }
  }

  #type(prompt: Prompt & { kind: 'target' }, key: Key): void {
    const { guest, text } = prompt;
    if (key === 'escape') this.#prompt = undefined;
    else if (key === 'backspace') this.#prompt = { ...prompt, text: text.slice(0, -1) };
    else if (key.length === 1 && key >= ' ') this.#prompt = { ...prompt, text: text + key };
    else if (key === 'enter') this.#enter(guest, text);
  }

  #enter(guest: string, text: string): void {
    this.#prompt = undefined;
    if (text === '') return;
    try {
      const bytes = parsePages(text);
      const memory = this.#row(guest)?.use?.memory ?? Number.POSITIVE_INFINITY;
      if (bytes > memory) throw new SizeError(text, `${guest} has ${formatSize(memory)} in all`);
      const why = this.#doubt(guest, bytes);
      if (why === undefined) this.#setTarget(guest, bytes);
      else this.#prompt = { kind: 'sure', guest, bytes, why };
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.#message = error.message;
      this.#prompt = { kind: 'target', guest, text };
    }
  }

  #answer({ guest, bytes }: Prompt & { kind: 'sure' }, key: Key): void {
    this.#prompt = undefined;
    if (key === 'y' || key === 'Y') this.#setTarget(guest, bytes);
    else this.#message = 'left as it is';
  }

  #row(name: string): Row | undefined {
    return this.#rows.find(({ guest }) => guest.name === name);
  }

  /** Why one should think twice before taking so much; undefined when there is nothing to think about. */
  #doubt(name: string, bytes: number): string | undefined {
    const row = this.#row(name);
    const doubt = row === undefined ? undefined : doubtOf(row.guest, row.use, bytes);
    if (doubt === undefined) return undefined;
    if (doubt.limitBytes === null) return `what ${name} can spare is not known`;
    const when = doubt.old ? ', before its balloon was changed' : '';
    return `${name} says that it can spare ${formatSize(doubt.limitBytes)}${when}`;
  }

  #move(by: number): void {
    const names = this.#rows.map(({ guest }) => guest.name);
    const at = names.indexOf(this.#selected ?? '');
    this.#selected = names[Math.max(0, Math.min(names.length - 1, at + by))];
  }

  #sort(): void {
    const names = (a: Row, b: Row) => byName.compare(a.guest.name, b.guest.name);
    const key = KEYS[this.#order];
    this.#rows = [...this.#rows].sort((a, b) => (key === undefined ? 0 : key(b) - key(a)) || names(a, b));
    if (!this.#rows.some(({ guest }) => guest.name === this.#selected)) {
      this.#selected = this.#rows[0]?.guest.name;
    }
  }

  /** The lines of one frame, no wider and no more than the terminal has. */
  frame(style: Style, { columns, rows }: { readonly columns: number; readonly rows: number }): string[] {
    const host = this.#host === undefined ? [] : [hostLine(this.#host)];
    const head = [this.#summary(), ...host, ''].map(line => line.slice(0, columns));
    const foot = ['', this.#footLine(style, columns)];
    const columnsBefore = guestColumns(style);
    const [titles] = renderTable(
      columnsBefore,
      this.#rows.map(({ guest, use, available }) => ({ guest, use, available })),
    );
    const barWidth = Math.min(BAR_WIDTH_MAX, columns - titles.length - 2);
    const table = renderTable(
      barWidth < BAR_WIDTH_MIN ? columnsBefore : [...columnsBefore, barColumn(style, barWidth)],
      this.#rows,
    );
    const visible = this.#scrolled(table.slice(1), rows - head.length - foot.length - 1);
    return [...head, style.dim(table[0]), ...visible.map(line => this.#marked(line, style)), ...foot];
  }

  /** For a terminal that is none: the table alone. */
  table(style: Style): string[] {
    return [this.#summary(), '', ...renderTable(guestColumns(style), this.#rows)];
  }

  #summary(): string {
    const sum = (of: (row: Row) => number | null | undefined) =>
      formatSize(this.#rows.reduce((total, row) => total + (of(row) ?? 0), 0));
    const guests = this.#rows.length === 1 ? '1 guest' : `${this.#rows.length} guests`;
    return `${guests}: ${sum(({ use }) => use?.memory)} given, ${sum(({ use }) => use?.ballooned)} ballooned, ${sum(({ use }) => use?.resident)} resident, ${sum(({ use }) => use?.freeHeld)} free and yet held`;
  }

  #footLine(style: Style, columns: number): string {
    if (this.#prompt?.kind === 'target') {
      const message = this.#message === '' ? '' : `   ${style.red(this.#message)}`;
      return `Target of ${style.bold(this.#prompt.guest)} (Enter sets it, Esc does not): ${this.#prompt.text}█${message}`;
    }
    if (this.#prompt?.kind === 'sure') {
      const { bytes, guest, why } = this.#prompt;
      return `${style.yellow(`${why}.`)} Take ${formatSize(bytes)} from ${style.bold(guest)}? y/N`;
    }
    if (this.trouble !== '') return style.red(this.trouble.slice(0, columns));
    if (this.#message !== '') return this.#message.slice(0, columns);
    return style.dim(HELP.length > columns ? HELP_SHORT : HELP);
  }

  /** The lines around the selected one that fit. */
  #scrolled(lines: readonly string[], room: number): readonly { line: string; name: string }[] {
    const at = this.#rows.findIndex(({ guest }) => guest.name === this.#selected);
    const first = Math.max(0, Math.min(at - Math.floor(room / 2), lines.length - room));
    return lines
      .map((line, index) => ({ line, name: this.#rows[index].guest.name }))
      .slice(first, first + Math.max(1, room));
  }

  #marked({ line, name }: { line: string; name: string }, style: Style): string {
    const mark = name === this.#selected ? style.bold('›') : ' ';
    return mark + line.slice(1);
  }
}

const byName = new Intl.Collator('en', { numeric: true });

/** What an order sorts by, the largest first; who does not tell comes last, and the neediest first. */
const KEYS: Readonly<Partial<Record<Order, (row: Row) => number>>> = {
  memory: ({ guest }) => guest.memoryBytes ?? -1,
  balloon: ({ guest }) => guest.balloonedBytes ?? guest.actualBytes ?? -1,
  resident: ({ guest }) => guest.residentBytes ?? -1,
  available: ({ available }) => -(available?.share ?? 2),
};

const size = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));

function hostLine({ totalBytes, availableBytes, pressure }: HostStatus): string {
  const waited = pressure === null ? 'not known' : `${pressure.some10Percent}%`;
  return `host: ${size(availableBytes)} of ${size(totalBytes)} available, pressure ${waited}`;
}

function stateOf({ guest, available }: Row): string {
  if (!guest.connected) return 'waiting';
  if (available !== null && available.share < NEED_SHARE) return 'in need';
  return isMoving(guest) ? 'moving' : 'ok';
}

const STATE_COLOURS: Readonly<Record<string, keyof Style>> = {
  waiting: 'dim',
  'in need': 'red',
  moving: 'yellow',
  ok: 'green',
};

const guestColumns = (style: Style): readonly Column<Row>[] => [
  // The first character of a line is for the mark of the selected one.
  { title: ' GUEST', text: ({ guest }) => ` ${guest.name}` },
  { title: 'STATE', text: stateOf, paint: (text, row) => style[STATE_COLOURS[stateOf(row)]](text) },
  { title: 'MEMORY', align: 'right', text: ({ guest }) => size(guest.memoryBytes) },
  { title: 'TARGET', align: 'right', text: ({ guest }) => size(guest.targetBytes) },
  { title: 'BALLOON', align: 'right', text: ({ guest }) => size(guest.balloonedBytes ?? guest.actualBytes) },
  { title: 'RESIDENT', align: 'right', text: ({ guest }) => size(guest.residentBytes) },
  {
    title: 'AVAIL',
    align: 'right',
    // At least so much: its balloon grew after it had said how much it has.
    text: ({ available }) =>
      available === null ? '-' : `${available.old ? '≥' : ''}${Math.round(available.share * 100)}%`,
  },
];

const BAR_TITLE = 'used█ cache▓ free held▒ balloon░';

const barColumn = (style: Style, width: number): Column<Row> => ({
  title: BAR_TITLE.slice(0, width).padEnd(width),
  text: () => ' '.repeat(width),
  paint: (blank, { use }) => {
    if (use === undefined) return blank;
    const { memory, used, cache, freeHeld, freeAway, ballooned } = use;
    const share = (bytes: number | null) => (bytes ?? 0) / memory;
    if (used === null) {
      const rest = memory - ballooned;
      return renderBar(
        [
          { character: '?', share: share(rest), paint: style.dim },
          { character: '░', share: share(ballooned), paint: style.green },
        ],
        width,
      );
    }
    return renderBar(
      [
        { character: '█', share: share(used), paint: style.blue },
        { character: '▓', share: share(cache), paint: style.blue },
        { character: '▒', share: share(freeHeld), paint: style.yellow },
        { character: ' ', share: share(freeAway) },
        { character: '░', share: share(ballooned), paint: style.green },
      ],
      width,
    );
  },
});
