/** The keeper of descriptors: what it holds, for which daemon, and that nothing that becomes of it costs a guest. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Keeper } from '../../src/keeping/keeper.ts';
import { connectToKeeper, KeeperLink } from '../../src/keeping/keeper-link.ts';
import {
  closeAll,
  createEventFd,
  drainEvent,
  type OwnedFd,
  openDescriptorCount,
  ring,
} from '../../src/sys/fd.ts';
import { UnixListener } from '../../src/sys/socket.ts';
import { TestLoop } from '../support/loop.ts';

let directory: string;
let path: string;
let loop: TestLoop;
let keeper: Keeper;
let warnings: string[];
let openBefore: number;

function startKeeper(entriesMax?: number): Keeper {
  const warn = (message: string) => void warnings.push(message);
  return new Keeper(UnixListener.bind(path), loop.reactor, warn, entriesMax);
}

beforeEach(() => {
  openBefore = openDescriptorCount();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  path = join(directory, 'keeper.sock');
  loop = new TestLoop();
  warnings = [];
  keeper = startKeeper();
});

afterEach(() => {
  keeper.close();
  loop.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(openBefore);
});

const lost: string[] = [];
const connect = () => loop.until(connectToKeeper(path, why => lost.push(why)));

/** Takes what is kept as the next daemon would, after `link` is gone. */
async function takeAfter(link: KeeperLink) {
  link.close();
  const { link: next, kept } = await connect();
  return { next, kept };
}

function keepEvents(link: KeeperLink, guest: string, numbers: readonly number[]): OwnedFd[] {
  return numbers.map(number => {
    const event = createEventFd();
    link.of(guest).keep(number, event);
    return event;
  });
}

test('is a file of fewer than 150 lines, with what it says to a daemon and how it is started beside it', () => {
  const source = readFileSync(fileURLToPath(new URL('../../src/keeping/keeper.ts', import.meta.url)), 'utf8');
  expect(source.split('\n').length - 1).toBeLessThan(150);
});

test('gives the next daemon what the former one left, and nothing that it dropped', async () => {
  const { link, kept } = await connect();
  expect(kept.size).toBe(0);
  const events = [...keepEvents(link, 'vm1', [0, 1, 2]), ...keepEvents(link, 'vm2', [0])];
  link.of('vm1').drop(1);
  await loop.turnUntil(() => keeper.size === 3);
  const { next, kept: left } = await takeAfter(link);
  expect([...left].map(([guest, fds]) => [guest, [...fds.keys()]])).toEqual([
    ['vm1', [0, 2]],
    ['vm2', [0]],
  ]);
  // The same files, and not others of the kind.
  ring(events[2]);
  expect(drainEvent(left.get('vm1')!.get(2)!)).toBe(true);
  next.clear('vm1');
  await loop.turnUntil(() => keeper.size === 1);
  for (const fds of left.values()) closeAll(fds.values());
  closeAll(events);
  next.close();
});

test('has a daemon that stands by wait for its turn, however long that takes, and gives it all then', async () => {
  const { link } = await connect();
  const events = keepEvents(link, 'vm1', [0, 1]);
  await loop.turnUntil(() => keeper.size === 2);
  const standby = KeeperLink.to(path, why => lost.push(why));
  const taking = new AbortController();
  const turn = standby.takeInTurn(taking.signal);
  let isItsTurn = false;
  turn.then(
    () => {
      isItsTurn = true;
    },
    () => {},
  );
  // One behind it, which is ended before its turn comes.
  const other = KeeperLink.to(path, why => lost.push(why));
  const giving = new AbortController();
  const never = other.takeInTurn(giving.signal);
  giving.abort(new Error('ended'));
  await expect(loop.until(never)).rejects.toThrow('ended');
  other.close();
  expect(isItsTurn).toBe(false);
  link.close();
  const kept = await loop.until(turn);
  expect([...kept.get('vm1')!.keys()]).toEqual([0, 1]);
  for (const fds of kept.values()) closeAll(fds.values());
  closeAll(events);
  standby.close();
});

test('lets go of all that a guest had when its session ends', async () => {
  const { link } = await connect();
  const events = keepEvents(link, 'vm1', [0, 1, 2, 3]);
  await loop.turnUntil(() => keeper.size === 4);
  for (const number of [0, 1, 2, 3]) link.of('vm1').drop(number);
  await loop.turnUntil(() => keeper.size === 0);
  closeAll(events);
  link.close();
});

test('when it is full, warns, keeps what it has, and serves on', async () => {
  keeper.close();
  rmSync(path, { force: true });
  keeper = startKeeper(3);
  const { link } = await connect();
  const events = keepEvents(link, 'vm1', [0, 1, 2, 3, 4]);
  await loop.turnUntil(() => warnings.length === 2);
  expect(warnings[0]).toContain('vm1 is not kept whole: the table is full with 3 descriptors');
  expect(lost).toEqual([]);
  link.of('vm1').drop(0);
  link.of('vm1').keep(5, events[0]);
  await loop.settle();
  const { next, kept } = await takeAfter(link);
  expect([...kept.get('vm1')!.keys()]).toEqual([1, 2, 5]);
  for (const fds of kept.values()) closeAll(fds.values());
  closeAll(events);
  next.close();
});

test('when it is gone, costs its daemon one warning, whatever that tells it afterwards', async () => {
  const { link } = await connect();
  keeper.close();
  const events = keepEvents(link, 'vm1', [0, 1, 2]);
  // Its end is told on a thread of its own.
  await loop.turnUntil(() => {
    link.of('vm1').drop(1);
    return lost.length > 0;
  });
  link.of('vm1').keep(3, events[0]);
  link.clear('vm1');
  expect(lost.splice(0)).toEqual([expect.stringMatching(/EPIPE|ECONNRESET/)]);
  closeAll(events);
  link.close();
  rmSync(path, { force: true });
  keeper = startKeeper();
});

test('when it is started anew, keeps nothing, and serves the daemon that comes then', async () => {
  const { link } = await connect();
  const events = keepEvents(link, 'vm1', [0]);
  await loop.turnUntil(() => keeper.size === 1);
  keeper.close();
  rmSync(path, { force: true });
  keeper = startKeeper();
  await loop.turnUntil(() => {
    link.of('vm1').keep(1, events[0]);
    return lost.length > 0;
  });
  expect(lost.splice(0)).toHaveLength(1);
  const { next, kept } = await takeAfter(link);
  expect(kept.size).toBe(0);
  next.of('vm1').keep(0, events[0]);
  await loop.turnUntil(() => keeper.size === 1);
  closeAll(events);
  next.close();
});

test('serves one daemon at a time: the next one has its turn when the former has ended', async () => {
  const { link } = await connect();
  const events = keepEvents(link, 'vm1', [0]);
  let served = false;
  const waiting = connectToKeeper(path, () => {}).then(answer => {
    served = true;
    return answer;
  });
  await loop.settle(20);
  expect(served).toBe(false);
  link.close();
  const { link: next, kept } = await loop.until(waiting);
  expect([...kept.keys()]).toEqual(['vm1']);
  for (const fds of kept.values()) closeAll(fds.values());
  closeAll(events);
  next.close();
});

test('has no more memory after thousands of descriptors came and went than before', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const { link } = await connect();
  const event = createEventFd();
  const rounds = async (count: number) => {
    for (let round = 0; round < count; round++) {
      for (let number = 0; number < 32; number++) link.of('vm1').keep(number, event);
      for (let number = 0; number < 32; number++) link.of('vm1').drop(number);
      await loop.settle(2);
    }
    await loop.turnUntil(() => keeper.size === 0);
    collect();
    return process.memoryUsage().heapUsed;
  };
  await rounds(20);
  const grown: number[] = [];
  // Other parts of the process allocate as well: the best of a few counts.
  for (let attempt = 0; attempt < 4; attempt++) {
    const before = await rounds(1);
    grown.push((await rounds(60)) - before);
  }
  // 2,000 descriptors came and went each time; 32 bytes for each would be 60 KiB.
  expect(Math.min(...grown)).toBeLessThan(61_440);
  event.close();
  link.close();
});
