/** A service manager's store as the keeper of guests, in front of a stand-in that stores as systemd does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  DescriptorStore,
  isStoredName,
  restoredDescriptors,
  StoreRoom,
} from '../../src/keeping/descriptor-store.ts';
import { closeAll, createEventFd, type OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { isSameOpenFile } from '../../src/sys/file.ts';
import { connectToServiceManager, passedDescriptors } from '../../src/sys/service-manager.ts';
import { ServiceManager } from '../support/service-manager.ts';

let directory: string;
let manager: ServiceManager;
let store: DescriptorStore;
let warnings: string[];
let openBefore: number;
let files: OwnedFd[];
/** What is to be called later. */
let due: (() => void)[];

const file = (): OwnedFd => {
  const fd = createEventFd();
  files.push(fd);
  return fd;
};

function open(): DescriptorStore {
  const socket = connectToServiceManager({ NOTIFY_SOCKET: manager.path })!;
  return new DescriptorStore(socket, StoreRoom.of(manager.environment()), {
    warn: message => void warnings.push(message),
    later: (_, run) => void due.push(run),
  });
}

beforeEach(() => {
  openBefore = openDescriptorCount();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  manager = new ServiceManager(join(directory, 'notify.sock'));
  [warnings, files, due] = [[], [], []];
  store = open();
});

afterEach(() => {
  store.close();
  manager.close();
  closeAll(files);
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(openBefore);
});

/** What a new process makes of what the manager gives it. */
function restored() {
  manager.serve();
  return restoredDescriptors(manager.stored.map(({ name, fd }) => [name, fd.duplicate()]));
}

test('gives the next process what is kept of each guest, by its numbers', () => {
  const [a, b, c] = [file(), file(), file()];
  store.of('vm1').keep(0, a);
  store.of('vm1').keep(7, b);
  store.of('vm.2-x_y').keep(0, c);
  store.of('vm1').keep(9, c);
  store.of('vm1').drop(9);
  const kept = restored();
  expect([...kept].map(([guest, fds]) => [guest, [...fds.keys()]])).toEqual([
    ['vm1', [0, 7]],
    ['vm.2-x_y', [0]],
  ]);
  expect(isSameOpenFile(kept.get('vm1')!.get(7)!, b)).toBe(true);
  for (const fds of kept.values()) closeAll(fds.values());
});

describe('an open file that a front-end sends more than once, which a store takes once,', () => {
  test('is there under all of its numbers', () => {
    const [memory, call] = [file(), file()];
    const again = memory.duplicate();
    files.push(again);
    store.of('vm1').keep(2, memory);
    store.of('vm1').keep(3, call);
    store.of('vm1').keep(4, again);
    const kept = restored().get('vm1')!;
    expect(manager.suppressed).toBe(0);
    expect([...kept.keys()].sort()).toEqual([2, 3, 4]);
    expect(isSameOpenFile(kept.get(4)!, memory)).toBe(true);
    closeAll(kept.values());
  });

  test('is kept as long as one of its numbers is needed, whichever goes first, also over a restart', () => {
    const memory = file();
    store.of('vm1').keep(2, memory);
    store.of('vm1').keep(5, memory);
    store.of('vm1').drop(2);
    let kept = restored().get('vm1')!;
    // The first is there for the other's sake, and is dropped by the process that does not need it.
    expect([...kept.keys()].sort()).toEqual([2, 5]);
    store.close();
    store = open();
    store.of('vm1', kept).drop(2);
    closeAll(kept.values());
    kept = restored().get('vm1')!;
    expect(isSameOpenFile(kept.get(5)!, memory)).toBe(true);
    closeAll(kept.values());
    store.of('vm1').drop(5);
    manager.serve();
    expect(manager.names).toEqual([]);
  });

  test('moves to another of its numbers when its first gets another file', () => {
    const [socket, other] = [file(), file()];
    store.of('vm1').keep(1, socket);
    store.of('vm1').keep(5, socket);
    store.of('vm1').keep(6, socket);
    store.of('vm1').drop(1);
    store.of('vm1').keep(1, other);
    const kept = restored().get('vm1')!;
    expect(manager.names).toEqual(['vm1/1', 'vm1/5', 'vm1/6=5']);
    expect([1, 5, 6].map(number => isSameOpenFile(kept.get(number)!, socket))).toEqual([false, true, true]);
    closeAll(kept.values());
  });
});

test('has nothing of a guest that is let go', () => {
  const memory = file();
  store.of('vm1').keep(2, memory);
  store.of('vm1').keep(5, memory);
  store.of('vm2').keep(2, file());
  store.clear('vm1');
  manager.serve();
  expect(manager.names).toEqual(['vm2/2']);
});

describe('a service manager', () => {
  /** As many as its socket takes, and more. */
  const MANY = 600;

  function serveAll(): void {
    for (let turns = 0; (!store.hasAll || due.length > 0) && turns < 10_000; turns++) {
      manager.serve();
      for (const run of due.splice(0)) run();
    }
    manager.serve();
  }

  test('that does not read for a while has all of it in the end, in order, and no call waits for it', () => {
    const names: string[] = [];
    for (let number = 2; number < MANY; number++) {
      store.of('vm1').keep(number, file());
      if (number % 3 === 0) store.of('vm1').drop(number);
      else names.push(`vm1/${number}`);
    }
    // The socket was full, and nothing was read.
    expect(store.hasAll).toBe(false);
    store.of('vm1').keep(1, file());
    const last = file();
    store.of('vm1').keep(1, last);
    serveAll();
    expect(store.hasAll).toBe(true);
    expect(manager.names).toEqual(['vm1/1', ...names].sort());
    expect(isSameOpenFile(manager.stored.find(({ name }) => name === 'vm1/1')!.fd, last)).toBe(true);
    expect(warnings).toEqual([]);
  });

  test('that does not read costs no more memory the longer descriptors come and go', () => {
    while (store.hasAll) store.of('vm1').keep(files.length + 2, file());
    const fd = file();
    const before = openDescriptorCount();
    for (let round = 0; round < 1000; round++) {
      store.of('vm2').keep(round, fd);
      store.of('vm2').drop(round);
    }
    expect(openDescriptorCount()).toBe(before);
    serveAll();
    expect(manager.names.filter(name => name.startsWith('vm2/'))).toEqual([]);
  });

  test('that is gone costs one warning', () => {
    manager.close();
    const { path } = manager;
    rmSync(path);
    store.of('vm1').keep(2, file());
    store.of('vm1').keep(3, file());
    store.of('vm1').drop(2);
    expect(warnings).toEqual([expect.stringContaining('the service manager stores nothing more')]);
    expect(store.hasAll).toBe(true);
    manager = new ServiceManager(path);
  });

  test('that is full is named, and what it has no room for is not taken for stored', () => {
    manager.roomMax = 3;
    store.close();
    store = open();
    for (const number of [0, 1, 2, 3, 4]) store.of('vm1').keep(number, file());
    manager.serve();
    expect(manager.names).toEqual(['vm1/0', 'vm1/1', 'vm1/2']);
    expect(warnings).toEqual([expect.stringContaining('vm1 is not kept whole')]);
    // There is room again.
    store.of('vm1').drop(1);
    store.of('vm2').keep(0, file());
    manager.serve();
    expect(manager.names).toEqual(['vm1/0', 'vm1/2', 'vm2/0']);
  });
});

test('takes names that are none of ours for none', () => {
  const kept = restoredDescriptors([
    ['connection', createEventFd()],
    ['vm1/2/3', createEventFd()],
    ['vm1/x', createEventFd()],
    ['vm1/4=9', createEventFd()],
  ]);
  expect(kept.size).toBe(0);
});

test('takes nothing that was given to another process', () => {
  const env = { LISTEN_PID: String(process.pid + 1), LISTEN_FDS: '1', LISTEN_FDNAMES: 'vm1/0' };
  expect(passedDescriptors(env, isStoredName)).toEqual([]);
});
