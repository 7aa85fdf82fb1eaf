/** Traces from files: written by hand, and recorded of real guests. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { benchPolicy } from '../../src/bench/policy/policy.ts';
import { readTraceFile } from '../../src/bench/policy/trace-file.ts';
import { GIB } from '../../src/policy/units.ts';
import { WARM_UP_S } from '../../src/sim/policy/run.ts';
import { recordLine } from '../../src/steering/recording.ts';
import { guestOf, TestHost } from '../policy/world.ts';

let directory: string;
const write = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const wants = (path: string, guest: number, atS: number) => {
  const demand = { programsBytes: 0, cacheBytes: 0, accesses: 0, committedBytes: 0 };
  readTraceFile(path).guests[guest].demand(WARM_UP_S + atS, demand);
  return [demand.programsBytes / GIB, demand.cacheBytes / GIB];
};

const WRITTEN = {
  totalBytes: 6 * GIB,
  othersBytes: GIB,
  seconds: 120,
  guests: [
    {
      name: 'web',
      memoryBytes: 4 * GIB,
      wants: [
        // By a gibibyte in ten seconds, up to two and a half.
        ...Array.from({ length: 21 }, (_, second) => ({
          atS: 60 + second,
          programsBytes: (0.5 + 0.1 * second) * GIB,
        })),
        { atS: 0, programsBytes: 0.5 * GIB, cacheBytes: GIB, accesses: 50 },
      ],
    },
    { name: 'db', memoryBytes: 4 * GIB, minBytes: 1.25 * GIB, wants: [{ atS: 0, programsBytes: GIB }] },
  ],
};

test('a guest wants what its file says from each moment on', async () => {
  const path = write('own.json', JSON.stringify(WRITTEN));
  expect([-1, 0, 59.75, 80, 500].map(atS => wants(path, 0, atS))).toEqual([
    [0.5, 1],
    [0.5, 1],
    [0.5, 1],
    [2.5, 0],
    [2.5, 0],
  ]);
  const { rows } = await benchPolicy({
    seed: 1,
    policies: ['aerostat', 'static'],
    traces: [],
    files: [path],
    signal: new AbortController().signal,
    progress: () => {},
  });
  const kills = rows.filter(({ scenario }) => scenario === 'own.json').map(row => [row.case, row.kills]);
  expect(kills).toEqual([
    ['aerostat', 0],
    ['static', expect.any(Number)],
  ]);
  // A static size has the guest at 2 GiB when it wants 2.5; ours gives it what the other one does not use.
  expect(kills[1][1]).toBeGreaterThan(0);
});

test('a guest wants what was recorded of it: what it had, without what was available to it', () => {
  const host = new TestHost(16 * GIB, [guestOf('a', 4 * GIB, GIB), guestOf('b', 2 * GIB, 0.5 * GIB)]);
  const lines = [0, 2, 4].map(atS => {
    host.guests[0].usedBytes = (1 + atS / 4) * GIB;
    host.atMs = 1000 * atS;
    return recordLine(host.sample(), 5_000_000 + 1000 * atS);
  });
  const path = write('night.jsonl', `${lines.join('\n')}\n`);
  expect([0, 1.5, 2, 4].map(atS => wants(path, 0, atS)[0])).toEqual([1, 1, 1.5, 2]);
  expect(wants(path, 1, 4)[0]).toBe(0.5);
  expect(readTraceFile(path)).toMatchObject({
    name: 'night.jsonl',
    seconds: WARM_UP_S + 4,
    totalBytes: 16 * GIB,
  });
});

test('a file that is neither is refused, with the place of what is wrong', () => {
  const { guests, ...rest } = WRITTEN;
  const wrong = write('wrong.json', JSON.stringify({ ...rest, guests: [{ ...guests[0], memoryBytes: -1 }] }));
  expect(() => readTraceFile(wrong)).toThrow(/wrong\.json is no trace: guests\.0\.memoryBytes: /);
  expect(() => readTraceFile(write('empty.json', '{"guests": []}'))).toThrow(/totalBytes/);
  expect(() => readTraceFile(write('words', 'night\n'))).toThrow(/words:1: neither a sample/);
});
