/**
 * What `aerostat top` shows and what its keys do, apart from any terminal: keys go in, lines come out, and what is to
 * be asked of the daemon is handed to the caller.
 */
import type { GuestStatus, HostStatus, StatisticsSample } from '../control/contract.ts';
import { availableShare, doubtOf } from '../control/judgement.ts';
import { balloonOf, MemoryUseTracker, sumKnown } from '../control/memory-use.ts';
import type { PolicyStatus } from '../control/policy.ts';
import { AerostatError } from '../sys/error.ts';
import type { Key } from './keys.ts';
import { formatSize, parsePages, SizeError } from './size.ts';
import { type Glyphs, glyphsOf, type Style } from './style.ts';
import { type Column, renderTable, wrap } from './table.ts';
import {
  barColumn,
  helpLines,
  hostLine,
  POLICY_COLUMNS,
  RISING,
  type Row,
  type SortKey,
  type SortMark,
  sizeText,
  topColumns,
} from './top-table.ts';

/** The key that sorts by each. */
const ORDER_KEYS: Readonly<Record<string, SortKey>> = {
  n: 'name',
  m: 'memory',
  b: 'balloon',
  r: 'resident',
  a: 'available',
};

const BAR_WIDTH_MIN = 10;
const BAR_WIDTH_MAX = 48;
const PAGE_ROWS = 10;

export interface Seen {
  readonly guests: readonly GuestStatus[];
  readonly samples: Readonly<Record<string, StatisticsSample>>;
  readonly host: HostStatus;
  /** Null where no memory policy runs, or where it cannot be asked. */
  readonly policy: PolicyStatus | null;
  readonly atMs: number;
}

/** What a person is being asked. */
type Prompt =
  | { readonly kind: 'target'; readonly guest: string; readonly text: string }
  | { readonly kind: 'sure'; readonly guest: string; readonly bytes: number; readonly why: string };

export class TopScreen {
  readonly #setTarget: (guest: string, bytes: number, force: boolean) => void;
  readonly #glyphs: Glyphs;
  readonly #trackers = new Map<string, MemoryUseTracker>();
  #rows: readonly Row[] = [];
  #host: HostStatus | undefined;
  #policy: PolicyStatus | null = null;
  #order: SortKey = 'name';
  #selected: string | undefined;
  #prompt: Prompt | undefined;
  /** What the last key came to. */
  #message = '';
  #helpShown = false;
  /** Why the rows are not of this moment. */
  trouble = '';
  /** The person pressed a key that ends it. */
  ended = false;

  /** `force`: the person was asked whether so much is meant. */
  constructor(
    setTarget: (guest: string, bytes: number, force: boolean) => void,
    glyphs: Glyphs = glyphsOf({}),
  ) {
    this.#setTarget = setTarget;
    this.#glyphs = glyphs;
  }

  get order(): SortKey {
    return this.#order;
  }

  set order(order: SortKey) {
    this.#order = order;
    this.#sort();
  }

  get selected(): string | undefined {
    return this.#selected;
  }

  say(message: string): void {
    this.#message = message;
  }

  see({ guests, samples, host, policy, atMs }: Seen): void {
    this.trouble = '';
    this.#host = host;
    this.#policy = policy;
    this.#rows = guests.map(guest => {
      const tracker = this.#trackers.get(guest.name) ?? new MemoryUseTracker();
      this.#trackers.set(guest.name, tracker);
      const use = tracker.see(guest, samples[guest.name], atMs);
      return {
        guest,
        use,
        available: guest.connected ? availableShare(guest, tracker.sample) : null,
        policy: policy?.guests.find(({ name }) => name === guest.name) ?? null,
      };
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
    if (this.#helpShown || key === '?') {
      this.#helpShown = !this.#helpShown;
      this.ended = key === 'q';
      return;
    }
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
      if (why === undefined) this.#setTarget(guest, bytes, false);
      else this.#prompt = { kind: 'sure', guest, bytes, why };
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.#message = error.message;
      this.#prompt = { kind: 'target', guest, text };
    }
  }

  #answer({ guest, bytes }: Prompt & { kind: 'sure' }, key: Key): void {
    this.#prompt = undefined;
    if (key === 'y' || key === 'Y') this.#setTarget(guest, bytes, true);
    else this.#message = 'left as it is';
  }

  #row(name: string): Row | undefined {
    return this.#rows.find(({ guest }) => guest.name === name);
  }

  /** Why taking so much needs a confirmation; undefined where it needs none. */
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
    const foot = ['', ...this.#foot(style, columns)];
    if (this.#helpShown) return [...head, ...helpLines(style, this.#glyphs, columns), ...foot];
    const columnsBefore = this.#columns(style);
    const [titles] = renderTable(columnsBefore, this.#rows);
    const barWidth = Math.min(BAR_WIDTH_MAX, columns - titles.length - 2);
    const table = renderTable(
      barWidth < BAR_WIDTH_MIN ? columnsBefore : [...columnsBefore, barColumn(style, this.#glyphs, barWidth)],
      this.#rows,
    );
    const visible = this.#scrolled(table.slice(1), rows - head.length - foot.length - 1);
    return [...head, style.dim(table[0]), ...visible.map(line => this.#marked(line, style)), ...foot];
  }

  /** The table alone, for output that is no terminal. */
  table(style: Style): string[] {
    return [this.#summary(), '', ...renderTable(this.#columns(style), this.#rows)];
  }

  #columns(style: Style): readonly Column<Row>[] {
    const columns = topColumns(style, this.#sortMark());
    return this.#policy === null ? columns : [...columns, ...POLICY_COLUMNS];
  }

  #sortMark(): SortMark {
    const { rising, falling, atLeast } = this.#glyphs;
    return { order: this.#order, mark: RISING.includes(this.#order) ? rising : falling, atLeast };
  }

  #summary(): string {
    // A guest that has shown no memory waits, and has none to be summed.
    const shown = this.#rows.filter(({ use }) => use !== undefined);
    const sum = (of: (row: Row) => number | null | undefined, what: string) => {
      const { bytes, unknown } = sumKnown(shown.map(of));
      const rest = bytes === null || unknown === 0 ? '' : ` (${unknown} not known)`;
      return `${sizeText(bytes)} ${what}${rest}`;
    };
    const guests = this.#rows.length === 1 ? '1 guest' : `${this.#rows.length} guests`;
    const sums = [
      sum(({ use }) => use?.memory, 'given'),
      sum(({ use }) => use?.ballooned, 'ballooned'),
      sum(({ use }) => use?.resident, 'resident'),
      sum(({ use }) => use?.freeHeld, 'free and yet held'),
    ];
    return `${guests}: ${sums.join(', ')}`;
  }

  /** Below the table: what is asked, what is wrong, or what the keys do. Nothing of an error is cut off. */
  #foot(style: Style, columns: number): readonly string[] {
    const prompt = this.#prompt;
    if (prompt?.kind === 'target') {
      const asked = `Target of ${prompt.guest} (Enter sets it, Esc does not): ${prompt.text}${this.#glyphs.cursor}`;
      if (this.#message === '') return wrap(asked, columns);
      const beside = `${asked}   ${this.#message}`;
      if (beside.length <= columns) return [`${asked}   ${style.red(this.#message)}`];
      return [...wrap(asked, columns), ...wrap(this.#message, columns).map(style.red)];
    }
    if (prompt?.kind === 'sure') {
      const { bytes, guest, why } = prompt;
      return wrap(`${why}. Take ${formatSize(bytes)} from ${guest}? y/N`, columns).map(style.yellow);
    }
    if (this.trouble !== '') return wrap(this.trouble, columns).map(style.red);
    if (this.#message !== '') return wrap(this.#message, columns);
    const { arrows } = this.#glyphs;
    const help = `${arrows} select   t target   sort by n name  m memory  b balloon  r resident  a available   ? help   q quit`;
    const short = `${arrows} select  t target  n m b r a sort  ? help  q quit`;
    const keys = style.dim((help.length > columns ? short : help).slice(0, columns));
    const sentence = this.#rows.find(({ guest }) => guest.name === this.#selected)?.policy?.decision
      ?.sentence;
    return sentence === undefined ? [keys] : [...wrap(sentence, columns), keys];
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
    const mark = name === this.#selected ? style.bold(this.#glyphs.mark) : ' ';
    return mark + line.slice(1);
  }
}

const byName = new Intl.Collator('en', { numeric: true });

/** What an order sorts by, the largest first and the neediest first; a guest that does not tell comes last. */
const KEYS: Readonly<Partial<Record<SortKey, (row: Row) => number>>> = {
  memory: ({ guest }) => guest.memoryBytes ?? -1,
  balloon: ({ guest }) => balloonOf(guest) ?? -1,
  resident: ({ guest }) => guest.residentBytes ?? -1,
  available: ({ available }) => -(available?.share ?? 2),
};
