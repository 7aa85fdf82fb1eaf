/** `aerostat reclaim`: what a guest does not use, taken and listed before another program takes a snapshot of it. */

import { readFileSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { Command } from 'commander';
import { HINT_LIMIT_MS, HINT_LIMIT_MS_MAX } from '../../control/limits.ts';
import { type FormerTarget, type Reclaimed, reclaim, restoreTarget } from '../../control/reclaim.ts';
import { bitmapOf } from '../../control/unneeded-ranges.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { monotonicMs } from '../../sys/monotonic.ts';
import { naturalNumber, nullable, record } from '../../sys/shape.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import { durationOption } from '../options.ts';
import { shareBar } from '../progress.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat reclaim vm1 --before-snapshot --ranges vm1.json --budget 5s
  aerostat reclaim vm1 --before-snapshot --bitmap vm1.bits --ranges vm1.json --no-hints
  aerostat reclaim vm1 --after-snapshot vm1.json

Before: what the guest can spare goes into its balloon, it names what else it does not use, and the list says which
ranges of its memory a snapshotter need not keep. Pause the guest, copy the rest, let it go on. Ballooned ranges hold
until its target changes, or until it takes them back in need. Hinted ranges hold until the session is done, by
--after-snapshot or at the end of --hold, as long as the guest does not run short of memory: give --no-hints for a
guest that may. After: it has all of it back.`;

const BUDGET_MS = 5000;
const BUDGET_MS_MAX = 600_000;

interface ReclaimChoice extends GuestsChoice {
  readonly beforeSnapshot?: boolean;
  readonly afterSnapshot?: string;
  readonly budget: number;
  readonly hold: number;
  readonly hints: boolean;
  readonly ranges?: string;
  readonly bitmap?: string;
}

export function reclaimCommand(context: CliContext): Command {
  const command = new Command('reclaim')
    .description('before a snapshot by another program: take what a guest does not use, and list it')
    .argument('[guest]', 'may be left out where there is only one')
    .option('--before-snapshot', 'fill the balloon, ask for hints, and list what need not be kept')
    .option(
      '--after-snapshot <file>',
      'give it back: end the hints, and the target is what the list says it was',
    )
    .addOption(
      durationOption('--budget <duration>', 'how long it may take', BUDGET_MS_MAX).default(BUDGET_MS, '5s'),
    )
    .addOption(
      durationOption(
        '--hold <duration>',
        'when the hint session ends, if --after-snapshot does not end it before',
        HINT_LIMIT_MS_MAX,
      ).default(HINT_LIMIT_MS, formatDuration(HINT_LIMIT_MS)),
    )
    .option('--no-hints', 'only what is in the balloon')
    .option('--ranges <file>', 'where the list goes, as JSON')
    .option('--bitmap <file>', 'where it goes as a bitmap: a bit for each page, 1 for what need not be kept')
    .addHelpText('after', EXAMPLES)
    .action((named: string | undefined, choice: ReclaimChoice) => {
      const { beforeSnapshot, afterSnapshot, ranges, bitmap, json } = choice;
      if ((beforeSnapshot === true) === (afterSnapshot !== undefined)) {
        throw new UsageError('give one of --before-snapshot and --after-snapshot FILE');
      }
      if (beforeSnapshot === true && ranges === undefined && bitmap === undefined && json !== true) {
        throw new UsageError('where to? Give --ranges FILE, --bitmap FILE or --json');
      }
      const former = afterSnapshot === undefined ? undefined : readFormer(afterSnapshot);
      return withGuests(context, choice, async control => {
        const name = await guestName(control, named);
        if (former === undefined) return before(context, choice, control, name);
        const guest = await restoreTarget(control, name, former);
        if (json) printJson(context.stdout, { guest: name, targetBytes: guest.targetBytes });
        else
          printLine(
            context.stdout,
            `${name}: has it back; its balloon goes to ${formatSize(guest.targetBytes ?? 0)}`,
          );
      });
    });
  return withGuestOptions(command);
}

async function before(
  context: CliContext,
  { budget, hold, hints, ranges, bitmap, json }: ReclaimChoice,
  control: Parameters<typeof reclaim>[0],
  name: string,
): Promise<void> {
  const bar = await shareBar(context);
  const startMs = monotonicMs();
  const world = {
    nowMs: monotonicMs,
    sleep: (ms: number) => sleep(ms, context.interrupt),
    onProgress: ({ balloonedBytes }: { balloonedBytes: number | null }, what: string) =>
      bar?.update(
        Math.min(budget, monotonicMs() - startMs),
        budget,
        `${name} ${what}, ${formatSize(balloonedBytes ?? 0)} in the balloon`,
      ),
  };
  const order = { budgetMs: budget, hints, holdMs: hold };
  const reclaimed = await reclaim(control, name, order, world).finally(() => bar?.stop());
  try {
    if (ranges !== undefined) await writeWhole(ranges, `${JSON.stringify(listOf(reclaimed), null, 1)}\n`);
    if (bitmap !== undefined) await writeWhole(bitmap, bitmapOf(reclaimed.regions, reclaimed.ranges));
  } catch (error) {
    // The list is lost, so the guest is not to do without its memory for it.
    await restoreTarget(control, name, reclaimed.former).catch(() => {});
    throw error;
  }
  if (json === true) printJson(context.stdout, listOf(reclaimed));
  else printLine(context.stdout, describe(reclaimed));
}

/** Under its name only when all of it is there. */
async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const part = `${path}.part`;
  try {
    await writeFile(part, content, { flush: true });
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true }).catch(() => {});
    throw new UsageError(`${path} cannot be written: ${(error as Error).message}`);
  }
}

const bytesBy = ({ ranges }: Reclaimed, by: string): number =>
  ranges.reduce((sum, range) => sum + (range.by === by ? range.bytes : 0), 0);

/** The list as others read it; docs/snapshots.md describes it. */
function listOf(reclaimed: Reclaimed): object {
  const { guest, atMs, memoryBytes, regions, ranges, former, balloon, hints, noHints, hintsUntilMs } =
    reclaimed;
  return {
    version: 1,
    guest,
    takenAt: new Date(atMs).toISOString(),
    pageBytes: PAGE_SIZE,
    memoryBytes,
    regions,
    unneededBytes: ranges.reduce((sum, { bytes }) => sum + bytes, 0),
    balloon: {
      ...balloon,
      formerTargetBytes: former.targetBytes,
      formerMemoryBytes: former.memoryBytes,
      holds: 'until its target changes, or the guest takes pages back in need',
    },
    hints: {
      state: hints?.state ?? null,
      hintedBytes: hints === null ? 0 : bytesBy(reclaimed, 'hint'),
      why: noHints,
      holds:
        hints === null ? null : 'until the session is done, unless the guest runs short of memory before',
      holdsUntil: hintsUntilMs === null ? null : new Date(hintsUntilMs).toISOString(),
    },
    ranges,
  };
}

function describe(reclaimed: Reclaimed): string {
  const { guest, ranges, memoryBytes, balloon, hints, noHints, hintsUntilMs } = reclaimed;
  const [ballooned, hinted] = [bytesBy(reclaimed, 'balloon'), bytesBy(reclaimed, 'hint')];
  const short = balloon.reached ? '' : ` of ${formatSize(balloon.targetBytes)} that it could spare`;
  const until = hintsUntilMs === null ? '' : `, until ${new Date(hintsUntilMs).toISOString()}`;
  const named = hints === null ? `no hints: ${noHints}` : `${formatSize(hinted)} hinted${until}`;
  return `${guest}: ${formatSize(ballooned + hinted)} of ${formatSize(memoryBytes)} need not be kept, in ${ranges.length.toLocaleString('en')} ranges (${formatSize(ballooned)} in the balloon${short}; ${named})`;
}

const FORMER_TARGET = record({ targetBytes: nullable(naturalNumber), memoryBytes: nullable(naturalNumber) });

function readFormer(path: string): FormerTarget {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UsageError(`${path} cannot be read: ${(error as Error).message}`);
  }
  const { version, balloon } = Object(value);
  const { formerTargetBytes: targetBytes, formerMemoryBytes: memoryBytes } = Object(balloon);
  const former: FormerTarget = { targetBytes, memoryBytes };
  if (version !== 1 || FORMER_TARGET.fault(former, '') !== null)
    throw new UsageError(`${path} is no list of aerostat reclaim --before-snapshot`);
  return former;
}
