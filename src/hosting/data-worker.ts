/**
 * A data-plane thread: blocks in poll(2) until a guest kicks, a front-end speaks or the main thread rings, and
 * serves it. Holds any number of guests, which know nothing of each other.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { UnknownGuestError } from '../control/contract.ts';
import { THREAD_OPERATIONS, type ThreadOperation } from '../control/operations.ts';
import { AerostatError, InvariantError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { Reactor } from '../sys/poll.ts';
import { DiscardLink } from '../threads/discard-link.ts';
import { GuestHost, type GuestHostWorld } from './guest-host.ts';
import { answerOperation } from './guest-operations.ts';
import { ThreadTurns } from './thread-turns.ts';
import type {
  DataThreadData,
  DataThreadRequest,
  DataThreadRequests,
  FromDataThread,
  RequestName,
} from './worker-protocol.ts';

const { wakeFd, bellFd, discardControl, discardPort } = workerData as DataThreadData;
if (parentPort === null) throw new InvariantError('a data-plane thread without a main thread');
const port = parentPort;
const tell = (message: FromDataThread): void => port.postMessage(message);

const reactor = new Reactor(new OwnedFd(wakeFd));
const guests = new Map<string, GuestHost>();
let gcPauseMaxMs = 0;

const world: GuestHostWorld = {
  reactor,
  turns: new ThreadTurns(),
  discards: new DiscardLink(discardControl, discardPort, bellFd),
  emit: (guest, type, detail) => tell({ kind: 'event', event: { guest, type, timeMs: Date.now(), detail } }),
  log: (guest, level, message, detail) =>
    tell({ kind: 'log', record: { level, message, guest, ...(detail === undefined ? {} : { detail }) } }),
};

new PerformanceObserver(entries => {
  for (const entry of entries.getEntries()) gcPauseMaxMs = Math.max(gcPauseMaxMs, entry.duration);
}).observe({ entryTypes: ['gc'] });

function find(name: string): GuestHost {
  const guest = guests.get(name);
  if (guest === undefined) throw new UnknownGuestError(name, [...guests.keys()]);
  return guest;
}

/** What is asked of the thread itself, beside the operations of its guests. */
type OwnRequest = Exclude<RequestName, ThreadOperation>;

type Answers = {
  [K in OwnRequest]: (
    args: DataThreadRequests[K]['args'],
  ) => DataThreadRequests[K]['result'] | Promise<DataThreadRequests[K]['result']>;
};

const answers: Answers = {
  openGuest: ({ options, socket }) => {
    guests.set(options.name, new GuestHost(options, socket, world));
    return null;
  },
  closeGuest: async ({ name }) => {
    await find(name).close();
    guests.delete(name);
    return null;
  },
  guests: () => [...guests.values()].map(guest => guest.status()),
  samples: () => Object.fromEntries([...guests].map(([name, guest]) => [name, guest.sample()])),
  mapSources: ({ name }) => find(name).mapSources(),
  balloon: ({ name }) => find(name).balloon(),
  saveDevice: ({ name }) => find(name).save(),
  loadDevice: async ({ name, saved }) => {
    await find(name).load(saved);
    return null;
  },
  followFreePages: ({ name, followed }) => {
    find(name).hints.freePages.follow(followed);
    return null;
  },
  freePages: ({ name, step }) => {
    find(name).hints.freePages.take(step);
    return null;
  },
  decodeMs: ({ name }) => find(name).device.counters.decodeMs,
  thread: () => ({ gcPauseMaxMs }),
  addDiscardPort: ({ port: another }) => {
    world.discards.addThread(another);
    return null;
  },
  close: async () => {
    await Promise.all([...guests.values()].map(guest => guest.close()));
    guests.clear();
    reactor.stop();
    return null;
  },
};

const isOperation = (name: RequestName): name is ThreadOperation =>
  (THREAD_OPERATIONS as readonly string[]).includes(name);

function answerTo({ name, args }: DataThreadRequest): unknown {
  if (!isOperation(name)) return (answers[name] as (args: unknown) => unknown)(args);
  const asked = args as { name: string; args: object | undefined };
  return answerOperation(name, find(asked.name), asked.args);
}

/** The guest that a request is about, if it is there. */
const subjectOf = ({ args }: DataThreadRequest): GuestHost | undefined =>
  args !== null && 'name' in args ? guests.get(args.name) : undefined;

async function serve(request: DataThreadRequest): Promise<void> {
  try {
    const guest = subjectOf(request);
    const answer = guest === undefined ? answerTo(request) : guest.charge(() => answerTo(request));
    tell({ kind: 'answer', id: request.id, result: await answer });
  } catch (error) {
    const code = error instanceof AerostatError ? error.code : 'AEROSTAT_INTERNAL';
    const message = error instanceof Error ? error.message : String(error);
    tell({ kind: 'failure', id: request.id, code, message });
  }
}

function takeRequests(): void {
  for (
    let received = receiveMessageOnPort(port);
    received !== undefined;
    received = receiveMessageOnPort(port)
  ) {
    void serve(received.message as DataThreadRequest);
  }
}

let wakes = 0;
await reactor.run(() => {
  takeRequests();
  if (reactor.wakes === wakes) return;
  wakes = reactor.wakes;
  // It may have been a thread that discards.
  for (const guest of guests.values()) guest.progress();
});
reactor.close();
world.discards.close();
port.close();
