/**
 * A guest's thread: the embedded guest on memory that was made elsewhere, told what to do by the main thread. It blocks
 * in poll(2) while the guest has nothing to do; between turns Node's own loop brings the messages.
 */
import { parentPort, type Transferable, workerData } from 'node:worker_threads';
import { execute } from '../embedded/answers.ts';
import { EmbeddedGuest } from '../embedded/embedded-guest.ts';
import type { EmbeddedGuestOptions, GuestEventName, MachineParts } from '../embedded/options.ts';
import { StandbyMachine } from '../embedded/standby-machine.ts';
import { PageState } from '../guest/page-state.ts';
import { ArrivingMemory } from '../memory/arriving-memory.ts';
import { WINDOW_BYTES } from '../memory/backing.ts';
import { mapEarly } from '../memory/early-windows.ts';
import { FileBacking } from '../memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { MappedSlots } from '../migration/kernel-dirty-log.ts';
import { LoggedMemory } from '../migration/logged-memory.ts';
import { type PauseStep, PauseWatch } from '../migration/pause.ts';
import { defined } from '../sys/defined.ts';
import { assert, InvariantError, wireError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/poll.ts';
import { UnixSocket } from '../sys/socket.ts';
import { USER_ADDRESS_OFFSET } from '../vhost-user/shared-memory.ts';
import type {
  FromGuestThread,
  GuestBeginning,
  GuestMemoryFile,
  GuestPreparing,
  GuestThreadData,
  GuestThreadRequests,
} from './guest-protocol.ts';
import { warmUpSaving } from './saving-warm-up.ts';

const data = workerData as GuestThreadData;
if (parentPort === null) throw new InvariantError('a guest without a main thread');
const port = parentPort;
const tell = (message: FromGuestThread, transfer: readonly Transferable[] = []): void =>
  port.postMessage(message, transfer);

interface GivenMemory {
  readonly file: GuestMemoryFile;
  readonly region: MemoryRegion;
  readonly pages: PageState;
}

const wake = new OwnedFd(data.wakeFd);
let given: GivenMemory | undefined;
/** Made ready in that memory for a guest that is on its way. */
let standing:
  | { readonly machine: StandbyMachine; readonly on: [EmbeddedGuestOptions, MachineParts] }
  | undefined;
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
  mapEarly(backing, size);
}

async function begin(beginning: GuestBeginning, watch: PauseWatch): Promise<EmbeddedGuest> {
  const { saved } = beginning;
  const [all, parts] = standing?.on ?? partsOf(beginning);
  const standby = standing?.machine;
  standing = undefined;
  const begun = await (saved === null
    ? EmbeddedGuest.start(all, parts)
    : EmbeddedGuest.load(all, parts, saved, {
        ...defined({ standby }),
        done: step => watch.done(`load/${step}`),
      }));
  begun.ended.catch(error => tell({ kind: 'ended', ...wireError(error) }));
  return begun;
}

async function prepare(preparing: GuestPreparing): Promise<readonly PauseStep[]> {
  const watch = watched();
  if (standing === undefined) {
    const on = partsOf(preparing);
    standing = { machine: await StandbyMachine.open(...on), on };
    watch.done('prepare/connect');
  }
  standing.machine.rehearse(preparing.guest);
  watch.done('prepare/guest');
  return watch.steps;
}

/** What a guest in the memory that was given is made of. */
function partsOf({
  options,
  keepsLog,
  socketFd,
}: Omit<GuestPreparing, 'guest'>): [EmbeddedGuestOptions, MachineParts] {
  assert(given !== undefined && socketFd !== null, 'a guest without memory or device');
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
  return [all, parts];
}

async function end(): Promise<void> {
  await guest?.close();
  if (guest !== undefined) former.add(guest);
  guest = undefined;
  // A machine closes its memory.
  if (standing !== undefined) await standing.machine.close();
  else given?.region.close();
  standing = undefined;
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
  prepare,
  begin: async beginning => {
    const watch = watched();
    guest = await begin(beginning, watch);
    former.clear();
    return watch.steps;
  },
  resumeLoaded: async () => {
    const watch = watched();
    await running().resumeLoaded(step => watch.done(`run/${step}`));
    return watch.steps;
  },
  command: ({ command }) => execute(running(), command),
  pause: async () => {
    const watch = watched();
    await running().pause(step => watch.done(`stop/${step}`));
    const driverPages = running().driver.ownBlocks.map(({ pfn, order }) => ({ pfn, pages: 1 << order }));
    return { driverPages, spent: watch.steps };
  },
  resume: async () => {
    await running().resume();
    return null;
  },
  throttle: ({ share }) => {
    running().processor.throttle(share);
    return null;
  },
  turn: () => null,
  warmUp: () => {
    if (!warm) warmUpSaving();
    warm = true;
    return null;
  },
  saveAhead: () => running().saveAhead(),
  save: () => {
    const watch = watched();
    const saved = running().save(step => watch.done(`save/${step}`));
    return { ...saved, spent: watch.steps };
  },
  mappings: () => mappingsOf(running().memory),
  end: async () => {
    await end();
    return null;
  },
  close: async () => {
    await end();
    return null;
  },
};

/** The memory of a saved guest goes along as it is: copies of it are what a guest waits for that stands still. */
const stateIn = (name: keyof Answers, result: unknown): Transferable[] => {
  if (name === 'saveAhead') return [(result as Uint8Array<ArrayBuffer>).buffer];
  return name === 'save' ? [(result as { readonly guest: Uint8Array<ArrayBuffer> }).guest.buffer] : [];
};

const watched = (): PauseWatch => new PauseWatch({ nowMs: monotonicMs });

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
    const result = await answers[name](args);
    tell({ kind: 'answer', id, result }, stateIn(name, result));
  } catch (error) {
    tell({ kind: 'failure', id, ...wireError(error) });
  }
  if (name !== 'close') return;
  wake.close();
  port.close();
});
