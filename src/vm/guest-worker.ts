/**
 * A guest's thread: the embedded guest on memory that was made elsewhere, told what to do by the main thread. It blocks
 * in poll(2) while the guest has nothing to do; between turns Node's own loop brings the messages.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { execute } from '../embedded/answers.ts';
import { EmbeddedGuest } from '../embedded/embedded-guest.ts';
import type { GuestEventName } from '../embedded/options.ts';
import { PageState } from '../guest/page-state.ts';
import { ArrivingMemory } from '../memory/arriving-memory.ts';
import { WINDOW_BYTES } from '../memory/backing.ts';
import { FileBacking } from '../memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { MappedSlots } from '../migration/kernel-dirty-log.ts';
import { LoggedMemory } from '../migration/logged-memory.ts';
import { defined } from '../sys/defined.ts';
import { assert, InvariantError, wireError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { UnixSocket } from '../sys/socket.ts';
import { USER_ADDRESS_OFFSET } from '../vhost-user/shared-memory.ts';
import type {
  FromGuestThread,
  GuestBeginning,
  GuestMemoryFile,
  GuestThreadData,
  GuestThreadRequests,
} from './guest-protocol.ts';
import { warmUpSaving } from './saving-warm-up.ts';

const data = workerData as GuestThreadData;
if (parentPort === null) throw new InvariantError('a guest without a main thread');
const port = parentPort;
const tell = (message: FromGuestThread): void => port.postMessage(message);

/**
 * Windows that are mapped before there is a guest. V8 takes each for a reason to collect garbage at once, and a guest
 * that stands still would wait for that; more than these cost more than they save.
 */
const WINDOWS_EARLY_MAX = 8;

interface GivenMemory {
  readonly file: GuestMemoryFile;
  readonly region: MemoryRegion;
  readonly pages: PageState;
}

const wake = new OwnedFd(data.wakeFd);
let given: GivenMemory | undefined;
let guest: EmbeddedGuest | undefined;
/** Those before, switched off. V8 forgets what it compiled for objects of a shape when the last of them is gone. */
const former = new Set<EmbeddedGuest>();
/** Saving is compiled. */
let warm = false;

function takeMemory(file: GuestMemoryFile): void {
  const { fd, size, adviseHugePages, arriving } = file;
  const backing = new FileBacking(new OwnedFd(fd), 0, size, { adviseHugePages });
  backing.arriving = arriving && new ArrivingMemory(arriving);
  const region = new MemoryRegion({ guestAddress: 0, size, userAddress: USER_ADDRESS_OFFSET }, backing);
  given = { file, region, pages: PageState.backed(region.pageCount) };
  const windows = Math.min(WINDOWS_EARLY_MAX, Math.ceil(size / WINDOW_BYTES));
  for (let index = 0; index < windows; index++) backing.window(index);
}

async function begin({ options, keepsLog, saved, socketFd }: GuestBeginning): Promise<EmbeddedGuest> {
  assert(given !== undefined, 'a guest without memory');
  const { file, region, pages } = given;
  given = undefined;
  // A page's number in the log is its page frame, for memory begins at address 0.
  const log = keepsLog ? new SoftwareDirtyLog(region.pageCount, file.log) : undefined;
  const all = {
    ...options,
    memoryBytes: file.size,
    onEvent: (event: GuestEventName, message: string) => tell({ kind: 'event', event, message }),
  };
  const parts = {
    memory: log === undefined ? new GuestMemory([region]) : new LoggedMemory([region], log),
    socket: new UnixSocket(new OwnedFd(socketFd)),
    wake: wake.duplicate(),
    pages,
    ...defined({ writeLog: log }),
  };
  const begun = await (saved === null
    ? EmbeddedGuest.start(all, parts)
    : EmbeddedGuest.load(all, parts, saved));
  begun.ended.catch(error => tell({ kind: 'ended', ...wireError(error) }));
  return begun;
}

async function end(): Promise<void> {
  await guest?.close();
  if (guest !== undefined) former.add(guest);
  guest = undefined;
  given?.region.close();
  given = undefined;
}

function running(): EmbeddedGuest {
  assert(guest !== undefined, 'a guest asked before it was there');
  return guest;
}

type Answers = {
  [K in keyof GuestThreadRequests]: (
    args: GuestThreadRequests[K]['args'],
  ) => GuestThreadRequests[K]['result'] | Promise<GuestThreadRequests[K]['result']>;
};

const answers: Answers = {
  memory: file => {
    takeMemory(file);
    return null;
  },
  begin: async beginning => {
    guest = await begin(beginning);
    former.clear();
    return null;
  },
  resumeLoaded: async () => {
    await running().resumeLoaded();
    return null;
  },
  command: ({ command }) => execute(running(), command),
  pause: async () => {
    await running().pause();
    return null;
  },
  resume: async () => {
    await running().resume();
    return null;
  },
  throttle: ({ share }) => {
    running().processor.throttle(share);
    return null;
  },
  warmUp: () => {
    if (!warm) warmUpSaving();
    warm = true;
    return null;
  },
  save: () => running().save(),
  mappings: () => mappingsOf(running().memory),
  driverPages: () => running().driver.ownBlocks.map(({ pfn, order }) => ({ pfn, pages: 1 << order })),
  end: async () => {
    await end();
    return null;
  },
  close: async () => {
    await end();
    return null;
  },
};

function mappingsOf({ regions }: GuestMemory): MappedSlots[] {
  const mapped: MappedSlots[] = [];
  for (const { backing, size } of regions) {
    for (let index = 0; index * WINDOW_BYTES < size; index++) {
      const start = index * WINDOW_BYTES;
      const pages = Math.min(WINDOW_BYTES, size - start) / PAGE_SIZE;
      const address = backing.addressOf(index);
      assert(address !== undefined, 'guest memory without an address');
      mapped.push({ start: start / PAGE_SIZE, count: pages, address });
    }
  }
  return mapped;
}

port.on('message', async ({ id, name, args }: { id: number; name: keyof Answers; args: never }) => {
  try {
    tell({ kind: 'answer', id, result: await answers[name](args) });
  } catch (error) {
    tell({ kind: 'failure', id, ...wireError(error) });
  }
  if (name !== 'close') return;
  wake.close();
  port.close();
});
