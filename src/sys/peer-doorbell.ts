/**
 * Doorbells that belong to a peer: eventfds, pipes and sockets whose other owners may make them block, drain them
 * between our poll and our read, or keep their locks. Nothing here waits for any of that: it relies on no flag of the
 * open file, which its owners share. (`./fd.ts` has doorbells of our own.)
 *
 * - An eventfd is rung by an asynchronous read of /dev/null, which is over at once and names the eventfd as the one to
 *   tell: the kernel adds 1 to it and never waits, full or not (eventfd_signal). A write could be made to wait, and
 *   RWF_NOWAIT is refused for writes to eventfds. It is read with RWF_NOWAIT.
 * - A socket is written with MSG_DONTWAIT.
 * - A pipe has a mutex that another writer keeps while its own memory is paged in, by itself if it likes; so it is
 *   written by a thread of the C library's (POSIX AIO), for each pipe one write at a time.
 */
import { descriptorKind } from './descriptor-kind.ts';
import { assert } from './error.ts';
import type { OwnedFd } from './fd.ts';
import { errno, libc, optionalFunction } from './libc.ts';
import { Arena } from './mapping.ts';
import { struct } from './struct.ts';

const SYS_IO_SETUP = process.arch === 'arm64' ? 0 : 206;
const SYS_IO_GETEVENTS = process.arch === 'arm64' ? 4 : 208;
const SYS_IO_SUBMIT = process.arch === 'arm64' ? 2 : 209;
const IOCB_CMD_PREAD = 0;
const IOCB_FLAG_RESFD = 1;
const RWF_NOWAIT = 0x8;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_GETFL = 3;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const EINTR = 4;
const EAGAIN = 11;
const EINPROGRESS = 115;
const EOPNOTSUPP = 95;

/** struct iocb of the kernel's linux/aio_abi.h. */
const IOCB = struct('iocb', 64, {
  opcode: ['u16', 16],
  fd: ['u32', 20],
  buffer: ['u64', 24],
  bytes: ['u64', 32],
  flags: ['u32', 56],
  resultFd: ['u32', 60],
});
/** struct aiocb of glibc on 64-bit Linux, as far as it is ours to fill. */
const AIOCB = struct('aiocb', 168, {
  fd: ['u32', 0],
  operation: ['u32', 4],
  priority: ['u32', 8],
  buffer: ['u64', 16],
  bytes: ['u64', 24],
  notify: ['u32', 44],
  offset: ['u64', 128],
});
const SIGEV_NONE = 1;

/** Completions that the kernel keeps for us before it takes no more; it may keep some more than asked for. */
const COMPLETIONS = 128;
const EVENT_BYTES = 32;

/** Longest message of {@link PeerDoorbell.write}. */
const PEER_MESSAGE_BYTES_MAX = 64;

const CONTEXT_AT = 0;
const LIST_AT = 8;
const IOCB_AT = 64;
const VECTOR_AT = 128;
const WORD_AT = 144;
const EVENTS_AT = 256;
const scratch = new Arena(EVENTS_AT + COMPLETIONS * EVENT_BYTES);
scratch.view.setBigUint64(VECTOR_AT, BigInt(scratch.address + WORD_AT), true);
scratch.view.setBigUint64(VECTOR_AT + 8, 8n, true);
scratch.view.setBigUint64(LIST_AT, BigInt(scratch.address + IOCB_AT), true);

/** What is read; opened at once, so that a process has no more descriptors when it has served than before. */
const nothing = libc.open('/dev/null', O_CLOEXEC);
/** The kernel's AIO context of this thread: undefined before it is needed, 0 where the kernel has no AIO. */
let context: number | undefined;
/** Completions that may be waiting in it. */
let completions = 0;

function aioContext(): number {
  if (context !== undefined) return context;
  scratch.view.setBigUint64(CONTEXT_AT, 0n, true);
  const at = scratch.address + CONTEXT_AT;
  const made = libc.syscall5(SYS_IO_SETUP, COMPLETIONS, at, 0, 0, 0) === 0;
  context = made ? Number(scratch.view.getBigUint64(CONTEXT_AT, true)) : 0;
  if (nothing === -1) context = 0;
  IOCB.write(scratch.view, IOCB_AT, {
    opcode: IOCB_CMD_PREAD,
    fd: nothing,
    buffer: scratch.address + WORD_AT,
    bytes: 0,
    flags: IOCB_FLAG_RESFD,
    resultFd: 0,
  });
  return context;
}

/** Whether eventfds are rung without the least risk here; where not, ringing relies on O_NONBLOCK. */
export const ringsWithoutWaiting = (): boolean => aioContext() !== 0;

/** Adds 1 to a peer's eventfd. False when the descriptor is none. */
export function ringEventFd(fd: OwnedFd): boolean {
  const aio = aioContext();
  if (aio === 0) return writeEventFd(fd);
  if (completions >= COMPLETIONS / 2) {
    libc.syscall5(SYS_IO_GETEVENTS, aio, 0, COMPLETIONS, scratch.address + EVENTS_AT, 0);
    completions = 0;
  }
  scratch.view.setUint32(IOCB_AT + IOCB.offset.resultFd, fd.number, true);
  if (libc.syscall5(SYS_IO_SUBMIT, aio, 1, scratch.address + LIST_AT, 0, 0) !== 1) return false;
  completions++;
  return true;
}

/** For kernels without AIO: as good as a flag that its owner may take away again. */
function writeEventFd(fd: OwnedFd): boolean {
  if ((libc.fcntl(fd.number, F_GETFL, 0) & O_NONBLOCK) === 0) fd.setNonBlocking();
  scratch.view.setBigUint64(WORD_AT, 1n, true);
  if (libc.write(fd.number, scratch.address + WORD_AT, 8) !== -1) return true;
  return errno() === EAGAIN;
}

/** Reads a peer's eventfd, so that poll blocks again. False when it is none, and polling it further would spin. */
export function silenceEventFd(fd: OwnedFd): boolean {
  let result = libc.preadv2(fd.number, scratch.address + VECTOR_AT, 1, -1, RWF_NOWAIT);
  if (result === -1 && errno() === EOPNOTSUPP) {
    // Kernels before 5.8.
    if ((libc.fcntl(fd.number, F_GETFL, 0) & O_NONBLOCK) === 0) fd.setNonBlocking();
    result = libc.read(fd.number, scratch.address + WORD_AT, 8);
  }
  if (result !== -1) return result > 0;
  const error = errno();
  return error === EAGAIN || error === EINTR;
}

const aioWrite = optionalFunction('int aio_write(intptr_t aiocb)');
const aioError = optionalFunction('int aio_error(intptr_t aiocb)');
const aioReturn = optionalFunction('int64_t aio_return(intptr_t aiocb)');

const SLOT_BYTES = AIOCB.size + PEER_MESSAGE_BYTES_MAX;

/**
 * Writes to a pipe by the C library's threads, which make those of one descriptor in their order. There are two at most:
 * while the earlier one is under way the later one has not begun, so the thread that is to be woken will be, and a third is
 * spared. With one alone, its peer could have read it, and slept again, before we learn that it is over.
 */
class PipeWrites {
  readonly #fd: OwnedFd;
  readonly #arena = new Arena(2 * SLOT_BYTES);
  readonly #underWay = [false, false];
  /** The slot that was used earlier. */
  #earlier = 0;
  #broken = false;

  constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  /** Learns what is over; true when nothing is under way. */
  rest(): boolean {
    for (const slot of [0, 1]) {
      const at = this.#arena.address + slot * SLOT_BYTES;
      if (!this.#underWay[slot]) continue;
      const error = aioError?.(at) ?? 0;
      if (error === EINPROGRESS) continue;
      this.#underWay[slot] = false;
      aioReturn?.(at);
      if (error !== 0 && error !== EAGAIN) this.#broken = true;
    }
    return !this.#underWay[0] && !this.#underWay[1];
  }

  write(bytes: Uint8Array): PeerWrite {
    this.rest();
    if (this.#broken) return 'gone';
    const slot = this.#earlier;
    if (this.#underWay[slot]) return 'full';
    const at = slot * SLOT_BYTES;
    this.#arena.bytes.set(bytes, at + AIOCB.size);
    AIOCB.write(this.#arena.view, at, {
      fd: this.#fd.number,
      operation: 0,
      priority: 0,
      buffer: this.#arena.address + at + AIOCB.size,
      bytes: bytes.length,
      notify: SIGEV_NONE,
      offset: 0,
    });
    if (aioWrite?.(this.#arena.address + at) !== 0) return 'full';
    this.#underWay[slot] = true;
    this.#earlier = 1 - slot;
    return 'written';
  }

  close(): void {
    this.#arena.close();
    this.#fd.close();
  }
}

/** Those of doorbells that were given up, until the C library is done with them. */
const abandoned = new Set<PipeWrites>();

/** How many there are still. */
export function abandonedPipes(): number {
  for (const writes of abandoned) {
    if (!writes.rest()) continue;
    writes.close();
    abandoned.delete(writes);
  }
  return abandoned.size;
}

/** What became of bytes that were offered to a peer. */
type PeerWrite = 'written' | 'full' | 'gone';

/** A doorbell, or a channel of short messages, that a peer handed over to be written to. */
export class PeerDoorbell {
  readonly #fd: OwnedFd;
  readonly #kind: 'eventfd' | 'pipe' | 'unix-socket';
  readonly #pipe: PipeWrites | undefined;
  #open = true;

  private constructor(fd: OwnedFd, kind: 'eventfd' | 'pipe' | 'unix-socket') {
    this.#fd = fd;
    this.#kind = kind;
    if (kind === 'eventfd') fd.closesAtOnce();
    if (kind === 'pipe') {
      abandonedPipes();
      this.#pipe = new PipeWrites(fd);
    }
  }

  /** Takes ownership of `fd` if it can be rung, and returns undefined if not. */
  static of(fd: OwnedFd): PeerDoorbell | undefined {
    const kind = descriptorKind(fd);
    if (kind !== 'eventfd' && kind !== 'pipe' && kind !== 'unix-socket') return undefined;
    if (kind === 'pipe' && aioWrite === undefined) return undefined;
    return new PeerDoorbell(fd, kind);
  }

  get open(): boolean {
    return this.#open;
  }

  /** The peer's descriptor, for those who keep it or duplicate it. */
  get fd(): OwnedFd {
    return this.#fd;
  }

  /** Rings it. False when the peer is gone; a full doorbell counts as rung, for a wake-up waits there. */
  ring(): boolean {
    if (this.#kind === 'eventfd') return ringEventFd(this.#fd);
    scratch.view.setBigUint64(WORD_AT, 1n, true);
    return this.#write(scratch.bytes.subarray(WORD_AT, WORD_AT + 8)) !== 'gone';
  }

  /**
   * Offers a message of at most {@link PEER_MESSAGE_BYTES_MAX} bytes, which goes whole or not at all. `full`: the peer
   * has not read earlier ones yet. An eventfd takes no messages, and is `gone`.
   */
  write(bytes: Uint8Array): PeerWrite {
    assert(bytes.length <= PEER_MESSAGE_BYTES_MAX, `a message of ${bytes.length} bytes to a peer`);
    return this.#kind === 'eventfd' ? 'gone' : this.#write(bytes);
  }

  #write(bytes: Uint8Array): PeerWrite {
    return this.#pipe?.write(bytes) ?? this.#send(bytes);
  }

  #send(bytes: Uint8Array): PeerWrite {
    scratch.bytes.set(bytes, WORD_AT);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const sent = libc.send(this.#fd.number, scratch.address + WORD_AT, bytes.length, flags);
    if (sent === bytes.length) return 'written';
    return errno() === EAGAIN ? 'full' : 'gone';
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#pipe === undefined) this.#fd.close();
    else abandoned.add(this.#pipe);
    abandonedPipes();
  }
}
