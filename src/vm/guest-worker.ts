/**
 * A guest's thread: the embedded guest on memory that was made elsewhere, told what to do by the main thread. It blocks
 * in poll(2) while the guest has nothing to do; between turns Node's own loop brings the messages.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { execute } from '../embedded/answers.ts';
import { EmbeddedGuest } from '../embedded/embedded-guest.ts';
import { FileBacking, WINDOW_BYTES } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { MappedSlots } from '../migration/kernel-dirty-log.ts';
import { LoggedMemory } from '../migration/logged-memory.ts';
import { AerostatError, assert, InvariantError } from '../sys/error.ts';
import { closeAll, OwnedFd } from '../sys/fd.ts';
import { UnixSocket } from '../sys/socket.ts';
import { USER_ADDRESS_OFFSET } from '../vhost-user/shared-memory.ts';
import type {
  FromGuestThread,
  GuestBeginning,
  GuestThreadData,
  GuestThreadRequests,
} from './guest-protocol.ts';

const data = workerData as GuestThreadData;
if (parentPort === null) throw new InvariantError('a guest without a main thread');
const port = parentPort;
const tell = (message: FromGuestThread): void => port.postMessage(message);

/** One region at address 0: a page's number in the log is its page frame. */
function openMemory(size: number, log: SoftwareDirtyLog | undefined): GuestMemory {
  const { memoryFd, adviseHugePages } = data;
  const backing = new FileBacking(new OwnedFd(memoryFd), 0, size, { adviseHugePages });
  const region = new MemoryRegion({ guestAddress: 0, size, userAddress: USER_ADDRESS_OFFSET }, backing);
  return log === undefined ? new GuestMemory([region]) : new LoggedMemory([region], log);
}

async function begin({ options: given, keepsLog, saved, socketFd }: GuestBeginning): Promise<EmbeddedGuest> {
  const log = keepsLog ? new SoftwareDirtyLog(given.memoryBytes / PAGE_SIZE, data.log) : undefined;
  begun = true;
  const options = {
    ...given,
    onEvent: (event: 'ready' | 'disconnected' | 'reconnected' | 'log', message: string) =>
      tell({ kind: 'event', event, message }),
  };
  const parts = {
    memory: openMemory(given.memoryBytes, log),
    socket: new UnixSocket(new OwnedFd(socketFd)),
    wake: new OwnedFd(data.wakeFd),
    ...(log === undefined ? {} : { writeLog: log }),
  };
  const machine = await (saved === null
    ? EmbeddedGuest.start(options, parts)
    : EmbeddedGuest.load(options, parts, saved));
  machine.ended.catch(error => tell({ kind: 'ended', ...wordsOf(error) }));
  return machine;
}

let guest: EmbeddedGuest | undefined;
/** What came with the thread is the guest's. */
let begun = false;

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
  begin: async beginning => {
    guest = await begin(beginning);
    return null;
  },
  goOn: async () => {
    await running().goOn();
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
  save: () => running().save(),
  mappings: () => mappingsOf(running().memory),
  driverPages: () => running().driver.ownBlocks.map(({ pfn, order }) => ({ pfn, pages: 1 << order })),
  close: async () => {
    if (guest !== undefined) await guest.close();
    else closeUnused();
    return null;
  },
};

function mappingsOf({ regions }: GuestMemory): MappedSlots[] {
  const mapped: MappedSlots[] = [];
  for (const { backing, size } of regions) {
    assert(backing instanceof FileBacking, 'guest memory that is no file');
    for (let index = 0; index * WINDOW_BYTES < size; index++) {
      const start = index * WINDOW_BYTES;
      const pages = Math.min(WINDOW_BYTES, size - start) / PAGE_SIZE;
      mapped.push({ start: start / PAGE_SIZE, count: pages, address: backing.addressOf(index) });
    }
  }
  return mapped;
}

/** A guest that never began owns nothing. */
function closeUnused(): void {
  if (begun) return;
  closeAll([new OwnedFd(data.memoryFd), new OwnedFd(data.wakeFd)]);
}

const wordsOf = (error: unknown): { code: string; message: string } => ({
  code: error instanceof AerostatError ? error.code : 'AEROSTAT_INTERNAL',
  message: error instanceof Error ? error.message : String(error),
});

port.on('message', async ({ id, name, args }: { id: number; name: keyof Answers; args: never }) => {
  try {
    tell({ kind: 'answer', id, result: await answers[name](args) });
  } catch (error) {
    tell({ kind: 'failure', id, ...wordsOf(error) });
  }
  if (name === 'close') port.close();
});
