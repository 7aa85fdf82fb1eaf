/**
 * `aerostat reclaim` around a snapshot by another program: what it lists is really unused, for the guest does not miss it
 * when it is overwritten, and the guest has everything back afterwards.
 */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { statusOf } from '../../src/control/contract.ts';
import type { GuestControl } from '../../src/control/operations.ts';
import { reclaim } from '../../src/control/reclaim.ts';
import { bitmapOf, type UnneededRange } from '../../src/control/unneeded-ranges.ts';
import type { GuestProcess } from '../../src/embedded/guest-process.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { build } from './built.ts';
import { run } from './terminal.ts';

const MIB = 2 ** 20;
const GUEST_BYTES = 64 * MIB;
const USED_BYTES = 16 * MIB;

const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
const list = join(directory, 'g.json');
let daemon: DaemonProcess;
let guest: GuestProcess;
let api: readonly string[];

beforeAll(async () => {
  build();
  daemon = await DaemonProcess.start(['g', 'absent']);
  api = ['--api', join(daemon.directory, 'api.sock')];
  guest = await startGuestProcess({ socketPath: daemon.socketOf('g'), memoryBytes: GUEST_BYTES });
});

afterAll(async () => {
  await guest?.close();
  await daemon?.stop();
  rmSync(directory, { recursive: true });
});

/** Overwrites the ranges in the guest's memory: what a snapshot without them would come to. */
function overwrite(ranges: readonly UnneededRange[]): void {
  const descriptors = `/proc/${daemon.child.pid}/fd`;
  const memory = readdirSync(descriptors)
    .map(name => join(descriptors, name))
    .find(path => /memfd/.test(readlinkSync(path)) && statSync(path).size === GUEST_BYTES);
  if (memory === undefined) throw new Error('the daemon has no guest memory');
  const fd = openSync(memory, 'r+');
  for (const { guestAddress, bytes } of ranges)
    writeSync(fd, Buffer.alloc(bytes, 0xa5), 0, bytes, guestAddress);
  closeSync(fd);
}

test('what is listed is not missed by the guest, which has it back afterwards', async () => {
  await daemon.reach('g', 4 * MIB);
  await guest.tell({ do: 'use', bytes: USED_BYTES });
  await guest.tell({ do: 'touch' });
  const bits = join(directory, 'g.bits');
  const files = ['--ranges', list, '--bitmap', bits];
  const before = await run([
    'reclaim',
    'g',
    '--before-snapshot',
    '--budget',
    '20s',
    ...files,
    ...api,
    '--json',
  ]);
  expect(before.code, before.err).toBe(0);
  const listed = JSON.parse(before.out);
  expect(JSON.parse(readFileSync(list, 'utf8'))).toEqual(listed);
  expect(listed).toMatchObject({
    balloon: { reached: true, formerTargetBytes: 4 * MIB },
    hints: { state: 'stopped', why: null, holds: expect.stringContaining('until the session is done') },
  });
  expect(Date.parse(listed.hints.holdsUntil)).toBeGreaterThan(Date.parse(listed.takenAt));
  const { ranges }: { ranges: UnneededRange[] } = listed;
  const ballooned = ranges.filter(({ by }) => by === 'balloon').reduce((sum, { bytes }) => sum + bytes, 0);
  expect(ballooned).toBe(listed.balloon.balloonedBytes);
  expect(ballooned).toBeGreaterThan(16 * MIB);
  const unneeded = ranges.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(unneeded).toBe(listed.unneededBytes);
  expect(GUEST_BYTES - unneeded).toBeGreaterThan(USED_BYTES);
  expect(readFileSync(bits).reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)).toBe(
    unneeded / PAGE_SIZE,
  );

  overwrite(ranges);
  expect((await guest.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(USED_BYTES);

  const after = await run(['reclaim', 'g', '--after-snapshot', list, ...api]);
  expect(after.code, after.err).toBe(0);
  expect(after.out).toMatch(/g: has it back; its balloon goes to 4M/);
  const { hint } = await daemon.untilGuest('g', ({ actualBytes }) => actualBytes === 4 * MIB);
  expect(hint.state).toBe('done');
  await guest.tell({ do: 'use', bytes: USED_BYTES });
  expect((await guest.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(2 * USED_BYTES);
});

test('a guest without hints is listed by its balloon alone, and the list says why', async () => {
  const { code, out, err } = await run([
    'reclaim',
    'g',
    '--before-snapshot',
    '--no-hints',
    '--ranges',
    list,
    ...api,
  ]);
  expect(code, err).toBe(0);
  expect(out).toMatch(
    /need not be kept, in .* ranges \(.* in the balloon; no hints: they were not asked for\)/,
  );
  const { ranges } = JSON.parse(readFileSync(list, 'utf8'));
  expect(ranges.every(({ by }: UnneededRange) => by === 'balloon')).toBe(true);
  expect((await run(['reclaim', 'g', '--after-snapshot', list, ...api])).code).toBe(0);
  await daemon.untilGuest('g', ({ actualBytes }) => actualBytes === 4 * MIB);
});

test('a guest whose list could not be written has its target back', async () => {
  const nowhere = ['--ranges', join(directory, 'nowhere', 'g.json')];
  const unwritten = await run(['reclaim', 'g', '--before-snapshot', '--budget', '1s', ...nowhere, ...api]);
  expect(unwritten.code).toBe(2);
  expect(unwritten.err).toMatch(/nowhere.*cannot be written/);
  expect((await daemon.control.guest('g')).targetBytes).toBe(4 * MIB);
});

test('a guest that was on its way when it was called off has its target back, and no session is open', async () => {
  const ordered: object[] = [];
  const status = (targetBytes: number) =>
    statusOf('g', {
      connected: true,
      memoryBytes: 64 * MIB,
      targetBytes,
      actualBytes: 4 * MIB,
      hint: { state: 'requested', commandId: 7, hintedBytes: 0, ranges: 0, heldBytes: 0, endsInMs: 9 },
    });
  const control = {
    guest: async () => status(32 * MIB),
    statistics: async () => ({ statistics: { availableBytes: 48 * MIB }, ageMs: 0, balloonedBytes: 4 * MIB }),
    change: async (_: string, changes: object) => {
      ordered.push(changes);
      return status(0);
    },
    hint: async (_: string, order: object) => void ordered.push(order),
  } as unknown as GuestControl;
  const sleep = () => Promise.reject(new Error('called off'));
  const order = { budgetMs: 60_000, hints: true, holdMs: 1000 };
  await expect(reclaim(control, 'g', order, { nowMs: () => 0, sleep })).rejects.toThrow('called off');
  // Asked for more than before, and for the former target again.
  expect(ordered).toEqual([
    { targetBytes: expect.any(Number) },
    { action: 'done' },
    { targetBytes: 32 * MIB, force: true },
  ]);
});

test('what cannot be asked for is said', async () => {
  const absent = await run(['reclaim', 'absent', '--before-snapshot', '--json', ...api]);
  expect(absent.err).toMatch(/absent is not connected/);
  expect((await run(['reclaim', 'g', ...api])).err).toMatch(
    /give one of --before-snapshot and --after-snapshot/,
  );
  expect((await run(['reclaim', 'g', '--before-snapshot', ...api])).err).toMatch(/where to\?/);
  expect((await run(['reclaim', 'g', '--after-snapshot', join(directory, 'g.bits'), ...api])).err).toMatch(
    /cannot be read|is no list/,
  );
});

test('a bitmap counts pages through the regions, without the gaps between them', () => {
  const regions = [
    { guestAddress: 0, bytes: 3 * PAGE_SIZE },
    { guestAddress: 2 ** 32, bytes: 9 * PAGE_SIZE },
  ];
  const ranges: UnneededRange[] = [
    { guestAddress: PAGE_SIZE, bytes: 2 * PAGE_SIZE, by: 'hint' },
    { guestAddress: 2 ** 32 + 7 * PAGE_SIZE, bytes: PAGE_SIZE, by: 'balloon' },
  ];
  expect([...bitmapOf(regions, ranges)]).toEqual([0b0000_0110, 0b0000_0100]);
});
