/**
 * The C library, through koffi. Signatures use fixed-width types (koffi knows no ssize_t), addresses are
 * plain numbers (`intptr_t`), and every binding is wrapped by a module of this room that turns -1 into a
 * {@link SystemError}.
 */
import koffi from 'koffi';
import { SystemError } from './error.ts';

const library = koffi.load('libc.so.6');

export const libc = {
  accept4: library.func('int accept4(int fd, intptr_t addr, intptr_t addrlen, int flags)'),
  bind: library.func('int bind(int fd, intptr_t addr, uint32_t addrlen)'),
  close: library.func('int close(int fd)'),
  connect: library.func('int connect(int fd, intptr_t addr, uint32_t addrlen)'),
  eventfd: library.func('int eventfd(uint32_t initval, int flags)'),
  dlsym: library.func('intptr_t dlsym(intptr_t library, const char *name)'),
  fallocate: library.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  fcntl: library.func('int fcntl(int fd, int command, int argument)'),
  flock: library.func('int flock(int fd, int operation)'),
  fstatfs: library.func('int fstatfs(int fd, intptr_t buffer)'),
  ftruncate: library.func('int ftruncate(int fd, int64_t length)'),
  getsockopt: library.func('int getsockopt(int fd, int level, int name, intptr_t value, intptr_t length)'),
  ioctl: library.func('int ioctl(int fd, uint64_t request, intptr_t argument)'),
  listen: library.func('int listen(int fd, int backlog)'),
  lseek: library.func('int64_t lseek(int fd, int64_t offset, int whence)'),
  madvise: library.func('int madvise(intptr_t address, uint64_t length, int advice)'),
  memfd_create: library.func('int memfd_create(const char *name, uint32_t flags)'),
  mincore: library.func('int mincore(intptr_t address, uint64_t length, intptr_t held)'),
  mmap: library.func(
    'intptr_t mmap(intptr_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  ),
  munmap: library.func('int munmap(intptr_t address, uint64_t length)'),
  open: library.func('int open(const char *path, int flags)'),
  pipe2: library.func('int pipe2(intptr_t fds, int flags)'),
  ppoll: library.func('int ppoll(intptr_t fds, uint64_t count, intptr_t timeout, intptr_t signals)'),
  preadv2: library.func('int64_t preadv2(int fd, intptr_t vectors, int count, int64_t offset, int flags)'),
  read: library.func('int64_t read(int fd, intptr_t buffer, uint64_t length)'),
  recvmsg: library.func('int64_t recvmsg(int fd, intptr_t message, int flags)'),
  send: library.func('int64_t send(int fd, intptr_t buffer, uint64_t length, int flags)'),
  sendmsg: library.func('int64_t sendmsg(int fd, intptr_t message, int flags)'),
  setsockopt: library.func('int setsockopt(int fd, int level, int name, intptr_t value, uint32_t length)'),
  socket: library.func('int socket(int domain, int type, int protocol)'),
  socketpair: library.func('int socketpair(int domain, int type, int protocol, intptr_t fds)'),
  syscall: library.func('int64_t syscall(int64_t number, int64_t argument)'),
  syscall5: library.func('syscall', 'int64_t', Array(6).fill('int64_t')),
  write: library.func('int64_t write(int fd, intptr_t buffer, uint64_t length)'),
} as const;

/**
 * A function that not every C library has where it is looked for: before glibc 2.34 threads and asynchronous I/O had
 * libraries of their own. Undefined where none has it.
 */
export function optionalFunction(declaration: string): ((...args: number[]) => number) | undefined {
  for (const name of ['libc.so.6', 'libpthread.so.0', 'librt.so.1']) {
    try {
      return koffi.load(name).func(declaration) as (...args: number[]) => number;
    } catch {
      // The next may have it.
    }
  }
  return undefined;
}

/** Where a function of the C library lies, to be called by the kernel or the library; 0 where there is none. */
export const symbolAddress = (name: string): number => libc.dlsym(0, name) as number;

/** The calling thread's errno, as the last call through {@link libc} left it. */
export const errno = (): number => koffi.errno();

export const viewNative = (address: number, length: number): ArrayBuffer => koffi.view(address, length);

/** Returns `result`, or throws a {@link SystemError} that names `syscall` if it is -1. */
export function check(syscall: string, result: number, detail?: string): number {
  if (result === -1) throw new SystemError(syscall, errno(), detail);
  return result;
}
