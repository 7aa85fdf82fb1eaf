/**
 * The walks of docs/architecture.md, against what happens: a target change from the command line, an inflation and a page of
 * a migration are sent on their ways in this process, and the stacks at each border are compared with the tables. That the
 * functions of all walks exist where they are said to be is documents.test.ts's.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { ClientRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel, Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ThreadGuests } from '../src/hosting/thread-guests.ts';
import { threadsControl } from '../src/hosting/threads-control.ts';
import type {
  DataThreadRequest,
  DataThreadRequests,
  FromDataThread,
} from '../src/hosting/worker-protocol.ts';
import { HeapBacking } from '../src/memory/backing.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import { PatientDiscarder } from '../src/memory/patient-discarder.ts';
import { PendingDiscards } from '../src/memory/pending-discards.ts';
import { serveApi } from '../src/server/listen.ts';
import { runMigration } from '../src/sim/migration-run.ts';
import { closeAll, openDescriptorCount } from '../src/sys/fd.ts';
import { UnixSocket } from '../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../src/threads/discard-link.ts';
import { WorkerClient } from '../src/threads/worker-client.ts';
import { run } from './cli/terminal.ts';
import { FIRST_PAGE, HandGuest } from './daemon/hand-guest.ts';
import { hostGuest } from './support/host-guest.ts';
import { TestLoop } from './support/loop.ts';
import { framesOf, namesOf, stepsTaken, type Walk, walksOf } from './support/walks.ts';

const PAGES = 256;
const stackDepth = Error.stackTraceLimit;
let openBefore: number;

beforeEach(() => {
  openBefore = openDescriptorCount();
  Error.stackTraceLimit = 60;
});

afterEach(() => {
  vi.restoreAllMocks();
  Error.stackTraceLimit = stackDepth;
  expect(openDescriptorCount()).toBe(openBefore);
});

type Method = (this: unknown, ...args: readonly unknown[]) => unknown;

/** Has `see` called with the stack whenever `method` is; what it returns other than undefined is returned in place of it. */
function watchCalls(
  prototype: object,
  method: string,
  see: (stack: string, self: unknown, args: readonly unknown[]) => unknown,
): void {
  const methods = prototype as Record<string, Method>;
  const real = methods[method];
  vi.spyOn(methods, method).mockImplementation(function (this: unknown, ...args) {
    return see(new Error().stack ?? '', this, args) ?? real.apply(this, args);
  });
}

/** The walk from the outside in, of stacks that each begin where the one before ended. */
const walked = (walk: Walk, ...stacks: readonly string[]): string[] =>
  stacks.flatMap(stack => stepsTaken(framesOf(stack).reverse(), walk));

test('a target change goes from the command line to num_pages by the functions of the table', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-walk-'));
  const loop = new TestLoop();
  const { port1 } = new MessageChannel();
  const [ours, theirs] = UnixSocket.pair();
  let thread: Worker | undefined;
  const guests = new ThreadGuests({
    reactor: loop.reactor,
    discards: new DiscardLink(new SharedArrayBuffer(CONTROL_WORDS * 4), port1, loop.reactor.wakeFd.number),
    tell: message => void thread?.emit('message', message),
    gcPauseMaxMs: () => 0,
  });
  const socket = { fd: ours.fd.release(), listening: false };
  const options = { name: 'g', targetBytes: 0, profile: 'virtio', discard: 'auto', without: [] } as const;
  await guests.serve({
    id: 0,
    name: 'openGuest',
    args: { options: { ...options, pollIntervalMs: 0 }, socket },
  });
  // A thread in name only: what it would be sent is served here.
  const program = new URL(
    "data:text/javascript,import{parentPort as p}from'node:worker_threads';p.once('message',()=>p.close())",
  );
  const client = new WorkerClient<
    DataThreadRequests,
    Exclude<FromDataThread, { kind: 'answer' | 'failure' }>
  >({
    program,
    data: {},
    news: () => {},
    died: () => {},
    ended: 'it has ended',
  });
  const control = threadsControl({ threadOf: () => client, subscribe: () => () => {} } as never);
  const path = join(directory, 'api');
  const server = await serveApi(control, { version: '0.1.0', address: { kind: 'unix', path } });
  const [asked, posted, written]: [string[], string[], string[]] = [[], [], []];
  watchCalls(ClientRequest.prototype, 'end', stack => void asked.push(stack));
  watchCalls(Worker.prototype, 'postMessage', (stack, self, [request]) => {
    const { name } = request as DataThreadRequest;
    if (name === 'close') return undefined;
    posted.push(stack);
    thread = self as Worker;
    return guests.serve(request as DataThreadRequest);
  });
  watchCalls(DataView.prototype, 'setUint32', (stack, _, [, value]) => {
    if (value === PAGES) written.push(stack);
  });
  try {
    const { out, code } = await run(['set', 'g', '--balloon', '1M', '--api', path]);
    expect({ out, code }).toEqual({ out: 'g: balloon 1M asked for\n', code: 0 });
  } finally {
    vi.restoreAllMocks();
    await server.close();
    await client.close();
    await guests.serve({ id: 1, name: 'close', args: null });
    closeAll([theirs.fd]);
    port1.close();
    loop.close();
    rmSync(directory, { recursive: true });
  }
  expect([asked.length, posted.length]).toEqual([1, 1]);
  const [walk] = walksOf('The path of one target change');
  // The stack of the thread stands on that of the question here.
  const inThread = framesOf(written[0]);
  expect(walked(walk, asked[0], posted[0]).concat(stepsTaken(inThread.reverse(), walk))).toEqual(
    namesOf(walk),
  );
});

test('an inflation goes from the kick to the mark, and from there to the file, by the functions of the tables', async () => {
  const loop = new TestLoop();
  const { port1 } = new MessageChannel();
  const [ours, theirs] = UnixSocket.pair();
  const host = hostGuest({ loop, socket: ours, discards: port1 }, { discard: 'after-ack' });
  const guest = await HandGuest.connect(theirs, { loop });
  const marked: string[] = [];
  let pending: PendingDiscards | undefined;
  const punched: string[] = [];
  try {
    await guest.inflate(FIRST_PAGE, 1);
    watchCalls(PendingDiscards.prototype, 'mark', (stack, self) => {
      marked.push(stack);
      pending = self as PendingDiscards;
    });
    await guest.inflate(FIRST_PAGE + 1, PAGES);
    vi.restoreAllMocks();
    const marks = pending as unknown as PendingDiscards;
    const discarder = new PatientDiscarder(marks, PAGE_SIZE, () => {
      punched.push(new Error().stack ?? '');
    });
    // Some may be left to gather at first.
    await expect
      .poll(() => {
        discarder.discardSome();
        return marks.outstanding;
      })
      .toBe(0);
  } finally {
    vi.restoreAllMocks();
    guest.close();
    await loop.until(host.close());
    closeAll([theirs.fd]);
    port1.close();
    loop.close();
  }
  const [inflation, discard] = walksOf('The path of one inflation');
  // The mark itself is not on the stack of its caller.
  expect(walked(inflation, marked[0])).toEqual(namesOf(inflation).slice(0, -1));
  // The thread's own functions, before and after these, run in no test's thread.
  const [from, to] = ['PatientDiscarder.discardSome', 'openRegion'].map(name =>
    discard.findIndex(step => step.name === name),
  );
  expect(walked(discard, punched[0])).toEqual(namesOf(discard).slice(from, to));
});

test('a page goes from one memory to the other by the functions of the tables', async () => {
  const [read, written]: [string[], string[]] = [[], []];
  watchCalls(HeapBacking.prototype, 'read', stack => {
    if (stack.includes('page-sender')) read.push(stack);
  });
  watchCalls(HeapBacking.prototype, 'write', stack => {
    if (stack.includes('page-receiver')) written.push(stack);
  });
  const { runsAt } = await runMigration({ seed: 1, fault: 'none', ignoreIds: false, lies: false });
  expect(runsAt).toBe('destination');
  const [source, destination] = walksOf('The path of one migration');
  // Memory is no file here.
  const withoutFile = (walk: Walk) => namesOf(walk).slice(0, -2);
  expect(walked(source, read[0])).toEqual(withoutFile(source));
  const toMemory = walked(destination, written[0]);
  const [first] = namesOf(destination);
  expect(toMemory.slice(toMemory.indexOf(first))).toEqual(withoutFile(destination));
});
