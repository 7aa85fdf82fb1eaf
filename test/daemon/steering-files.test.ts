/** How guests are steered, in files that outlive a daemon: written whole, read by the next one, and refused when they make no sense. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SteeringFiles } from '../../src/daemon/steering-files.ts';
import type { GuestOptions, LogRecord } from '../../src/hosting/options.ts';

const GIB = 2 ** 30;
/** However slow the disk is. */
const DISK_MS_MAX = 100_000;
const NOTHING = { targetBytes: null, memoryBytes: null, discard: null, pollIntervalMs: null, lease: null };

const options = (name: string, started: Partial<GuestOptions> = {}): GuestOptions => ({
  name,
  socketPath: `/run/${name}.sock`,
  targetBytes: 0,
  profile: 'virtio',
  discard: 'auto',
  without: [],
  pollIntervalMs: 10_000,
  ...started,
});

let directory: string;
let log: LogRecord[];

/** A daemon that serves vm1 and vm2. */
function open(started: Partial<GuestOptions> = {}) {
  const files = new SteeringFiles(directory, record => log.push(record), DISK_MS_MAX);
  const [vm1, vm2] = ['vm1', 'vm2'].map(name => files.read(options(name, started)));
  return { files, vm1, vm2 };
}

const path = (guest: string): string => join(directory, 'guests', `${guest}.json`);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  log = [];
});

afterEach(() => rmSync(directory, { recursive: true }));

test('a guest that was never ordered anything has none', () => {
  expect(open().vm1).toEqual(NOTHING);
  expect(log).toEqual([]);
});

test('the next daemon reads what was ordered last of each', async () => {
  const { files } = open();
  await files.ordered('vm1', { targetBytes: GIB, discard: 'after-ack' });
  await files.ordered('vm1', { pollIntervalMs: 5000 });
  await files.ordered('vm1', { memoryBytes: 3 * GIB });
  await files.ordered('vm2', { targetBytes: 0 });
  const next = open();
  expect(next.vm1).toEqual({
    ...NOTHING,
    memoryBytes: 3 * GIB,
    discard: 'after-ack',
    pollIntervalMs: 5000,
  });
  expect(next.vm2).toEqual({ ...NOTHING, targetBytes: 0 });
  expect(readdirSync(join(directory, 'guests')).sort()).toEqual(['vm1.json', 'vm2.json']);
  expect(statSync(path('vm1')).mode & 0o777).toBe(0o600);
});

test('what the daemon is started otherwise with counts, for it was said later', async () => {
  const { files } = open({ targetBytes: GIB });
  await files.ordered('vm1', { targetBytes: 2 * GIB, discard: 'after-ack' });
  expect(open({ targetBytes: GIB }).vm1.targetBytes).toBe(2 * GIB);
  expect(open({ targetBytes: 3 * GIB }).vm1).toEqual({ ...NOTHING, discard: 'after-ack' });
  expect(open({ targetBytes: GIB, discard: 'before-ack' }).vm1).toEqual({ ...NOTHING, targetBytes: 2 * GIB });
});

test("a policy's lease is kept with its end, a renewal of it when the file is far behind, and a person's order ends it", async () => {
  const { files } = open();
  const before = Date.now();
  await files.ordered('vm1', { targetBytes: GIB, lease: { forMs: 4000, onSilence: 'release' } });
  await files.settled();
  const { lease } = open().vm1;
  expect(lease?.onSilence).toBe('release');
  expect(lease?.untilMs).toBeGreaterThanOrEqual(before + 4000);
  files.renewed(4001);
  await files.settled();
  expect(open().vm1.lease).toEqual(lease);
  files.renewed(120_000);
  await files.settled();
  expect(open().vm1.lease?.untilMs).toBeGreaterThanOrEqual(before + 120_000);
  await files.ordered('vm1', { targetBytes: 2 * GIB });
  expect(open().vm1).toEqual({ ...NOTHING, targetBytes: 2 * GIB });
});

test('many orders in a row are written as the last of them', async () => {
  const { files } = open();
  for (let target = 0; target <= 200; target++) void files.ordered('vm1', { targetBytes: target * 4096 });
  await files.settled();
  expect(open().vm1).toEqual({ ...NOTHING, targetBytes: 200 * 4096 });
});

test('of a guest that is sent away nothing stays, also while it is written', async () => {
  const { files } = open();
  const written = files.ordered('vm1', { targetBytes: GIB });
  files.forget('vm1');
  await written;
  expect(readdirSync(join(directory, 'guests'))).toEqual([]);
});

describe('a file that makes no sense here is named, set aside, and the guest starts afresh:', () => {
  const whole = (changes: object) =>
    JSON.stringify({
      version: 1,
      ...NOTHING,
      started: { targetBytes: 0, discard: 'auto', pollIntervalMs: 10_000 },
      ...changes,
    });

  test('one that makes sense is taken', () => {
    mkdirSync(join(directory, 'guests'));
    writeFileSync(path('vm1'), whole({ targetBytes: 4096 }));
    expect(open().vm1.targetBytes).toBe(4096);
    expect(log).toEqual([]);
  });

  test.each([
    ['damaged', whole({ targetBytes: 4096 }).slice(0, -20), 'it is damaged'],
    [
      'of a newer version',
      '{"version": 2, "targets": []}',
      'it has version 2, and this daemon reads version 1',
    ],
    ['with a target that cannot be', whole({ targetBytes: -4096 }), 'it is damaged'],
    ['with two targets', whole({ targetBytes: 0, memoryBytes: 0 }), 'it is damaged'],
    ['with a mode that there is not', whole({ discard: 'never' }), 'it is damaged'],
    ['with a lease without an end', whole({ lease: { onSilence: 'keep' } }), 'it is damaged'],
    ['that is no object', '[]', 'it is damaged'],
    ['that is nothing', 'null', 'it is damaged'],
    ['far too large', `{"version": 1, "x": "${'x'.repeat(10_000)}"}`, 'it is too large'],
  ])('one %s', async (_, text, why) => {
    mkdirSync(join(directory, 'guests'));
    writeFileSync(path('vm1'), text);
    const { files, vm1 } = open();
    expect(vm1).toEqual(NOTHING);
    expect(log).toHaveLength(1);
    expect(log[0].message).toContain(path('vm1'));
    expect(log[0].message).toContain(why);
    expect(readFileSync(`${path('vm1')}.refused`, 'utf8')).toBe(text);
    expect(existsSync(path('vm1'))).toBe(false);
    await files.ordered('vm1', { targetBytes: 4096 });
    expect(open().vm1.targetBytes).toBe(4096);
  });
});

test('a directory that cannot be written costs one warning, and no order', async () => {
  const { files } = open();
  rmSync(join(directory, 'guests'), { recursive: true });
  await files.ordered('vm1', { targetBytes: 4096 });
  await files.ordered('vm1', { targetBytes: 8192 });
  expect(log.map(({ message }) => message)).toEqual([expect.stringContaining('it cannot be written')]);
});
