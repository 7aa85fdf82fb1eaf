/**
 * Descriptors as hostile peers hand them over: every kind that can be taken for a doorbell, a channel or memory, with the
 * ends that the peer keeps and what it may do to them afterwards. All files are this process's own. What is done with
 * them is hostile.ts's.
 */
import { constants, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeAll, createEventFd, createPipe, OwnedFd } from '../src/sys/fd.ts';
import { createMemfd } from '../src/sys/file.ts';
import { check, libc, optionalFunction } from '../src/sys/libc.ts';
import { Arena } from '../src/sys/mapping.ts';
import { UnixListener, UnixSocket } from '../src/sys/socket.ts';

const F_GETFL = 3;
const F_SETFL = 4;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;
const F_SEAL_GROW = 0x4;
const F_SEAL_WRITE = 0x8;
const F_SEAL_FUTURE_WRITE = 0x10;
const O_RDONLY = 0;
const O_WRONLY = 0o1;
const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
const O_APPEND = 0o2000;
const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = 0o200000;
const O_NOFOLLOW = 0o400000;
const O_PATH = 0o10000000;
const EFD_SEMAPHORE = 1;
/** The system calls that mount have these numbers on every architecture. */
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;
const PAGE = 4096;
const MIB = 2 ** 20;
/** What an eventfd holds at most; then a write that may wait does. */
const EVENTFD_FULL = 2n ** 64n - 2n;

/** A descriptor, and what its peer keeps besides it. */
export interface Hostile {
  readonly fd: OwnedFd;
  readonly ends: readonly OwnedFd[];
}

const scratch = new Arena(PAGE);
const bytes = Buffer.alloc(64 * 1024);
const alone = (fd: OwnedFd): Hostile => ({ fd, ends: [] });

function setFlags(fd: OwnedFd, change: (flags: number) => number): void {
  const flags = check('fcntl', libc.fcntl(fd.number, F_GETFL, 0));
  libc.fcntl(fd.number, F_SETFL, change(flags));
}

/** Makes the open file wait, for all that share it. */
export const makeBlocking = (fd: OwnedFd): void => setFlags(fd, flags => flags & ~O_NONBLOCK);

/** Writes until there is no more room, whatever the descriptor is. */
export function fill(fd: OwnedFd): void {
  setFlags(fd, flags => flags | O_NONBLOCK);
  scratch.view.setBigUint64(0, EVENTFD_FULL, true);
  for (let writes = 0; writes < 4096 && libc.write(fd.number, scratch.address, 8) === 8; writes++);
}

/** Shrinks a file to nothing; those that are sealed against it stay. */
export const shrink = (fd: OwnedFd): void => void libc.ftruncate(fd.number, 0);

function eventFd(flags: number, full: boolean): Hostile {
  const fd = new OwnedFd(check('eventfd', libc.eventfd(0, flags)));
  if (full) {
    fill(fd);
    makeBlocking(fd);
  }
  return alone(fd);
}

function memfd(size: number, seals = 0): Hostile {
  const fd = createMemfd({ name: 'aerostat-fuzz', size });
  if (seals !== 0) libc.fcntl(fd.number, F_ADD_SEALS, seals);
  return alone(fd);
}

/** The same memory, opened anew with other rights. */
function memfdOpened(flags: number): Hostile {
  const { fd } = memfd(MIB);
  const again = new OwnedFd(openSync(`/proc/self/fd/${fd.number}`, flags | O_CLOEXEC));
  return { fd: again, ends: [fd] };
}

function pipe(end: 'reader' | 'writer', how: 'open' | 'full' | 'closed'): Hostile {
  const { reader, writer } = createPipe();
  const [fd, other] = end === 'reader' ? [reader, writer] : [writer, reader];
  if (how === 'full') {
    fill(writer);
    makeBlocking(writer);
  }
  if (how === 'closed') other.close();
  return { fd, ends: how === 'closed' ? [] : [other] };
}

function socket(how: 'open' | 'full' | 'closed'): Hostile {
  const [ours, theirs] = UnixSocket.pair();
  if (how === 'full') {
    fill(ours.fd);
    makeBlocking(ours.fd);
  }
  if (how === 'closed') theirs.close();
  return { fd: ours.fd, ends: how === 'closed' ? [] : [theirs.fd] };
}

let directory: string | undefined;

/** Removes the files that descriptors were opened from; the next ones are made anew. */
export function removeFiles(): void {
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  directory = undefined;
}

/** Files of every kind that file systems have, in a directory that goes with this thread, or by {@link removeFiles}. */
function files(): string {
  if (directory !== undefined) return directory;
  const made = mkdtempSync(join(tmpdir(), 'aerostat-fuzz-'));
  directory = made;
  process.once('exit', removeFiles);
  writeFileSync(join(made, 'file'), bytes);
  mkdirSync(join(made, 'directory'));
  const mkfifo = optionalFunction('int mkfifo(const char *path, uint32_t mode)');
  (mkfifo as ((path: string, mode: number) => number) | undefined)?.(join(made, 'fifo'), 0o600);
  UnixListener.bind(join(made, 'socket')).fd.close();
  return made;
}

const opened =
  (name: string, flags: number): (() => Hostile) =>
  () =>
    alone(new OwnedFd(openSync(join(files(), name), flags | O_CLOEXEC)));

/** A descriptor that a call of the C library makes; an eventfd where it has none. */
function called(declaration: string, ...words: number[]): () => Hostile {
  const call = optionalFunction(declaration);
  return () => {
    const number = call?.(...words) ?? -1;
    return number === -1 ? alone(createEventFd()) : alone(new OwnedFd(number));
  };
}

/** A file of a ramfs that is mounted, and not at any path: no mount that this process sees names its kind. */
function detachedFile(): Hostile {
  const fsopen = optionalFunction('int fsopen(const char *type, uint32_t flags)') as
    | ((type: string, flags: number) => number)
    | undefined;
  const context = fsopen?.('ramfs', FSOPEN_CLOEXEC) ?? -1;
  // Without the right to mount.
  if (context === -1) return alone(createEventFd());
  libc.syscall5(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
  const mount = new OwnedFd(Number(libc.syscall5(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0, 0, 0)));
  libc.close(context);
  try {
    const path = `/proc/self/fd/${mount.number}/file`;
    const fd = new OwnedFd(openSync(path, O_RDWR | constants.O_CREAT | O_CLOEXEC));
    libc.ftruncate(fd.number, MIB);
    return alone(fd);
  } finally {
    mount.close();
  }
}

/** By name, so that a finding can be read. */
export const KINDS: Readonly<Record<string, () => Hostile>> = {
  eventfd: () => alone(createEventFd()),
  'eventfd that waits': () => eventFd(0, false),
  'full eventfd that waits': () => eventFd(0, true),
  'eventfd that counts down': () => eventFd(EFD_SEMAPHORE | O_NONBLOCK, false),
  'pipe to read': () => pipe('reader', 'open'),
  'pipe to read that is closed': () => pipe('reader', 'closed'),
  'pipe to write': () => pipe('writer', 'open'),
  'full pipe that waits': () => pipe('writer', 'full'),
  'pipe to write that is closed': () => pipe('writer', 'closed'),
  socket: () => socket('open'),
  'full socket that waits': () => socket('full'),
  'socket that is closed': () => socket('closed'),
  'listening socket': () => {
    const path = join(files(), 'listening');
    rmSync(path, { force: true });
    return alone(UnixListener.bind(path).fd);
  },
  epoll: called('int epoll_create1(int flags)', O_CLOEXEC),
  timer: called('int timerfd_create(int clock, int flags)', 1, O_CLOEXEC),
  inotify: called('int inotify_init1(int flags)', O_CLOEXEC),
  memfd: () => memfd(MIB),
  'memfd of 8 MiB': () => memfd(8 * MIB),
  'memfd of 1 TiB': () => memfd(2 ** 40),
  'memfd of 12 TiB': () => memfd(12 * 2 ** 40),
  'memfd of a page': () => memfd(PAGE),
  'memfd of nothing': () => memfd(0),
  'memfd of no whole pages': () => memfd(PAGE + 1),
  'memfd that cannot shrink': () => memfd(MIB, F_SEAL_SHRINK | F_SEAL_GROW),
  'memfd that takes no seals': () => memfd(MIB, F_SEAL_SEAL),
  'memfd that cannot be written to': () => memfd(MIB, F_SEAL_WRITE),
  'memfd that cannot be written to any more': () => memfd(MIB, F_SEAL_FUTURE_WRITE),
  'memfd to read': () => memfdOpened(O_RDONLY),
  'memfd to write': () => memfdOpened(O_WRONLY),
  'huge memfd': () => alone(createMemfd({ name: 'aerostat-fuzz', size: 2 * MIB, hugePageSize: 2 * MIB })),
  file: opened('file', O_RDWR),
  'file to read': opened('file', O_RDONLY),
  'file to write': opened('file', O_WRONLY),
  'file to append to': opened('file', O_RDWR | O_APPEND),
  'path of a file': opened('file', O_PATH),
  directory: opened('directory', O_RDONLY | O_DIRECTORY),
  'path of a socket': opened('socket', O_PATH | O_NOFOLLOW),
  fifo: opened('fifo', O_RDWR | O_NONBLOCK),
  nothing: () => alone(new OwnedFd(openSync('/dev/null', 'r+'))),
  // In place of files of FUSE, which are told apart from local ones in the same way, and are asked nothing.
  'file of a file system that is not local': () => alone(new OwnedFd(openSync('/proc/self/comm', 'r+'))),
  'file of a file system that is mounted nowhere here': detachedFile,
};

/** Kinds that are no memory, whatever their files are. */
const STRANGERS: readonly string[] = [
  'file of a file system that is not local',
  'file of a file system that is mounted nowhere here',
];

const MAKERS = Object.values(KINDS);
const NAMES = Object.keys(KINDS);

/** Whether kind `number` is one that may not be taken for memory, whatever its file says of itself. */
export const isStranger = (number: number): boolean => STRANGERS.includes(NAMES[number % NAMES.length]);

/** What one input has handed over, to be meddled with, and closed at its end. */
export class Peer {
  readonly #kept: Hostile[] = [];

  /** Makes a descriptor of kind `number`; what it returns is for the device, its twin stays with the peer. */
  hand(number: number): OwnedFd {
    const made = MAKERS[number % MAKERS.length]();
    this.#kept.push(made);
    return made.fd.duplicate();
  }

  /** Does something to a descriptor that was handed over some time ago, or to its other ends. */
  meddle(which: number, how: number): void {
    const kept = this.#kept[which % Math.max(1, this.#kept.length)];
    if (kept === undefined || !kept.fd.open) return;
    switch (how % 5) {
      case 0:
        makeBlocking(kept.fd);
        break;
      case 1:
        closeAll(kept.ends);
        break;
      case 2:
        // Files stay within bounds, and are not grown: what is sealed, or a doorbell, takes what it can.
        if (libc.lseek(kept.fd.number, 0, 1) === -1) fill(kept.fd);
        break;
      case 3:
        kept.fd.close();
        closeAll(kept.ends);
        break;
      default:
        if (libc.fcntl(kept.fd.number, 1034, 0) !== -1) shrinkUnlessKept(kept.fd);
    }
  }

  close(): void {
    for (const { fd, ends } of this.#kept.splice(0)) {
      fd.close();
      closeAll(ends);
    }
  }
}

/**
 * Shrinks memory that the device could have sealed. Files that take no seals can be shrunk under any process that maps
 * them, which ends it; docs/threat-model.md says so.
 */
function shrinkUnlessKept(fd: OwnedFd): void {
  const seals = libc.fcntl(fd.number, 1034, 0) as number;
  if ((seals & F_SEAL_SEAL) === 0 || (seals & F_SEAL_SHRINK) !== 0) shrink(fd);
}
