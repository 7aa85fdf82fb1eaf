/** The machines of a host, as its agent reads them: how often each is asked, and what is not kept. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Control } from '../../src/control/operations.ts';
import { Machines } from '../../src/fleet/machines.ts';

let directory: string;
let nowMs: number;
/** Guests whose machines answered a question, one after the other. */
let asked: string[];
let connected: string[];
/** Those that have left. */
let gone: Set<string>;
let answering: Promise<void>;
let machines: Machines;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'machines-'));
  [nowMs, asked, connected, gone, answering] = [0, [], [], new Set(), Promise.resolve()];
  machines = new Machines(directory, connect, () => nowMs);
  for (const guest of ['a', 'b']) writeFileSync(machines.socketOf(guest), '');
});

afterEach(() => rmSync(directory, { recursive: true }));

function connect(socket: string): Control {
  const [, guest] = /([^/]*)\.sock$/.exec(socket) as unknown as [string, string];
  connected.push(guest);
  return {
    guests: async () => {
      asked.push(guest);
      const answer = [{ name: guest, connected: !gone.has(guest), memoryBytes: 100, residentBytes: 50 }];
      await answering;
      return answer;
    },
    samples: async () => ({}),
    daemon: async () => ({ startedAtMs: 1, pid: 2 }),
    migration: async () => ({ migration: null, obstacle: null, dirtyBytesPerSecond: 0 }),
  } as unknown as Control;
}

const here = async (ageMsMax: number): Promise<readonly string[]> =>
  (await machines.all(ageMsMax)).filter(({ isHere }) => isHere).map(({ guest }) => guest);

test('a machine that was asked a moment ago is not asked again, and one client is enough for it', async () => {
  expect(await here(500)).toEqual(['a', 'b']);
  nowMs = 400;
  expect(await here(500)).toEqual(['a', 'b']);
  expect(asked).toEqual(['a', 'b']);
  nowMs = 500;
  await here(500);
  await here(0);
  expect(asked).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
  expect(connected).toEqual(['a', 'b']);
});

test('a machine whose guest has left is asked at once, whatever was asked before', async () => {
  await here(500);
  gone.add('a');
  machines.changed('a');
  expect(await here(500)).toEqual(['b']);
  expect(asked).toEqual(['a', 'b', 'a']);
});

test('what was answered before a guest left is not kept when it comes afterwards', async () => {
  let answer = () => {};
  answering = new Promise(resolve => {
    answer = resolve;
  });
  const before = here(500);
  gone.add('a');
  machines.changed('a');
  answer();
  expect(await before).toEqual(['a', 'b']);
  expect(await here(500)).toEqual(['b']);
});

test('a machine that has ended is forgotten with its client', async () => {
  await here(500);
  rmSync(machines.socketOf('a'));
  expect(await here(500)).toEqual(['b']);
  writeFileSync(machines.socketOf('a'), '');
  expect(await here(500)).toEqual(['a', 'b']);
  expect(connected).toEqual(['a', 'b', 'a']);
});
