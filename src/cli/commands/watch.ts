/** `aerostat watch`: guests as they change, drawn over and over on a terminal, or line by line for programs. */
import { Command } from 'commander';
import type { GuestStatus } from '../../control/contract.ts';
import { balloonOf } from '../../control/memory-use.ts';
import { AerostatError } from '../../sys/error.ts';
import { renderChart, type Series } from '../chart.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { type GuestsChoice, isPattern, lookAt, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { Screen } from '../screen.ts';
import { type Glyphs, glyphsOf, isScreen, isUnicode, type Style, styleOf } from '../style.ts';
import { type Column, renderBar, renderTable, wrap } from '../table.ts';
import { UsageError } from '../usage.ts';
import { errorColumn, statusColumns } from './status.ts';

const EXAMPLES = `
Examples:
  aerostat watch                        all guests, every second
  aerostat watch vm1 --interval 200ms   one guest, with a chart
  aerostat watch --json                 one line of {"timeMs": ..., "guests": [...]} a second

Ctrl-C ends it.`;

/** Faster is more than a terminal shows and more than a daemon should be asked. */
const INTERVAL_MS_MIN = 50;
/** As many points as the widest terminal has columns. */
const HISTORY_MAX = 512;
const BAR_WIDTH = 24;
const CHART_ROWS = 10;

interface WatchChoice extends GuestsChoice {
  readonly interval: number;
}

type Show = (guests: readonly GuestStatus[]) => void;

export function watchCommand(context: CliContext): Command {
  const command = new Command('watch')
    .description('show guests as they change')
    .argument('[guest...]', 'only these; a pattern such as web-* is one too')
    .addOption(durationOption('--interval <duration>', 'how often to look').default(1000, '1s'))
    .addHelpText('after', EXAMPLES)
    .action(async (words: readonly string[], choice: WatchChoice) => {
      if (choice.interval < INTERVAL_MS_MIN) {
        throw new UsageError(`the shortest interval is ${INTERVAL_MS_MIN}ms`);
      }
      await withGuests(context, choice, control =>
        watch(context, () => lookAt(control, words), words, choice),
      );
    });
  return withGuestOptions(command);
}

async function watch(
  context: CliContext,
  look: () => Promise<readonly GuestStatus[]>,
  words: readonly string[],
  { json, interval }: WatchChoice,
): Promise<void> {
  const { stdout, env, interrupt } = context;
  if (isScreen(stdout, env) && !json) {
    const alone = words.length === 1 && !isPattern(words[0]);
    return watchScreen(context, look, alone, interval);
  }
  const columns = [...statusColumns(styleOf(stdout, env)), errorColumn];
  const show: Show = json
    ? guests => printJson(stdout, { timeMs: Date.now(), guests })
    : guests => printLine(stdout, `${renderTable(columns, guests).join('\n')}\n`);
  for (;;) {
    show(await look());
    await sleep(interval, interrupt);
  }
}

/** When the daemon goes away, the screen says so, and goes on when the daemon is back. */
async function watchScreen(
  context: CliContext,
  look: () => Promise<readonly GuestStatus[]>,
  /** One guest, of which a chart can be drawn. */
  alone: boolean,
  intervalMs: number,
): Promise<void> {
  const { stdout, env, interrupt } = context;
  const looks: Looks = { style: styleOf(stdout, env), glyphs: glyphsOf(env), unicode: isUnicode(env) };
  const history: GuestStatus[] = [];
  let guests = await look();
  let lines: string[] = [];
  const screen = new Screen(stdout);
  try {
    for (;;) {
      if (alone) history.push(guests[0]);
      if (history.length > HISTORY_MAX) history.shift();
      lines = frame(guests, history, screen, looks);
      screen.draw(lines);
      for (let lost = true; lost; ) {
        await sleep(intervalMs, interrupt);
        try {
          guests = await look();
          lost = false;
        } catch (error) {
          interrupt.throwIfAborted();
          if (!(error instanceof AerostatError)) throw error;
          screen.draw([...lines, '', ...wrap(error.message, screen.columns).map(looks.style.red)]);
        }
      }
    }
  } finally {
    screen.close();
    // The second screen is gone with all that was on it; leave the newest state to be read.
    if (lines.length > 0) printLine(stdout, lines.join('\n'));
  }
}

interface Looks {
  readonly style: Style;
  readonly glyphs: Glyphs;
  readonly unicode: boolean;
}

function frame(
  guests: readonly GuestStatus[],
  history: readonly GuestStatus[],
  { columns, rows }: Screen,
  { style, glyphs, unicode }: Looks,
): string[] {
  const table = renderTable([...statusColumns(style), barColumn(style, glyphs)], guests);
  const legend = `${style.blue(glyphs.full)} resident  ${style.yellow(glyphs.medium)} pending  ${style.green(glyphs.light)} balloon`;
  const lines = [...table, '', legend];
  const errors = guests.filter(guest => guest.lastError !== null);
  if (errors.length > 0) {
    const told = errors.flatMap(guest => wrap(`${guest.name}: ${guest.lastError}`, columns));
    lines.push('', ...told.map(style.red));
  }
  const height = Math.min(CHART_ROWS, rows - lines.length - 3);
  const series = seriesOf(history);
  if (history.length > 1 && height > 2 && series.length > 0) {
    const colours = style.bold('x') !== 'x';
    lines.push('', ...renderChart(series, { width: columns, height, colours, unicode }));
  }
  return lines;
}

/** What was never known is no line. */
const seriesOf = (history: readonly GuestStatus[]): Series[] => {
  const series: readonly Series[] = [
    { label: 'resident', colour: 'blue', values: history.map(guest => guest.residentBytes) },
    { label: 'balloon', colour: 'green', values: history.map(balloonOf) },
  ];
  return series.filter(({ values }) => values.some(value => value !== null));
};

const barColumn = (style: Style, glyphs: Glyphs): Column<GuestStatus> => ({
  title: 'USE'.padEnd(BAR_WIDTH),
  text: () => ' '.repeat(BAR_WIDTH),
  paint: (blank, guest) => {
    const { memoryBytes, residentBytes } = guest;
    if (memoryBytes === null || memoryBytes === 0) return blank;
    const pendingBytes = guest.pendingBytes ?? 0;
    const balloonBytes = balloonOf(guest) ?? 0;
    // Pending pages are given away and still resident; they are shown once, as what they are about to be.
    const resident = Math.max(0, (residentBytes ?? 0) - pendingBytes);
    return renderBar(
      [
        { character: glyphs.full, share: resident / memoryBytes, paint: style.blue },
        { character: glyphs.medium, share: pendingBytes / memoryBytes, paint: style.yellow },
        { character: glyphs.light, share: (balloonBytes - pendingBytes) / memoryBytes, paint: style.green },
      ],
      BAR_WIDTH,
    );
  },
});
