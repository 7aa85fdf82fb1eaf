/** Who is let in at a guest's socket, and who has to wait. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Acceptor } from '../../src/hosting/acceptor.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { Shed } from '../../src/sys/shed.ts';
import { UnixListener, UnixSocket } from '../../src/sys/socket.ts';
import type { VirtioDevice } from '../../src/virtio/device.ts';
import { TestLoop } from '../support/loop.ts';
import { simulatedClock } from '../support/simulated-clock.ts';

let directory: string;
let loop: TestLoop;
let openBefore: number;

beforeEach(() => {
  openBefore = openDescriptorCount();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  loop = new TestLoop();
});

afterEach(() => {
  vi.restoreAllMocks();
  loop.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(openBefore);
});

const device: VirtioDevice = {
  features: 0n,
  queueCount: 2,
  setFeatures() {},
  readConfig() {},
  writeConfig() {},
  regionAdded() {},
  regionRemoved: (_, released) => released(),
  startQueue() {},
  suspendQueue() {},
  resumeQueue() {},
  stopQueue() {},
  serveQueue() {},
  reset() {},
};

/** A acceptor whose pauses the test ends, and what it said. */
function openDoor(path: string) {
  const said: string[] = [];
  const pauses: (() => void)[] = [];
  const { fd } = UnixListener.bind(path);
  const acceptor = new Acceptor(
    { fd: fd.release(), listening: true },
    device,
    {
      watch: (watched, onReady) => loop.reactor.watch(watched, onReady),
      schedule: (_, run) => {
        pauses.push(run);
        return { cancel() {} };
      },
    },
    {
      opened: () => said.push('opened'),
      closed: () => said.push('closed'),
      refused: error => said.push(error.message),
      taken() {},
      kicked() {},
      prepareMemory: () => true,
    },
  );
  return { acceptor, said, pauses };
}

test('no front-end is let in while descriptors of a former one are not closed; the next look lets it in', async () => {
  const path = join(directory, 'guest.sock');
  const { acceptor, said, pauses } = openDoor(path);
  const oldest = vi.spyOn(Shed.prototype, 'oldestMs', 'get').mockReturnValue(1001);
  const frontEnd = UnixSocket.connect(path);
  await loop.settle();
  expect(said).toEqual([expect.stringMatching('no front-end is let in: descriptors of a former one')]);
  // It is said once a look, however often the loop turns, and the front-end's place is kept.
  expect(pauses).toHaveLength(1);
  pauses[0]();
  await loop.settle();
  expect(said).toHaveLength(2);
  expect(acceptor.connected).toBe(false);
  // Closings that are under way for a moment are no reason.
  oldest.mockReturnValue(999);
  pauses[1]();
  await loop.settle();
  expect(said[2]).toBe('opened');
  expect(acceptor.connected).toBe(true);
  frontEnd.close();
  await loop.settle();
  expect(said[3]).toBe('closed');
  acceptor.close();
});

test('a front-end that connects and hangs up without end has the thread for a while, and then waits', async () => {
  // Nothing of it takes a moment.
  simulatedClock();
  const path = join(directory, 'guest.sock');
  const { acceptor, said, pauses } = openDoor(path);
  for (let times = 0; times < 20; times++) {
    UnixSocket.connect(path).close();
    await loop.settle();
  }
  // It is in the backlog, and costs nothing there.
  const before = said.length;
  expect(before).toBeLessThan(20);
  expect(acceptor.connected).toBe(false);
  expect(pauses).toHaveLength(1);
  await loop.settle();
  expect(said).toHaveLength(before);
  pauses[0]();
  await loop.settle();
  expect(said.slice(before)).toEqual(['opened', 'closed']);
  // A guest that comes now has its turn behind them.
  const frontEnd = UnixSocket.connect(path);
  for (let turn = 0; !acceptor.connected && turn < 40; turn++) {
    pauses.at(-1)?.();
    await loop.settle();
  }
  expect(acceptor.connected).toBe(true);
  acceptor.close();
  frontEnd.close();
});
