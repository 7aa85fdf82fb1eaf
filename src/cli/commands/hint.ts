/** `aerostat hint`: a session in which the guest names the pages that it does not use. */
import { Argument, Command } from 'commander';
import type { HintAction } from '../../control/contract.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { formatSize } from '../size.ts';

const EXAMPLES = `
Examples:
  aerostat hint vm1 start      ask the guest for its free pages
  aerostat hint vm1            how far it came
  aerostat hint vm1 done       let it have them back

Hinted pages are counted, never discarded: the guest may use them again at any moment.`;

export function hintCommand(context: CliContext): Command {
  const command = new Command('hint')
    .description('run a free page hint session')
    .argument('<guest>')
    .addArgument(
      new Argument('[action]', 'what to do').choices(['start', 'stop', 'done', 'status']).default('status'),
    )
    .addHelpText('after', EXAMPLES)
    .action((name: string, action: HintAction | 'status', choice: GuestsChoice) =>
      withGuests(context, choice, async control => {
        const hint =
          action === 'status' ? await control.hintStatus(name) : await control.hint(name, { action });
        if (choice.json) return void printJson(context.stdout, hint);
        const session = hint.commandId === null ? '' : ` (session 0x${hint.commandId.toString(16)})`;
        const ranges = hint.ranges.toLocaleString('en');
        printLine(
          context.stdout,
          `${name}: ${hint.state}${session}, ${formatSize(hint.hintedBytes)} in ${ranges} ranges`,
        );
      }),
    );
  return withGuestOptions(command);
}
