/**
 * A file of shared memory that the kernel backs with transparent huge pages, whatever the host's setting for memfds is: a
 * file without a name on a tmpfs of its own with `huge=always`. That tmpfs is mounted nowhere, so nothing of the machine is
 * changed, and nothing is left when the process ends, however it ends.
 */
import { constants, openSync } from 'node:fs';
import { OwnedFd } from './fd.ts';
import { check, libc } from './libc.ts';
import { Arena } from './mapping.ts';

/** The same numbers on every machine. */
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
/** To be joined with O_DIRECTORY, whose number is the machine's. */
const TMPFILE = 0o20000000;

/**
 * @throws SystemError EPERM without CAP_SYS_ADMIN; ENOSYS before Linux 5.2; EINVAL where the kernel has no transparent huge
 *   pages
 */
export function createHugeTmpfsFile(size: number): OwnedFd {
  const words = new Arena(256);
  const text = (at: number, value: string): number => {
    words.bytes.set(Buffer.from(`${value}\0`), at);
    return words.address + at;
  };
  const opened: OwnedFd[] = [];
  const own = (syscall: string, result: number): OwnedFd => {
    const fd = new OwnedFd(check(syscall, result));
    opened.push(fd);
    return fd;
  };
  try {
    const options = own('fsopen', libc.syscall5(SYS_FSOPEN, text(0, 'tmpfs'), FSOPEN_CLOEXEC, 0, 0, 0));
    const configure = (command: number, key: number, value: number): void => {
      check('fsconfig', libc.syscall5(SYS_FSCONFIG, options.number, command, key, value, 0));
    };
    configure(FSCONFIG_SET_STRING, text(16, 'huge'), text(32, 'always'));
    configure(FSCONFIG_SET_STRING, text(48, 'size'), text(64, String(size)));
    configure(FSCONFIG_CMD_CREATE, 0, 0);
    const mount = own('fsmount', libc.syscall5(SYS_FSMOUNT, options.number, FSMOUNT_CLOEXEC, 0, 0, 0));
    const flags = TMPFILE | constants.O_DIRECTORY | constants.O_RDWR;
    const file = new OwnedFd(openSync(`/proc/self/fd/${mount.number}`, flags, 0o600));
    try {
      check('ftruncate', libc.ftruncate(file.number, size), `${size} bytes`);
    } catch (error) {
      file.close();
      throw error;
    }
    return file;
  } finally {
    // The file keeps its file system.
    for (const fd of opened) fd.close();
    words.close();
  }
}
