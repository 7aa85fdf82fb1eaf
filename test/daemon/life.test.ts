/** How a daemon lives: whose sockets it takes, how it ends, and what is there for the next. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { type OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixListener, UnixSocket } from '../../src/sys/socket.ts';
import { build, program } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest, type HandGuestOptions } from './hand-guest.ts';

const MIB = 2 ** 20;
const PAGES_PER_MIB = MIB / PAGE_SIZE;

let loop: TestLoop;
let directory: string;
let daemons: DaemonProcess[];
let guests: HandGuest[];
let openBefore: number;

beforeAll(build);

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  daemons = [];
  guests = [];
});

afterEach(async () => {
  for (const guest of guests) guest.close();
  for (const daemon of daemons) await daemon.stop();
  loop.close();
  rmSync(directory, { recursive: true, force: true });
  expect(openDescriptorCount()).toBe(openBefore);
});

async function start(
  names: readonly string[],
  words: readonly string[] = [],
  inherits: readonly OwnedFd[] = [],
): Promise<DaemonProcess> {
  const daemon = await DaemonProcess.start(names, words, { directory, inherits });
  daemons.push(daemon);
  return daemon;
}

async function connect(
  target: string | UnixSocket,
  options: Partial<HandGuestOptions> = {},
): Promise<HandGuest> {
  const guest = await HandGuest.connect(target, { loop, ...options });
  guests.push(guest);
  return guest;
}

/** Runs a daemon that is expected to refuse to start. */
function refusal(...words: readonly string[]): { code: number | null; message: string } {
  const api = join(directory, 'refused.sock');
  const { status, stderr } = spawnSync(process.execPath, [program, 'device', '--api', api, ...words], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { code: status, message: stderr };
}

describe('the path of a socket', () => {
  test('that a living daemon serves is refused, and the living one goes on', async () => {
    const daemon = await start(['a']);
    const { code, message } = refusal('--socket-path', daemon.socketOf('a'));
    expect(code).toBe(1);
    expect(message).toContain('is served by a living process');
    expect((await connect(daemon.socketOf('a'))).frontend.connected).toBe(true);
  });

  test('is refused as well while the living daemon serves a guest', async () => {
    const daemon = await start(['a']);
    const guest = await connect(daemon.socketOf('a'));
    expect(refusal('--socket-path', daemon.socketOf('a')).message).toContain('living process');
    await guest.inflate(FIRST_PAGE, 1);
  });

  test('that a dead daemon left is taken over', async () => {
    const dead = await start(['a']);
    const before = await connect(dead.socketOf('a'));
    await before.inflate(FIRST_PAGE, 16);
    await dead.end('SIGKILL');
    expect(existsSync(dead.socketOf('a'))).toBe(true);

    const next = await start(['a']);
    const guest = await connect(next.socketOf('a'));
    await guest.inflate(FIRST_PAGE, 16);
    expect((await next.control.guest('a')).balloonedBytes).toBe(16 * PAGE_SIZE);
  });

  test('that is a file of a user is refused and left alone', () => {
    const path = join(directory, 'notes');
    writeFileSync(path, 'mine');
    const { code, message } = refusal('--socket-path', path);
    expect(code).toBe(1);
    expect(message).toContain('is no socket');
    expect(readFileSync(path, 'utf8')).toBe('mine');
  });

  test('does not stay behind when another guest of the same daemon cannot be opened', () => {
    writeFileSync(join(directory, 'notes'), 'mine');
    const good = join(directory, 'good');
    expect(refusal('--socket-path', good, '--socket-path', join(directory, 'notes')).code).toBe(1);
    expect(existsSync(good)).toBe(false);
  });
});

test('two guests with one name are refused', () => {
  const { code, message } = refusal(
    ...['--socket-path', join(directory, 'a'), '--socket-path', join(directory, 'b')],
    ...['--name', 'twin', '--name', 'twin'],
  );
  expect(code).toBe(2);
  expect(message).toContain('two guests are called twin');
});

describe('SIGTERM', () => {
  test('gives back all that was acknowledged, ends with 0, and leaves no socket', async () => {
    const daemon = await start(['a']);
    const pages = 256 * PAGES_PER_MIB;
    const guest = await connect(daemon.socketOf('a'), { memoryBytes: 320 * MIB });
    guest.touch(FIRST_PAGE, pages);
    const resident = guest.residentBytes;
    await guest.inflate(FIRST_PAGE, pages);
    // Acknowledged a moment ago: nearly all of it is still to be discarded.
    expect(await daemon.end()).toBe(0);
    expect(resident - guest.residentBytes).toBe(pages * PAGE_SIZE);
    expect(readdirSync(directory)).toEqual([]);
  });

  test('ends a daemon that no guest ever came to, and one whose guest just sits there', async () => {
    const idle = await start(['a']);
    expect(await idle.end()).toBe(0);
    const busy = await start(['a']);
    await connect(busy.socketOf('a'));
    expect(await busy.end()).toBe(0);
    await loop.turnUntil(() => !guests[0].frontend.connected);
  });
});

describe('an inherited descriptor', () => {
  test('that listens is served, one front-end after the other', async () => {
    const path = join(directory, 'inherited.sock');
    const listener = UnixListener.bind(path);
    const daemon = await start([], ['--fd', '3', '--name', 'a'], [listener.fd]);
    listener.close();
    for (let turn = 0; turn < 2; turn++) {
      const guest = await connect(path);
      guest.touch(FIRST_PAGE, 64);
      await guest.inflate(FIRST_PAGE, 64);
      await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
      guest.close();
    }
    expect((await daemon.control.guest('a')).counters.connections).toBe(2);
  });

  test('that is connected is served until its front-end leaves', async () => {
    const [ours, theirs] = UnixSocket.pair();
    const daemon = await start([], ['--fd', '3', '--name', 'a'], [theirs.fd]);
    theirs.close();
    const guest = await connect(ours);
    await guest.inflate(FIRST_PAGE, 64);
    expect((await daemon.control.guest('a')).balloonedBytes).toBe(64 * PAGE_SIZE);
    guest.close();
    await daemon.untilGuest('a', ({ connected }) => !connected);
    expect(await daemon.end()).toBe(0);
  });

  test('that is no socket is refused', async () => {
    await expect(start([], ['--fd', '3', '--name', 'a'])).rejects.toThrow(/descriptor 3/);
  });
});

describe('a front-end that vanishes', () => {
  test('in the middle of an inflation makes room for the next, which finds the target', async () => {
    const daemon = await start(['a', 'b']);
    const target = 1000;
    await daemon.control.change('a', { targetBytes: target * PAGE_SIZE });
    const first = await connect(daemon.socketOf('a'));
    expect((await first.readConfig()).numPages).toBe(target);
    await first.writeActual(100);
    // All of the ring is under way when it goes.
    const queue = first.queue('inflate');
    for (let pfn = FIRST_PAGE; queue.add({ outAt: [[pfn * PAGE_SIZE, PAGE_SIZE]] }); pfn++);
    queue.kick();
    first.close();

    const next = await connect(daemon.socketOf('a'));
    expect(await next.readConfig()).toMatchObject({ numPages: target, actual: 0 });
    next.touch(FIRST_PAGE, 500);
    const resident = next.residentBytes;
    await next.inflate(FIRST_PAGE, 500);
    const { balloonedBytes } = await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
    expect(balloonedBytes).toBe(500 * PAGE_SIZE);
    expect(resident - next.residentBytes).toBe(500 * PAGE_SIZE);
  });

  test('takes its waiting successor out of the backlog', async () => {
    const daemon = await start(['a']);
    const first = await connect(daemon.socketOf('a'));
    const second = connect(daemon.socketOf('a'));
    await first.inflate(FIRST_PAGE, 8);
    expect((await daemon.control.guest('a')).counters.connections).toBe(1);
    first.close();
    await (await second).inflate(FIRST_PAGE, 8);
    expect((await daemon.control.guest('a')).counters.connections).toBe(2);
  });
});

describe('a guest that is paused', () => {
  test('keeps its account, and goes on where its rings stopped', async () => {
    const daemon = await start(['a']);
    const guest = await connect(daemon.socketOf('a'));
    guest.touch(FIRST_PAGE, 1000);
    const resident = guest.residentBytes;
    await guest.inflate(FIRST_PAGE, 1000);
    await loop.until(guest.frontend.pause());
    // A pause is answered when all that was acknowledged is back at the host.
    expect(resident - guest.residentBytes).toBe(1000 * PAGE_SIZE);
    const paused = await daemon.control.guest('a');
    expect(paused).toMatchObject({ balloonedBytes: 1000 * PAGE_SIZE, pendingBytes: 0 });

    await loop.until(guest.frontend.resume());
    await guest.deflate(FIRST_PAGE, 400);
    const { balloonedBytes, counters } = await daemon.control.guest('a');
    expect(balloonedBytes).toBe(600 * PAGE_SIZE);
    expect(counters).toMatchObject({ deflatedPages: 400, badPages: 0, badBuffers: 0 });
  });

  test('goes on over another connection, where the account begins anew', async () => {
    const daemon = await start(['a']);
    const guest = await connect(daemon.socketOf('a'));
    await guest.inflate(FIRST_PAGE, 300);
    await loop.until(guest.frontend.pause());
    await loop.until(guest.frontend.reconnect(daemon.socketOf('a')));
    await guest.inflate(FIRST_PAGE + 300, 200);
    // A new connection may be another guest's, so nothing is remembered of the last one but the totals.
    const { balloonedBytes, counters } = await daemon.control.guest('a');
    expect(balloonedBytes).toBeNull();
    expect(counters).toMatchObject({ pages: 500, connections: 2, badBuffers: 0, brokenRings: 0 });
  });
});
