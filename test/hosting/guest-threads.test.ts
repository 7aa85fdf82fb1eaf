/**
 * The threads that host guests, steered from the main thread, with threads that are none: data-plane threads serve what they
 * are sent on the test's own loop, threads that discard only come and go. That real ones do it is test/daemon/'s.
 */
import { EventEmitter } from 'node:events';
import type { MessagePort } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { GuestThreads } from '../../src/hosting/guest-threads.ts';
import type { LogRecord } from '../../src/hosting/options.ts';
import { ThreadGuests } from '../../src/hosting/thread-guests.ts';
import type { DataThreadData, DataThreadRequest } from '../../src/hosting/worker-protocol.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import type { Reactor } from '../../src/sys/poll.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { DiscardLink, type DiscardThreadData, STOPPED, WAKE_WORD } from '../../src/threads/discard-link.ts';
import { FIRST_PAGE, HandGuest } from '../daemon/hand-guest.ts';
import { TestLoop } from '../support/loop.ts';

const { threads } = vi.hoisted(() => ({ threads: { started: [] as EventEmitter[] } }));

vi.mock('node:worker_threads', async original => ({
  ...(await original<typeof import('node:worker_threads')>()),
  Worker: function Worker(program: URL, { workerData }: { workerData: never }) {
    const isData = String(program).includes('data-worker');
    return isData ? new DataThreadDouble(workerData) : new DiscardThreadDouble(workerData);
  },
}));

class DataThreadDouble extends EventEmitter {
  readonly #guests: ThreadGuests;
  readonly #wake: OwnedFd;
  readonly #discards: DiscardLink;

  constructor({ wakeFd, bellFd, discardControl, discardPort }: DataThreadData) {
    super();
    threads.started.push(this);
    this.#wake = new OwnedFd(wakeFd);
    this.#discards = new DiscardLink(discardControl, discardPort, bellFd);
    this.#guests = new ThreadGuests({
      // The loop is every thread's, and goes on when one of them ends.
      reactor: { ...loopOf(loop.reactor), stop: () => this.#end() } as Reactor,
      discards: this.#discards,
      tell: message => this.emit('message', message),
      gcPauseMaxMs: () => 0,
    });
  }

  postMessage(request: DataThreadRequest): void {
    setImmediate(() => void this.#guests.serve(request));
  }

  /** Ends for a reason of its own. */
  die(error: Error): void {
    this.emit('error', error);
    this.postMessage({ id: 0, name: 'close', args: null });
  }

  async terminate(): Promise<void> {}

  #end(): void {
    this.#wake.close();
    this.#discards.close();
    setImmediate(() => this.emit('exit'));
  }
}

const loopOf = (reactor: Reactor): Pick<Reactor, 'watch' | 'schedule'> => ({
  watch: (...args) => reactor.watch(...args),
  schedule: (...args) => reactor.schedule(...args),
});

class DiscardThreadDouble extends EventEmitter {
  constructor({ control, ports }: DiscardThreadData) {
    super();
    threads.started.push(this);
    setImmediate(() => this.emit('online'));
    const words = new Int32Array(control);
    const look = (): void => {
      if (Atomics.load(words, WAKE_WORD) !== STOPPED) return void setImmediate(look);
      for (const port of ports as MessagePort[]) port.close();
      this.emit('exit');
    };
    setImmediate(look);
  }
}

let openBefore: number;
let loop: TestLoop;
let hosting: GuestThreads;
const log: LogRecord[] = [];
const sockets: UnixSocket[] = [];

beforeEach(async () => {
  openBefore = openDescriptorCount();
  threads.started.length = 0;
  log.length = 0;
  loop = new TestLoop();
  hosting = new GuestThreads({ threads: 2, log: record => log.push(record) });
  await loop.until(hosting.ready);
});

afterEach(async () => {
  await loop.until(hosting.close());
  closeAll(sockets.splice(0).map(({ fd }) => fd));
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

const OPTIONS = {
  targetBytes: 0,
  profile: 'virtio',
  discard: 'none',
  without: [],
  pollIntervalMs: 0,
} as const;

/** Opens a guest; resolves with the other end of its socket. */
async function open(name: string): Promise<UnixSocket> {
  const [ours, theirs] = UnixSocket.pair();
  sockets.push(theirs);
  const socket = { fd: ours.fd.release(), listening: false };
  await loop.until(hosting.open({ ...OPTIONS, name }, socket));
  return theirs;
}

test('guests are spread over the threads, and listed in the order in which they came', async () => {
  for (const name of ['a', 'b', 'c']) await open(name);
  const { control } = hosting;
  expect((await loop.until(control.guests())).map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  expect(Object.keys(await loop.until(control.samples())).sort()).toEqual(['a', 'b', 'c']);
  expect(hosting.threadOf('a')).toBe(hosting.threadOf('c'));
  expect(hosting.threadOf('a')).not.toBe(hosting.threadOf('b'));
  await loop.until(hosting.dismiss('a'));
  await loop.until(hosting.dismiss('a'));
  expect(hosting.names).toEqual(['b', 'c']);
  await open('d');
  expect(hosting.threadOf('d')).toBeDefined();
});

test('threads that discard come later than the first guests where they are to, and with the end at the latest', async () => {
  await loop.until(hosting.close());
  hosting = new GuestThreads({ threads: 1, log: record => log.push(record), discardsAfterMs: 1 });
  const discarding = () => threads.started.filter(thread => thread instanceof DiscardThreadDouble).length;
  const before = discarding();
  await open('a');
  await loop.turnUntil(() => discarding() === before + 2);
  await loop.until(hosting.close());
  hosting = new GuestThreads({ threads: 1, log: record => log.push(record), discardsAfterMs: 3_600_000 });
  await open('b');
  expect(discarding()).toBe(before + 2);
  await loop.until(hosting.close());
  expect(discarding()).toBe(before + 4);
});

test('a host of one guest has one thread that discards: there is no other guest that one could keep waiting', async () => {
  await loop.until(hosting.close());
  const discarding = () => threads.started.filter(thread => thread instanceof DiscardThreadDouble).length;
  const before = discarding();
  hosting = new GuestThreads({ threads: 1, log: record => log.push(record), oneGuest: true });
  await open('a');
  await loop.until(hosting.ready);
  expect(discarding()).toBe(before + 1);
});

test('a name that is taken is refused, and so is a guest that is not there', async () => {
  await open('a');
  const socket = { fd: 0, listening: false };
  await expect(hosting.open({ ...OPTIONS, name: 'a' }, socket)).rejects.toThrow('two guests are called a');
  const unknown = 'no guest is called b; known: a';
  await expect(hosting.control.guest('b')).rejects.toThrow(unknown);
  await expect(hosting.control.migrate('b', { to: 'tcp:x:1' })).rejects.toThrow(unknown);
  await expect(hosting.control.migration('a')).resolves.toMatchObject({ migration: null });
});

test('a guest that its thread cannot take in leaves its name free', async () => {
  const options = { ...OPTIONS, name: 'a', profile: 'of another world' };
  const refused = hosting.open(options, { fd: 0, listening: false });
  await expect(loop.until(refused)).rejects.toThrow('of another world');
  expect(hosting.names).toEqual([]);
});

test('the host and this process are told of, and a map of a guest is drawn', async () => {
  const guest = await HandGuest.connect(await open('a'), { loop });
  try {
    await guest.inflate(FIRST_PAGE, 8);
    const { control } = hosting;
    expect(await loop.until(control.daemon())).toMatchObject({ pid: process.pid, gcPauseMaxMs: 0 });
    expect((await control.host()).totalBytes).toBeGreaterThan(0);
    const map = await loop.until(control.map('a', { cells: 16 }));
    expect(map.regions).toMatchObject([{ bytes: guest.memory.size }]);
    expect(await loop.until(hosting.decodeMs('a'))).toBe(0);
  } finally {
    guest.close();
  }
});

test('what a migration asks of a device goes to the thread of its guest', async () => {
  const { deviceMigration } = hosting;
  await open('a');
  const other = await open('b');
  await loop.until(hosting.control.change('a', { targetBytes: PAGE_SIZE }));
  const loading = deviceMigration.load('b', await loop.until(deviceMigration.save('a')));
  const guest = await HandGuest.connect(other, { loop });
  try {
    await loop.until(loading);
    expect(await loop.until(hosting.control.guest('b'))).toMatchObject({ targetBytes: PAGE_SIZE });
    expect(await loop.until(deviceMigration.balloon('b'))).toMatchObject([{ firstPfn: 0 }]);
    await loop.until(deviceMigration.follow('b', null));
    const followed = loop.until(deviceMigration.freePages('b', 'start'));
    await expect(followed).rejects.toThrow('the free pages of this guest are not followed');
  } finally {
    guest.close();
  }
});

test('events come from every thread until they are not wanted any more, and so does the log', async () => {
  const seen: GuestEvent[] = [];
  const leave = hosting.control.subscribe(event => seen.push(event));
  const guest = await HandGuest.connect(await open('a'), { loop });
  await open('b');
  await loop.until(hosting.control.change('b', { targetBytes: PAGE_SIZE }));
  guest.close();
  const types = () => seen.map(({ guest, type }) => `${guest} ${type}`);
  await loop.turnUntil(() => types().includes('a disconnected') && types().includes('b target'));
  leave();
  const known = seen.length;
  await loop.until(hosting.control.change('b', { targetBytes: 0 }));
  expect(seen.length).toBe(known);
});

test('a thread that dies is told of, and what is asked of it from then on is refused', async () => {
  const [, thread] = threads.started.filter(started => started instanceof DataThreadDouble);
  await open('a');
  await open('b');
  const exited = new Promise(resolve => thread.once('exit', resolve));
  thread.die(new Error('out of memory'));
  expect((await hosting.failed).message).toBe('a data-plane thread died: out of memory; restart the daemon');
  await loop.until(exited);
  await expect(hosting.control.guest('b')).rejects.toThrow('the data-plane thread has ended');
  expect(await loop.until(hosting.control.guest('a'))).toMatchObject({ name: 'a' });
});

test('a discarding thread that is wanted is started, and what one cannot give back is logged', async () => {
  const discarding = () => threads.started.filter(started => started instanceof DiscardThreadDouble);
  expect(discarding()).toHaveLength(2);
  discarding()[0].emit('message', { wanted: 'watcher' });
  expect(discarding()).toHaveLength(3);
  discarding()[0].emit('message', { failure: 'no space' });
  expect(log.map(({ message }) => message)).toEqual(['memory could not be given back: no space']);
});
