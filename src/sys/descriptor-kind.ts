/**
 * What a descriptor is, found out without asking the file system behind it. A stranger's descriptor may lead to a FUSE
 * file system of its own, for which `fstat`, `fstatfs`, `poll` and `mmap` wait as long as the stranger likes. What is
 * asked here is answered by the kernel alone: seals, which only shmem and hugetlbfs files have; the text of
 * /proc/self/fd, which is a path for every file that has one and a word for what has none; and the mount's number, by
 * which /proc/self/mountinfo names the type of the file system.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import type { Descriptor } from './fd.ts';
import { F_GET_SEALS, libc } from './libc.ts';
import { Arena } from './mapping.ts';

const SOL_SOCKET = 1;
const SO_DOMAIN = 39;
const AF_UNIX = 1;

type DescriptorKind =
  | 'eventfd'
  | 'pipe'
  | 'unix-socket'
  /** A regular file of shmem (memfd, tmpfs) or hugetlbfs: the kernel alone answers for it. */
  | 'memory'
  /** Anything with a path: a file, directory, device or named pipe of whatever file system. */
  | 'path'
  | 'other';

const scratch = new Arena(64);

export function descriptorKind(fd: Descriptor): DescriptorKind {
  if (libc.fcntl(fd.number, F_GET_SEALS, 0) !== -1) return 'memory';
  const link = linkOf(fd);
  // Paths begin with a slash, whatever their files are called.
  if (link.startsWith('/')) return 'path';
  if (link === 'anon_inode:[eventfd]') return 'eventfd';
  if (link.startsWith('pipe:[')) return 'pipe';
  if (link.startsWith('socket:[') && isUnixSocket(fd)) return 'unix-socket';
  return 'other';
}

/** Empty where /proc is missing: such a descriptor is of no kind that we know. */
function linkOf(fd: Descriptor): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd.number}`);
  } catch {
    return '';
  }
}

function isUnixSocket(fd: Descriptor): boolean {
  scratch.view.setUint32(0, 0, true);
  scratch.view.setUint32(4, 4, true);
  const result = libc.getsockopt(fd.number, SOL_SOCKET, SO_DOMAIN, scratch.address, scratch.address + 4);
  return result === 0 && scratch.view.getUint32(0, true) === AF_UNIX;
}

/**
 * The type of the file system that holds a file, in the words of /proc/self/mountinfo (`ext4`, `fuse.sshfs`, …).
 * Undefined where this process does not see its mount: it belongs to another mount namespace.
 */
export function fileSystemType(fd: Descriptor): string | undefined {
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readProc(`fdinfo/${fd.number}`))?.[1];
  if (mount === undefined) return undefined;
  const line = readProc('mountinfo')
    .split('\n')
    .find(candidate => candidate.startsWith(`${mount} `));
  // "36 35 98:0 /root /mount options optional-fields - type source super-options"; spaces in names are escaped.
  return line?.split(' - ')[1]?.split(' ')[0];
}

function readProc(name: string): string {
  try {
    return readFileSync(`/proc/self/${name}`, 'utf8');
  } catch {
    return '';
  }
}
