/**
 * Who is at the other end of a Unix socket: of one of ours, by its credentials; and which processes are connected to a
 * socket that another process listens at, by the kernel's own list (sock_diag(7)). What may not be seen is not found.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { basename, resolve } from 'node:path';
import { check, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import { struct } from './struct.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const AF_UNIX = 1;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_SOCK_DIAG = 4;

const UCRED = struct('ucred', 12, { pid: ['u32', 0], uid: ['u32', 4], gid: ['u32', 8] });

// <linux/netlink.h>, <linux/unix_diag.h>
const NLMSGHDR = struct('nlmsghdr', 16, {
  length: ['u32', 0],
  type: ['u16', 4],
  flags: ['u16', 6],
  sequence: ['u32', 8],
  port: ['u32', 12],
});
const UNIX_DIAG_REQ = struct('unix_diag_req', 24, {
  family: ['u8', 0],
  states: ['u32', 4],
  show: ['u32', 12],
});
const UNIX_DIAG_MSG = struct('unix_diag_msg', 16, { state: ['u8', 2], inode: ['u32', 4] });
const ATTRIBUTE = struct('nlattr', 4, { length: ['u16', 0], type: ['u16', 2] });

const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST_DUMP = 0x301;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const ESTABLISHED = 1 << 1;
const SHOW_NAME_FILE_AND_PEER = 0x01 | 0x02 | 0x04;
const UNIX_DIAG_NAME = 0;
const UNIX_DIAG_VFS = 1;
const UNIX_DIAG_PEER = 2;

/** The kernel fills 32 KiB at most for a dump. */
const ANSWER_BYTES = 65_536;
/** A machine with more sockets than these answers hold is not looked through to the end. */
const ANSWERS_MAX = 256;
/** As many processes are looked at in search of the other end. */
const PROCESSES_MAX = 20_000;

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
}

/** The process that connected, or that listened when we did; undefined where it cannot be told. */
export function peerOf(socket: Socket): PeerCredentials | undefined {
  // Node has no name for it; it is the same since 0.12.
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
  return fd < 0 ? undefined : peerOfFd(fd);
}

/** The same for a socket that is ours alone. */
export function peerOfFd(fd: number): PeerCredentials | undefined {
  const arena = new Arena(4096);
  try {
    arena.view.setUint32(UCRED.size, UCRED.size, true);
    const lengthAt = arena.address + UCRED.size;
    if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, arena.address, lengthAt) !== 0) return undefined;
    const { pid, uid } = UCRED.read(arena.view, 0);
    // 0: a process of another PID namespace.
    return pid === 0 ? undefined : { pid, uid };
  } finally {
    arena.close();
  }
}

interface Holder {
  readonly pid: number;
  /** What it was started as, without its options. */
  readonly command: string;
}

/**
 * The processes, other than this one, that are connected to the socket that listens at `path`. The processes of all the
 * machine are gone through, without waiting for any.
 */
export async function holdersOf(path: string): Promise<readonly Holder[]> {
  const file = await stat(path).catch(() => undefined);
  if (file === undefined) return [];
  const ends = new Set(
    connectedTo({ path: resolve(path), inode: file.ino }).map(inode => `socket:[${inode}]`),
  );
  if (ends.size === 0) return [];
  const holders: Holder[] = [];
  const processes = (await readdir('/proc')).filter(name => /^\d+$/.test(name));
  for (const pid of processes.slice(0, PROCESSES_MAX)) {
    if (Number(pid) === process.pid || !(await hasOne(pid, ends))) continue;
    holders.push({ pid: Number(pid), command: await commandOf(pid) });
  }
  return holders;
}

async function hasOne(pid: string, ends: ReadonlySet<string>): Promise<boolean> {
  // Nothing of a process that is gone meanwhile, or another user's.
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const fd of descriptors) {
    if (ends.has(await readlink(`/proc/${pid}/fd/${fd}`).catch(() => ''))) return true;
  }
  return false;
}

/** Node's own name says nothing: `aerostat dashboard` for `node /usr/bin/aerostat dashboard`. */
async function commandOf(pid: string): Promise<string> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  const words = text
    .split('\0')
    .filter(Boolean)
    .map(word => word.replace(/^.*\//, ''));
  const [program, ...rest] = words;
  const shown = program === 'node' ? rest.filter(word => !word.startsWith('-')) : words;
  // What follows an option may be a secret.
  const plain = shown.slice(0, 2).filter((word, at) => at === 0 || /^[a-z][\w-]*$/.test(word));
  return (plain.join(' ') || program || 'a process').slice(0, 60);
}

interface Listening {
  readonly path: string;
  /** Of its file: the program that listens may have named it from its own directory. */
  readonly inode: number;
}

/** Inodes of the far ends of what was accepted at `path`. Empty where the kernel does not tell. */
function connectedTo(listening: Listening): readonly number[] {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return [];
  const arena = new Arena(ANSWER_BYTES);
  try {
    const size = NLMSGHDR.size + UNIX_DIAG_REQ.size;
    const request = {
      length: size,
      type: SOCK_DIAG_BY_FAMILY,
      flags: NLM_F_REQUEST_DUMP,
      sequence: 1,
      port: 0,
    };
    NLMSGHDR.write(arena.view, 0, request);
    UNIX_DIAG_REQ.write(arena.view, NLMSGHDR.size, {
      family: AF_UNIX,
      states: ESTABLISHED,
      show: SHOW_NAME_FILE_AND_PEER,
    });
    check('write', libc.write(fd, arena.address, size));
    const found: number[] = [];
    for (let answers = 0; answers < ANSWERS_MAX; answers++) {
      const length = libc.read(fd, arena.address, ANSWER_BYTES);
      if (length <= 0 || takeAnswer(arena.view, length, listening, found)) break;
    }
    return found;
  } catch {
    return [];
  } finally {
    libc.close(fd);
    arena.close();
  }
}

const aligned = (length: number): number => (length + 3) & ~3;

/** Returns whether it was the last. */
function takeAnswer(view: DataView, length: number, listening: Listening, found: number[]): boolean {
  for (let at = 0; at + NLMSGHDR.size <= length; ) {
    const message = NLMSGHDR.read(view, at);
    if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) return true;
    if (message.length < NLMSGHDR.size || at + message.length > length) return true;
    const end = at + message.length;
    const { name = '', inode, peer } = attributesOf(view, at + NLMSGHDR.size + UNIX_DIAG_MSG.size, end);
    const same =
      name === listening.path || (inode === listening.inode && basename(name) === basename(listening.path));
    if (same && peer !== undefined) found.push(peer);
    at += aligned(message.length);
  }
  return false;
}

interface Attributes {
  name?: string;
  inode?: number;
  peer?: number;
}

function attributesOf(view: DataView, from: number, to: number): Attributes {
  const found: Attributes = {};
  for (let at = from; at + ATTRIBUTE.size <= to; ) {
    const { length, type } = ATTRIBUTE.read(view, at);
    if (length < ATTRIBUTE.size || at + length > to) break;
    const value = at + ATTRIBUTE.size;
    const bytes = length - ATTRIBUTE.size;
    if (type === UNIX_DIAG_NAME) {
      const name = Buffer.from(view.buffer as ArrayBuffer, view.byteOffset + value, bytes).toString('utf8');
      found.name = name.replace(/\0+$/, '');
    } else if (bytes >= 4) {
      if (type === UNIX_DIAG_PEER) found.peer = view.getUint32(value, true);
      else if (type === UNIX_DIAG_VFS) found.inode = view.getUint32(value, true);
    }
    at += aligned(length);
  }
  return found;
}
