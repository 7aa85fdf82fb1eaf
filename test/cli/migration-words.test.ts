/** What a person is told of a migration that takes long, and the bar that shows it. */
import { expect, test } from 'vitest';
import type { CliContext } from '../../src/cli/context.ts';
import { adviceOf, describeState } from '../../src/cli/migration-report.ts';
import { migrationBar } from '../../src/cli/progress.ts';
import type { MigrationState } from '../../src/control/migrations.ts';
import { Captured } from './terminal.ts';

const MIB = 2 ** 20;
const LIMITS = { downtimeMsMax: 300, roundsMax: 30 };

const state = (known: Partial<MigrationState>): MigrationState => ({
  status: 'copying',
  elapsedMs: 9000,
  round: 3,
  totalBytes: 2048 * MIB,
  sentBytes: 1900 * MIB,
  remainingBytes: 448 * MIB,
  bytesPerSecond: 85 * MIB,
  expectedDowntimeMs: 8200,
  guestShare: 1,
  ...known,
});

test('a migration that does not converge says within three rounds what would', () => {
  const advice = adviceOf('vm', state({}), LIMITS) ?? '';
  expect(advice).toMatch(
    /448M to go at 85M\/s\): it would stand still for about 8\.2s, and after round 30 it is given up/,
  );
  for (const option of ['--auto-converge', '--downtime-limit 9s', '--compress', '--rate']) {
    expect(advice).toContain(option);
  }
});

test('a guest that is slowed down is said to be, and how to leave it its time', () => {
  expect(adviceOf('vm', state({ guestShare: 0.125 }), LIMITS)).toMatch(
    /^vm writes faster than can be sent and has 13 % of its time .* --no-auto-converge/,
  );
});

test('the wait for a page is told by what knows it, and left out where a hypervisor does not tell', () => {
  const postcopy = { missingBytes: MIB, faults: 1234, recoveries: 0, broken: null };
  const told = (longestFaultMs: number | null) =>
    describeState('vm', state({ postcopy: { ...postcopy, longestFaultMs } }));
  expect(told(7)).toMatch(/1,234 pages waited for, 7ms at most/);
  expect(told(null)).toMatch(/1,234 pages waited for$/);
});

test('there is nothing to say before rounds tell, or when the rest fits', () => {
  expect(adviceOf('vm', state({ round: 2 }), LIMITS)).toBeUndefined();
  expect(adviceOf('vm', state({ expectedDowntimeMs: 300 }), LIMITS)).toBeUndefined();
  expect(adviceOf('vm', state({ expectedDowntimeMs: null }), LIMITS)).toBeUndefined();
});

test('the bar never goes backwards, whatever is to be sent again, and lines go above it', async () => {
  const stderr = new Captured(100);
  const bar = await migrationBar({ stderr, env: {} } as unknown as CliContext, 'vm');
  const widths: number[] = [];
  const update = (remainingMib: number) => {
    stderr.text = '';
    bar.update(state({ remainingBytes: remainingMib * MIB }));
    // Drawn at most so many times a second; what is drawn at the end is what counts.
    bar.stop();
    widths.push(stderr.text.match(/█+(?!.*█)/)?.[0].length ?? 0);
  };
  for (const remaining of [2048, 1024, 256, 1500, 900, 128, 700]) {
    update(remaining);
    bar.say('a line');
  }
  expect(stderr.text).toContain('a line\n');
  expect(widths).toEqual(widths.toSorted((a, b) => a - b));
  expect(widths.at(-1)).toBeGreaterThan(widths[1]);
});
