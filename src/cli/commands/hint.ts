/** `aerostat hint`: a session in which the guest names the pages that it does not use. */
import { Argument, Command } from 'commander';
import type { HintAction, HintStatus } from '../../control/contract.ts';
import { hintWords } from '../../control/judgement.ts';
import { HINT_LIMIT_MS, HINT_LIMIT_MS_MAX } from '../../control/limits.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat hint vm1 start      ask the guest for its free pages
  aerostat hint vm1            how far it came
  aerostat hint vm1 done       let it have them back
  aerostat hint vm1 start --limit 5m
                               let it have them back after 5 minutes at the latest

Hinted pages are counted, never discarded. The guest keeps what it named out of use, which may be all of its free memory,
until the session is done: by the command, or by the session's time limit.`;

interface HintChoice extends GuestsChoice {
  readonly limit?: number;
}

export function hintCommand(context: CliContext): Command {
  const command = new Command('hint')
    .description('run a free page hint session')
    .argument('<guest>')
    .addArgument(
      new Argument('[action]', 'what to do').choices(['start', 'stop', 'done', 'status']).default('status'),
    )
    .addOption(
      durationOption(
        '--limit <duration>',
        `with start: when the session is ended, if done does not end it before (default: ${formatDuration(HINT_LIMIT_MS)})`,
        HINT_LIMIT_MS_MAX,
      ),
    )
    .addHelpText('after', EXAMPLES)
    .action((name: string, action: HintAction | 'status', choice: HintChoice) => {
      const { limit } = choice;
      if (limit !== undefined && action !== 'start')
        throw new UsageError('--limit is of a session that starts');
      if (limit === 0) throw new UsageError('a session needs some time; give --limit 1s or more');
      return withGuests(context, choice, async control => {
        const options = limit === undefined ? {} : { limitMs: limit };
        const hint =
          action === 'status'
            ? await control.hintStatus(name)
            : await control.hint(name, { action, ...options });
        if (choice.json) return void printJson(context.stdout, hint);
        const session = hint.commandId === null ? '' : ` (session 0x${hint.commandId.toString(16)})`;
        const ranges = hint.ranges.toLocaleString('en');
        printLine(
          context.stdout,
          `${name}: ${hintWords(hint, formatSize)}${session}, ${formatSize(hint.hintedBytes)} in ${ranges} ranges${endWords(hint)}`,
        );
      });
    });
  return withGuestOptions(command);
}

/** What the guest does without for now, and until when. */
function endWords({ state, heldBytes, endsInMs }: HintStatus): string {
  if (state !== 'requested' && state !== 'running' && state !== 'stopped') return '';
  const held = heldBytes > 0 ? `it does without ${formatSize(heldBytes)}` : 'it does without what it names';
  return `; ${held} until done${endsInMs === null ? '' : `, in ${formatDuration(endsInMs)} at the latest`}`;
}
