/** What `aerostat top` shows of its guests: the columns, the bars, what sorts by what, and what its keys and bars mean. */

import type { GuestStatus, HostStatus } from '../control/contract.ts';
import { stateWord } from '../control/guest-state.ts';
import {
  type Available,
  heldForHints,
  incompleteWords,
  isMoving,
  isMuchIncomplete,
  isStuck,
  NEED_SHARE,
} from '../control/judgement.ts';
import { balloonOf, type MemoryUse } from '../control/memory-use.ts';
import type { GuestPolicy, GuestPolicyDecision } from '../control/policy.ts';
import { formatSize } from './size.ts';
import type { Glyphs, Style } from './style.ts';
import { type Column, renderBar, renderFields, wrap } from './table.ts';

export const SORT_KEYS = ['name', 'memory', 'balloon', 'resident', 'available'] as const;
export type SortKey = (typeof SORT_KEYS)[number];

/** What each key does, and what the letters sort by. */
const KEY_HELP: readonly (readonly [keys: string, does: string])[] = [
  ['up, down, k, j', 'select a guest'],
  ['t, Enter', 'set its target: type a size and press Enter'],
  ['n', 'sort by name'],
  ['m', 'sort by memory: what the guest was given'],
  ['b', 'sort by balloon: what it gave away again'],
  ['r', 'sort by resident: what the host holds for it'],
  ['a', 'sort by available: the neediest first'],
  ['?', 'show this, or hide it again'],
  ['q, Ctrl-C', 'end'],
];

export interface Row {
  readonly guest: GuestStatus;
  readonly use: MemoryUse | undefined;
  /** Share of its memory that it has available, by its own word; null where it did not say. */
  readonly available: Available | null;
  /** How a memory policy sees it; null where none looks after it. */
  readonly policy: GuestPolicy | null;
}

/** Sorted the other way round than the rest. */
export const RISING: readonly SortKey[] = ['name', 'available'];

export interface SortMark {
  readonly order: SortKey;
  readonly mark: string;
  /** Before a figure that may be larger. */
  readonly atLeast: string;
}

export function helpLines(style: Style, glyphs: Glyphs, columns: number): readonly string[] {
  const { full, dense, medium, light } = glyphs;
  const keys = renderFields(KEY_HELP);
  const bars = renderFields([
    [full, 'used by programs and kernel'],
    [dense, 'cached files, which the guest can drop'],
    [medium, 'free in the guest, and yet the host holds memory for it: what a balloon would gain'],
    [light, 'in the balloon'],
    ['?', 'the guest sent no statistics'],
  ]);
  const lines = [style.bold('Keys'), ...keys, '', style.bold('Bars'), ...bars];
  return lines.flatMap(line => (line.length > columns ? wrap(line, columns) : [line]));
}

export const sizeText = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));

export function hostLine({ totalBytes, availableBytes, pressure }: HostStatus): string {
  const waited = pressure === null ? 'not known' : `${pressure.some10Percent}%`;
  return `host: ${sizeText(availableBytes)} of ${sizeText(totalBytes)} available, pressure ${waited}`;
}

/** With what the guest keeps, where the target was given as that. */
const targetText = ({ targetBytes, wishedMemoryBytes }: GuestStatus): string =>
  wishedMemoryBytes === null
    ? sizeText(targetBytes)
    : `${sizeText(targetBytes)} (keeps ${sizeText(wishedMemoryBytes)})`;

function stateOf({ guest, available }: Row): string {
  const word = stateWord(guest);
  if (!guest.connected || (guest.state !== null && guest.state !== 'running')) return word;
  if (available !== null && available.share < NEED_SHARE) return 'in need';
  if (isStuck(guest)) return 'stuck';
  if (isMoving(guest)) return 'moving';
  // Nothing is wrong as far as it is known; whether the driver can answer is not.
  return guest.state === null ? word : 'ok';
}

/** With the reason, where one is known. */
function stateWords(row: Row): string {
  const state = stateOf(row);
  const held = heldForHints(row.guest);
  if (held > 0 && (state === 'in need' || state === 'ok')) return `${state}: hints hold ${formatSize(held)}`;
  if (state === 'ok' && isMuchIncomplete(row.guest))
    return `${state}: ${incompleteWords(row.guest, formatSize)}`;
  const { removedBytes } = row.guest;
  return state === 'ok' && removedBytes !== null && removedBytes > 0
    ? `${state}: ${formatSize(removedBytes)} in removed memory`
    : state;
}

const STATE_COLOURS: Readonly<Record<string, keyof Style>> = {
  waiting: 'dim',
  'no driver': 'dim',
  paused: 'yellow',
  silent: 'red',
  'in need': 'red',
  stuck: 'red',
  moving: 'yellow',
  connected: 'dim',
  ok: 'green',
};

export const topColumns = (style: Style, { order, mark, atLeast }: SortMark): readonly Column<Row>[] => {
  const title = (column: SortKey, text: string) => (column === order ? text + mark : text);
  return [
    // The first character of a line is for the mark of the selected one.
    { title: title('name', ' GUEST'), text: ({ guest }) => ` ${guest.name}` },
    { title: 'STATE', text: stateWords, paint: (text, row) => style[STATE_COLOURS[stateOf(row)]](text) },
    { title: title('memory', 'MEMORY'), align: 'right', text: ({ guest }) => sizeText(guest.memoryBytes) },
    { title: 'TARGET', align: 'right', text: ({ guest }) => targetText(guest) },
    { title: title('balloon', 'BALLOON'), align: 'right', text: ({ guest }) => sizeText(balloonOf(guest)) },
    {
      title: title('resident', 'RESIDENT'),
      align: 'right',
      text: ({ guest }) => sizeText(guest.residentBytes),
    },
    {
      title: title('available', 'AVAIL'),
      align: 'right',
      // At least so much: its balloon grew after it had said how much it has.
      text: ({ available }) =>
        available === null ? '-' : `${available.old ? atLeast : ''}${Math.round(available.share * 100)}%`,
    },
  ];
};

/** Why the target is not what the guest is to keep in the end; where it is, the rule that bound that is told instead. */
const HELD_WORDS: Readonly<Record<Exclude<GuestPolicyDecision['held'], 'no'>, string>> = {
  step: 'step by step',
  small: 'nearly there',
  blocked: 'rests',
  harm: 'was harmed',
  stale: 'old statistics',
  boot: 'has booted',
  waiting: 'waits for others',
  stuck: 'stuck',
  hold: 'on hold',
  off: 'not steered',
  unknown: 'no sense',
};

const BOUND_WORDS: Readonly<Record<GuestPolicyDecision['bound'], string>> = {
  room: 'room for all',
  surplus: 'need and surplus',
  shares: 'by shares',
  floor: 'its floor',
  fixed: 'not steered',
};

function whyText({ policy }: Row): string {
  if (policy === null) return '-';
  if (policy.error !== null) return 'cannot be asked';
  if (policy.mode !== 'auto') return HELD_WORDS[policy.mode];
  if (policy.decision === null) return 'not decided';
  const { held, bound } = policy.decision;
  return held === 'no' ? BOUND_WORDS[bound] : HELD_WORDS[held];
}

/** Where a memory policy looks after the guests: what each needs, and why it has what it has. */
export const POLICY_COLUMNS: readonly Column<Row>[] = [
  { title: 'NEED', align: 'right', text: ({ policy }) => sizeText(policy?.decision?.needBytes ?? null) },
  { title: 'WHY', text: whyText },
];

const barTitle = ({ full, dense, medium, light }: Glyphs) =>
  `used${full} cache${dense} free held${medium} balloon${light}`;

export const barColumn = (style: Style, glyphs: Glyphs, width: number): Column<Row> => ({
  title: barTitle(glyphs).slice(0, width).padEnd(width),
  text: () => ' '.repeat(width),
  paint: (blank, { use }) => {
    if (use === undefined) return blank;
    const { memory, used, cache, free, freeHeld, freeAway, ballooned } = use;
    const share = (bytes: number | null) => (bytes ?? 0) / memory;
    if (used === null) {
      const rest = memory - ballooned;
      return renderBar(
        [
          { character: '?', share: share(rest), paint: style.dim },
          { character: glyphs.light, share: share(ballooned), paint: style.green },
        ],
        width,
      );
    }
    return renderBar(
      [
        { character: glyphs.full, share: share(used), paint: style.blue },
        { character: glyphs.dense, share: share(cache), paint: style.blue },
        { character: glyphs.medium, share: share(freeHeld), paint: style.yellow },
        // Where it is not known whether the host holds what is free, nothing is painted.
        { character: ' ', share: share(freeHeld === null ? free : freeAway) },
        { character: glyphs.light, share: share(ballooned), paint: style.green },
      ],
      width,
    );
  },
});
