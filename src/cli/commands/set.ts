/** `aerostat set`: how much memory a guest has, and how what it gives away is taken. */
import { Command, Option } from 'commander';
import {
  DISCARD_MODES,
  type DiscardMode,
  type GuestChanges,
  GuestStateError,
  type GuestStatus,
  POLL_INTERVAL_MS_MAX,
  TARGET_BYTES_MAX,
} from '../../control/contract.ts';
import type { GuestControl } from '../../control/operations.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption, sizeOption } from '../options.ts';
import { targetBar } from '../progress.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';
import { notReached, type Waited, waitForTarget } from '../wait.ts';

const EXAMPLES = `
Examples:
  aerostat set vm1 --balloon 2G             take 2 GiB from the guest
  aerostat set vm1 --memory 1.5G --wait     leave it 1.5 GiB; return when it is so
  aerostat set vm1 --balloon 0              give everything back
  aerostat set vm1 --poll-interval 5s       ask for statistics every 5 seconds

With --wait it ends with code 4 if the target was not reached in time; the guest goes on towards it.`;

interface SetChoice extends GuestsChoice {
  readonly balloon?: number;
  readonly memory?: number;
  readonly discard?: DiscardMode;
  readonly pollInterval?: number;
  readonly force?: boolean;
  readonly wait?: boolean;
  readonly timeout: number;
}

export function setCommand(context: CliContext): Command {
  const command = new Command('set')
    .description('set how much memory a guest gives away')
    .argument('[guest]', 'may be left out where there is only one')
    .addOption(
      sizeOption('--balloon <size>', 'what the balloon should hold', TARGET_BYTES_MAX).conflicts('memory'),
    )
    .addOption(sizeOption('--memory <size>', 'what the guest should keep'))
    .addOption(new Option('--discard <mode>', 'when its pages go back to the host').choices(DISCARD_MODES))
    .addOption(
      durationOption(
        '--poll-interval <duration>',
        'how often to ask for statistics; 0 for never',
        POLL_INTERVAL_MS_MAX,
      ),
    )
    .option('--force', 'also where the guest says that it cannot spare so much')
    .option('--wait', 'return when the target is reached and nothing is pending')
    .addOption(
      durationOption('--timeout <duration>', 'longest wait; implies --wait')
        .default(60_000, '1m')
        .implies({ wait: true }),
    )
    .addHelpText('after', EXAMPLES)
    .action(async (name: string | undefined, choice: SetChoice) => {
      checkChoice(choice);
      await withGuests(context, choice, async control =>
        setGuest(context, control, await guestName(control, name), choice),
      );
    });
  return withGuestOptions(command);
}

function checkChoice({ balloon, memory, discard, pollInterval, wait }: SetChoice): void {
  const changesTarget = balloon !== undefined || memory !== undefined;
  if (!changesTarget && discard === undefined && pollInterval === undefined) {
    throw new UsageError('nothing to set; give --balloon SIZE or --memory SIZE (see aerostat set --help)');
  }
  if (wait && !changesTarget) {
    throw new UsageError('--wait waits for a target; give --balloon SIZE or --memory SIZE too');
  }
}

async function setGuest(
  context: CliContext,
  control: GuestControl,
  name: string,
  choice: SetChoice,
): Promise<void> {
  const targetBytes = await targetOf(control, name, choice);
  let guest = await control.change(name, changesOf(choice, targetBytes));
  let waited: Waited | undefined;
  if (choice.wait && targetBytes !== undefined) {
    waited = await waitWithBar(context, control, name, targetBytes, choice.timeout);
    guest = waited.guest;
  }
  if (choice.json) {
    const { reached = null, elapsedMs = null } = waited ?? {};
    printJson(context.stdout, { guest, reached, elapsedMs });
  } else if (waited === undefined || waited.reached) {
    printLine(context.stdout, summary(guest, targetBytes, waited));
  }
  if (waited !== undefined && !waited.reached) throw notReached(waited, targetBytes ?? 0);
}

async function targetOf(control: GuestControl, name: string, choice: SetChoice): Promise<number | undefined> {
  if (choice.memory === undefined) return choice.balloon;
  const { memoryBytes } = await control.guest(name);
  if (memoryBytes === null) {
    throw new GuestStateError(
      `${name} is not connected, so its memory is not known; give --balloon instead of --memory`,
    );
  }
  if (choice.memory > memoryBytes) {
    throw new UsageError(
      `${name} has ${formatSize(memoryBytes)} in all and cannot keep ${formatSize(choice.memory)}`,
    );
  }
  const targetBytes = memoryBytes - choice.memory;
  return targetBytes - (targetBytes % PAGE_SIZE);
}

const changesOf = (
  { discard, pollInterval, force }: SetChoice,
  targetBytes: number | undefined,
): GuestChanges => ({
  ...(targetBytes === undefined ? {} : { targetBytes }),
  ...(force === true ? { force } : {}),
  ...(discard === undefined ? {} : { discard }),
  ...(pollInterval === undefined ? {} : { pollIntervalMs: pollInterval }),
});

async function waitWithBar(
  context: CliContext,
  control: GuestControl,
  name: string,
  targetBytes: number,
  timeoutMs: number,
): Promise<Waited> {
  const bar = await targetBar(context, name, targetBytes);
  try {
    const { interrupt } = context;
    return await waitForTarget(control, name, { targetBytes, timeoutMs, interrupt, onProgress: bar.update });
  } finally {
    bar.stop();
  }
}

function summary(guest: GuestStatus, targetBytes: number | undefined, waited: Waited | undefined): string {
  if (targetBytes === undefined) return `${guest.name}: set`;
  const target = `${guest.name}: balloon ${formatSize(targetBytes)}`;
  if (waited !== undefined) return `${target} reached in ${formatDuration(waited.elapsedMs)}`;
  return guest.connected ? `${target} asked for` : `${target} kept for when the guest connects`;
}
