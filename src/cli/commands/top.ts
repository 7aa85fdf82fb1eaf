/** `aerostat top`: all guests at a glance in a terminal, sorted by a column, and a key that sets a target. */
import { Command, Option } from 'commander';
import type { Control } from '../../control/operations.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { readKeys } from '../keys.ts';
import { durationOption } from '../options.ts';
import { Screen } from '../screen.ts';
import { formatSize } from '../size.ts';
import { glyphsOf, isScreen, styleOf } from '../style.ts';
import { type Seen, TopScreen } from '../top-screen.ts';
import { SORT_KEYS, type SortKey } from '../top-table.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Keys:
  up, down    select a guest
  t, Enter    set its target: type a size and press Enter
  n m b r a   sort by name, memory, balloon, resident, available
  ?           say what keys and bars mean
  q           end

Where a memory policy looks after the guests, NEED is what it reckons that a guest needs, and WHY says what bound its target;
the whole sentence is below the table, of the selected guest.

Without a terminal it prints one table and ends, with --json everything that it knows.`;

/** Faster is more than a terminal shows and more than a daemon should be asked. */
const INTERVAL_MS_MIN = 50;

interface TopChoice extends GuestsChoice {
  readonly interval: number;
  readonly sort: SortKey;
}

export function topCommand(context: CliContext): Command {
  const command = new Command('top')
    .description('all guests at a glance; sort them, and set their targets')
    .addOption(durationOption('--interval <duration>', 'how often to look').default(1000, '1s'))
    .addOption(new Option('--sort <column>', 'what to sort by').choices(SORT_KEYS).default('name'))
    .addHelpText('after', EXAMPLES)
    .action(async (choice: TopChoice) => {
      if (choice.interval < INTERVAL_MS_MIN) {
        throw new UsageError(`the shortest interval is ${INTERVAL_MS_MIN}ms`);
      }
      await withGuests(context, choice, control => runTop(context, control, choice));
    });
  return withGuestOptions(command);
}

async function runTop(context: CliContext, control: Control, choice: TopChoice): Promise<void> {
  const { stdin, stdout, env, interrupt } = context;
  const style = styleOf(stdout, env);
  /** Ends the wait between two looks. */
  let wake = () => {};
  const top = new TopScreen((guest, bytes, force) => {
    control
      .change(guest, { targetBytes: bytes, force })
      .then(
        () => top.say(`${guest}: balloon ${formatSize(bytes)} asked for`),
        error => top.say(error instanceof Error ? error.message : String(error)),
      )
      .finally(() => wake());
  }, glyphsOf(env));
  top.order = choice.sort;
  const seen = await look(control, top);
  if (choice.json) return void printJson(stdout, seen);
  if (!isScreen(stdout, env)) {
    printLine(stdout, top.table(style).join('\n'));
    return;
  }
  let end = () => {};
  const ended = new Promise<void>(resolve => {
    end = () => {
      resolve();
      wake();
    };
  });
  const screen = new Screen(stdout);
  const draw = () => screen.draw(top.frame(style, screen));
  const release = readKeys(stdin, key => {
    top.press(key);
    draw();
    if (top.ended) end();
  });
  interrupt.addEventListener('abort', end);
  try {
    while (!top.ended) {
      draw();
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, choice.interval);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      interrupt.throwIfAborted();
      // A daemon that does not answer does not delay the end.
      if (!top.ended) await Promise.race([lookAgain(control, top), ended]);
      interrupt.throwIfAborted();
    }
  } finally {
    interrupt.removeEventListener('abort', end);
    release();
    screen.close();
  }
}

async function look(control: Control, top: TopScreen): Promise<Seen> {
  const [guests, samples, host, policy] = await Promise.all([
    control.guests(),
    control.samples(),
    control.host(),
    // A daemon of an older version has none; all else is worth showing.
    control.policy().catch(() => null),
  ]);
  const seen = { atMs: Date.now(), host, guests, samples, policy: policy?.state === 'off' ? null : policy };
  top.see(seen);
  return seen;
}

/** When the daemon goes away, the screen says so, and goes on when the daemon is back. */
async function lookAgain(control: Control, top: TopScreen): Promise<void> {
  try {
    await look(control, top);
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    top.trouble = error.message;
  }
}
