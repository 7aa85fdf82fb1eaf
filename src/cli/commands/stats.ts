/** `aerostat stats`: what a guest says of its own memory. */
import { Command } from 'commander';
import type { GuestStatistics, StatisticsSample } from '../../control/contract.ts';
import { GUEST_TIMEOUT_MS_MAX } from '../../control/limits.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { formatSize } from '../size.ts';
import { renderFields } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat stats vm1             the newest sample that the daemon has
  aerostat stats vm1 --fresh     ask the guest now`;

interface StatsChoice extends GuestsChoice {
  readonly fresh?: boolean;
  readonly timeout: number;
}

export function statsCommand(context: CliContext): Command {
  const command = new Command('stats')
    .description("show the guest's own statistics of its memory")
    .argument('[guest]', 'may be left out where there is only one')
    .option('--fresh', 'ask the guest for a new sample')
    .addOption(
      durationOption(
        '--timeout <duration>',
        'longest wait for a fresh one; implies --fresh',
        GUEST_TIMEOUT_MS_MAX,
      )
        .default(2000, '2s')
        .implies({ fresh: true }),
    )
    .addHelpText('after', EXAMPLES)
    .action((named: string | undefined, choice: StatsChoice) =>
      withGuests(context, choice, async control => {
        const name = await guestName(control, named);
        const options = choice.fresh ? { freshMs: 0, timeoutMs: choice.timeout } : undefined;
        const sample = await control.statistics(name, options);
        if (choice.json) printJson(context.stdout, sample);
        else printLine(context.stdout, describeSample(name, sample));
      }),
    );
  return withGuestOptions(command);
}

const LABELS: Readonly<Record<keyof GuestStatistics, string>> = {
  totalBytes: 'total',
  freeBytes: 'free',
  availableBytes: 'available',
  cacheBytes: 'cache',
  swapInBytes: 'swapped in',
  swapOutBytes: 'swapped out',
  majorFaults: 'major faults',
  minorFaults: 'minor faults',
  hugetlbAllocations: 'huge pages allocated',
  hugetlbFailures: 'huge pages refused',
  oomKills: 'killed for memory',
  allocationStalls: 'allocation stalls',
  asyncScannedPages: 'scanned in background',
  directScannedPages: 'scanned directly',
  asyncReclaimedPages: 'reclaimed in background',
  directReclaimedPages: 'reclaimed directly',
};

function describeSample(name: string, { statistics, ageMs }: StatisticsSample): string {
  if (ageMs === null) return `${name} sent no statistics yet; ask for some with --fresh`;
  const fields = Object.entries(LABELS).flatMap(([key, label]): [string, string][] => {
    const value = statistics[key as keyof GuestStatistics];
    if (value === null) return [];
    return [[label, key.endsWith('Bytes') ? formatSize(value) : value.toLocaleString('en')]];
  });
  return [`${name}: ${formatDuration(ageMs)} ago`, ...renderFields(fields)].join('\n');
}
