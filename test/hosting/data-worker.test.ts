/**
 * The program of a data-plane thread, run in the test's own thread with a port that is none: it serves what it was sent, and
 * ends when it was asked to, with all that it held closed. What it answers is thread-guests.test.ts's.
 */
import { EventEmitter } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { expect, test, vi } from 'vitest';
import { createEventFd, openDescriptorCount, ring } from '../../src/sys/fd.ts';
import { CONTROL_WORDS } from '../../src/threads/discard-link.ts';

const { mainThread } = vi.hoisted(() => ({
  mainThread: { port: undefined as unknown, data: undefined as unknown },
}));

vi.mock('node:worker_threads', async original => ({
  ...(await original<typeof import('node:worker_threads')>()),
  get parentPort() {
    return mainThread.port;
  },
  get workerData() {
    return mainThread.data;
  },
}));

/** Sends its requests once the thread listens, one in each turn of the loop. */
class PortDouble extends EventEmitter {
  readonly told: object[] = [];
  closed = false;
  readonly #requests: readonly object[];
  readonly #ring: () => void;

  constructor(requests: readonly object[], ringThread: () => void) {
    super();
    this.#requests = requests;
    this.#ring = ringThread;
    this.once('newListener', () => setImmediate(() => this.#send(0)));
  }

  #send(index: number): void {
    if (index === this.#requests.length) return;
    this.emit('message', this.#requests[index]);
    this.#ring();
    setImmediate(() => this.#send(index + 1));
  }

  postMessage(message: object): void {
    this.told.push(message);
  }

  close(): void {
    this.closed = true;
  }
}

test('a data-plane thread answers in its turns, until it is asked to close', async () => {
  const openBefore = openDescriptorCount();
  const bell = createEventFd();
  const { port1, port2 } = new MessageChannel();
  const requests = [
    { id: 1, name: 'thread', args: null },
    { id: 2, name: 'guests', args: null },
    { id: 3, name: 'close', args: null },
  ];
  const port = new PortDouble(requests, () => ring(bell));
  mainThread.port = port;
  mainThread.data = {
    wakeFd: bell.duplicate().release(),
    bellFd: bell.number,
    discardControl: new SharedArrayBuffer(CONTROL_WORDS * 4),
    discardPort: port1,
  };
  // A thread that none rings waits in the kernel; the program ends with its last request.
  await import('../../src/hosting/data-worker.ts');
  await expect.poll(() => port.closed).toBe(true);
  expect(port.told).toEqual([
    { kind: 'answer', id: 1, result: { gcPauseMaxMs: expect.any(Number) } },
    { kind: 'answer', id: 2, result: [] },
    { kind: 'answer', id: 3, result: null },
  ]);
  bell.close();
  port2.close();
  expect(openDescriptorCount()).toBe(openBefore);
});
