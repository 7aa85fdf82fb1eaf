/** `aerostat request`: asks a guest for something over its request queue, and waits for the answer. */
import { Argument, Command } from 'commander';
import { GUEST_REQUESTS, type GuestRequest } from '../../control/contract.ts';
import { GUEST_TIMEOUT_MS_MAX } from '../../control/limits.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { formatSize } from '../size.ts';

const EXAMPLES = `
Examples:
  aerostat request vm1 unused-pages   which memory the guest does not use
  aerostat request vm1 drop-cache     drop its clean page cache
  aerostat request vm1 shrink         run its shrinkers, then name what is unused

Four of the proposed ABIs have a queue for this (aerostat device --profile page-bitmap, page-order, page-range or
page-chunks). Pages that are named are counted, never discarded: the guest may use them again at any moment.`;

interface RequestChoice extends GuestsChoice {
  readonly timeout: number;
}

export function requestCommand(context: CliContext): Command {
  const command = new Command('request')
    .description('ask a guest for its unused pages, or to make some')
    .argument('<guest>')
    .addArgument(new Argument('<what>', 'what to ask for').choices(GUEST_REQUESTS))
    .addOption(
      durationOption('--timeout <duration>', 'longest wait for the answer', GUEST_TIMEOUT_MS_MAX).default(
        10_000,
        '10s',
      ),
    )
    .addHelpText('after', EXAMPLES)
    .action((name: string, what: GuestRequest, { timeout, ...choice }: RequestChoice) =>
      withGuests(context, choice, async control => {
        const answer = await control.request(name, { request: what, timeoutMs: timeout });
        if (choice.json) return void printJson(context.stdout, answer);
        const said = what === 'drop-cache' ? 'done' : `${formatSize(answer.unusedBytes)} unused`;
        printLine(context.stdout, `${name}: ${said} after ${formatDuration(answer.elapsedMs)}`);
      }),
    );
  return withGuestOptions(command);
}
