/**
 * The C library, through koffi. Signatures use fixed-width types (koffi knows no ssize_t), addresses are
 * plain numbers (`intptr_t`), and every binding is wrapped by a module of this room that turns -1 into a
 * {@link SystemError}. koffi is loaded at the first call, so that a program which makes none need not have it.
 */
import type { LibraryHandle } from 'koffi';
import { SystemError } from './error.ts';
import { koffi } from './koffi.ts';

let opened: LibraryHandle | undefined;
const library = (): LibraryHandle => {
  opened ??= koffi().load('libc.so.6');
  return opened;
};

const signatures = {
  accept4: 'int accept4(int fd, intptr_t addr, intptr_t addrlen, int flags)',
  bind: 'int bind(int fd, intptr_t addr, uint32_t addrlen)',
  close: 'int close(int fd)',
  connect: 'int connect(int fd, intptr_t addr, uint32_t addrlen)',
  eventfd: 'int eventfd(uint32_t initval, int flags)',
  execv: 'int execv(const char *path, const char **words)',
  dlsym: 'intptr_t dlsym(intptr_t library, const char *name)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  fcntl: 'int fcntl(int fd, int command, int argument)',
  flock: 'int flock(int fd, int operation)',
  fstatfs: 'int fstatfs(int fd, intptr_t buffer)',
  ftruncate: 'int ftruncate(int fd, int64_t length)',
  getsockopt: 'int getsockopt(int fd, int level, int name, intptr_t value, intptr_t length)',
  ioctl: 'int ioctl(int fd, uint64_t request, intptr_t argument)',
  listen: 'int listen(int fd, int backlog)',
  lseek: 'int64_t lseek(int fd, int64_t offset, int whence)',
  madvise: 'int madvise(intptr_t address, uint64_t length, int advice)',
  /** As what it returns it is told where the bytes of a typed array are. */
  memcpy: 'intptr_t memcpy(void *to, const void *from, uint64_t length)',
  memfd_create: 'int memfd_create(const char *name, uint32_t flags)',
  mincore: 'int mincore(intptr_t address, uint64_t length, intptr_t held)',
  mmap: 'intptr_t mmap(intptr_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  mremap: 'intptr_t mremap(intptr_t from, uint64_t length, uint64_t newLength, int flags, intptr_t to)',
  munmap: 'int munmap(intptr_t address, uint64_t length)',
  open: 'int open(const char *path, int flags)',
  pipe2: 'int pipe2(intptr_t fds, int flags)',
  poll: 'int poll(intptr_t fds, uint64_t count, int timeout)',
  ppoll: 'int ppoll(intptr_t fds, uint64_t count, intptr_t timeout, intptr_t signals)',
  preadv2: 'int64_t preadv2(int fd, intptr_t vectors, int count, int64_t offset, int flags)',
  read: 'int64_t read(int fd, intptr_t buffer, uint64_t length)',
  recvmsg: 'int64_t recvmsg(int fd, intptr_t message, int flags)',
  send: 'int64_t send(int fd, intptr_t buffer, uint64_t length, int flags)',
  sendmsg: 'int64_t sendmsg(int fd, intptr_t message, int flags)',
  sendmmsg: 'int sendmmsg(int fd, intptr_t messages, uint32_t count, int flags)',
  setsockopt: 'int setsockopt(int fd, int level, int name, intptr_t value, uint32_t length)',
  socket: 'int socket(int domain, int type, int protocol)',
  socketpair: 'int socketpair(int domain, int type, int protocol, intptr_t fds)',
  syscall: 'int64_t syscall(int64_t number, int64_t argument)',
  /** `syscall` with five arguments more. */
  syscall5: 'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e)',
  write: 'int64_t write(int fd, intptr_t buffer, uint64_t length)',
} as const;

type NativeFunction = ReturnType<LibraryHandle['func']>;
type Libc = { -readonly [Name in keyof typeof signatures]: NativeFunction };

/** Each function takes the place of its stand-in at the first call. */
/** fcntl(2). */
export const F_SETFD = 2;
/** fcntl(2): answered by shmem and hugetlbfs alone. */
export const F_GET_SEALS = 1034;
/** statfs(2), of a memfd as well. */
export const TMPFS_MAGIC = 0x01021994;

export const libc = {} as Libc;
for (const name of Object.keys(signatures) as (keyof Libc)[]) {
  const standIn = (...args: unknown[]): unknown => {
    libc[name] = library().func(signatures[name]);
    return libc[name](...args);
  };
  libc[name] = standIn as NativeFunction;
}

let pollOnThread: NativeFunction['async'] | undefined;

/** poll(2) on a thread of Node's pool, so that no other one waits for it. Never rejects: a wait that fails is over. */
export function pollAsync(fds: number, count: number, timeoutMs: number): Promise<void> {
  pollOnThread ??= library().func(signatures.poll).async;
  const call = pollOnThread;
  return new Promise(resolve => call(fds, count, timeoutMs, () => resolve()));
}

/**
 * A function that not every C library has where it is looked for: before glibc 2.34 threads and asynchronous I/O had
 * libraries of their own. Undefined where none has it.
 */
export function optionalFunction(declaration: string): ((...args: number[]) => number) | undefined {
  for (const name of ['libc.so.6', 'libpthread.so.0', 'librt.so.1']) {
    try {
      return koffi().load(name).func(declaration) as (...args: number[]) => number;
    } catch {
      // The next may have it.
    }
  }
  return undefined;
}

/** Where a function of the C library lies, to be called by the kernel or the library; 0 where there is none. */
export const symbolAddress = (name: string): number => libc.dlsym(0, name) as number;

/** The calling thread's errno, as the last call through {@link libc} left it. */
export const errno = (): number => koffi().errno();

export const viewNative = (address: number, length: number): ArrayBuffer => koffi().view(address, length);

/** Returns `result`, or throws a {@link SystemError} that names `syscall` if it is -1. */
export function check(syscall: string, result: number, detail?: string): number {
  if (result === -1) throw new SystemError(syscall, errno(), detail);
  return result;
}
