/**
 * Unix stream sockets that carry descriptors. Node's own sockets cannot: one that receives a descriptor
 * drops it. Everything here is non-blocking and meant to be driven by {@link ./poll.ts}.
 */
import { AerostatError, SystemError } from './error.ts';
import { closeAll, OwnedFd } from './fd.ts';
import { check, errno, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import { CMSGHDR, IOVEC, MSGHDR, SCM_RIGHTS, SOL_SOCKET } from './message-header.ts';
import { Shed } from './shed.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SO_ACCEPTCONN = 30;
const MSG_CTRUNC = 0x08;
const MSG_PEEK = 0x02;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const EINTR = 4;
const EAGAIN = 11;
const ECONNABORTED = 103;
const ECONNRESET = 104;
const EPIPE = 32;
const LISTEN_BACKLOG = 16;
/** sun_path holds 108 bytes, the closing NUL included. */
const PATH_BYTES_MAX = 107;

/**
 * The kernel's own limit on descriptors in one message (SCM_MAX_FD). Room for all of them means that a
 * peer cannot make us lose some by sending many.
 */
export const DESCRIPTORS_MAX = 253;
/** Bytes that one send or receive moves at most. */
export const TRANSFER_BYTES_MAX = 65536;

const MSGHDR_AT = 0;
const IOVEC_AT = 64;
const CONTROL_AT = 128;
const CONTROL_BYTES = CMSGHDR.size + DESCRIPTORS_MAX * 4 + 8;
const PAYLOAD_AT = 2048;
/** Arguments of other calls; a message's payload is not there between calls. */
const SCRATCH_AT = PAYLOAD_AT;

// One arena per thread: a transfer is filled and handed to the kernel within one call.
const arena = new Arena(PAYLOAD_AT + TRANSFER_BYTES_MAX);

// Most of the two structures never changes; a conversation of small messages would spend its time on it.
IOVEC.write(arena.view, IOVEC_AT, { base: arena.address + PAYLOAD_AT, length: 0 });
MSGHDR.write(arena.view, MSGHDR_AT, {
  name: 0,
  nameLength: 0,
  iov: arena.address + IOVEC_AT,
  iovCount: 1,
  control: arena.address + CONTROL_AT,
  controlLength: 0,
  flags: 0,
});

/** Both lengths are far below 2^32, so their upper halves stay 0. */
function prepare(payloadLength: number, controlLength: number): void {
  const { view } = arena;
  view.setUint32(IOVEC_AT + IOVEC.offset.length, payloadLength, true);
  view.setUint32(MSGHDR_AT + MSGHDR.offset.controlLength, controlLength, true);
  view.setUint32(MSGHDR_AT + MSGHDR.offset.flags, 0, true);
}

function writeAddress(path: string): number {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length > PATH_BYTES_MAX) {
    throw new AerostatError(
      'AEROSTAT_SOCKET_PATH',
      `the socket path ${path} has ${bytes.length} bytes and a socket's path may have ${PATH_BYTES_MAX}; use a shorter one`,
    );
  }
  arena.view.setUint16(SCRATCH_AT, AF_UNIX, true);
  arena.bytes.set(bytes, SCRATCH_AT + 2);
  arena.bytes[SCRATCH_AT + 2 + bytes.length] = 0;
  return 2 + bytes.length + 1;
}

function createSocket(kind = SOCK_STREAM): OwnedFd {
  const type = kind | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return new OwnedFd(check('socket', libc.socket(AF_UNIX, type, 0)));
}

/** Of {@link UnixSocket.take}: a vector, and the message that has it. */
const TAKING_MSGHDR_AT = 16;
const TAKING = new Arena(TAKING_MSGHDR_AT + MSGHDR.size);
MSGHDR.write(TAKING.view, TAKING_MSGHDR_AT, {
  name: 0,
  nameLength: 0,
  iov: TAKING.address,
  iovCount: 1,
  control: arena.address + CONTROL_AT,
  controlLength: CONTROL_BYTES,
  flags: 0,
});

/** What one receive brought. */
interface Received {
  /** Bytes written into the caller's buffer; 0 when the peer has closed its end. */
  readonly length: number;
  /** Descriptors that rode on these bytes; the caller owns them. */
  readonly fds: readonly OwnedFd[];
}

const NO_DESCRIPTORS: readonly OwnedFd[] = [];
const NOTHING_RECEIVED: Received = { length: 0, fds: NO_DESCRIPTORS };

export class UnixSocket {
  readonly fd: OwnedFd;
  /** Where descriptors that come over it are closed. */
  readonly shed: Shed;

  /** Takes ownership of a connected stream socket. */
  constructor(fd: OwnedFd, shed: Shed = new Shed()) {
    this.fd = fd;
    this.shed = shed;
    fd.setNonBlocking();
  }

  static pair(): [UnixSocket, UnixSocket] {
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    check('socketpair', libc.socketpair(AF_UNIX, type, 0, arena.address + SCRATCH_AT));
    const numbers = [
      arena.view.getInt32(SCRATCH_AT, true),
      arena.view.getInt32(SCRATCH_AT + 4, true),
    ] as const;
    return [new UnixSocket(new OwnedFd(numbers[0])), new UnixSocket(new OwnedFd(numbers[1]))];
  }

  /** @throws SystemError ENOENT when nothing is there, ECONNREFUSED when no process listens */
  static connect(path: string): UnixSocket {
    const fd = createSocket();
    try {
      check('connect', libc.connect(fd.number, arena.address + SCRATCH_AT, writeAddress(path)), path);
      return new UnixSocket(fd);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /**
   * For datagrams to a service manager, each of which goes whole or not at all. A name that begins with @ is in the abstract
   * namespace (unix(7)). @throws SystemError
   */
  static connectDatagram(name: string): UnixSocket {
    const fd = createSocket(SOCK_DGRAM);
    try {
      const length = writeAddress(name);
      const isAbstract = name.startsWith('@');
      if (isAbstract) arena.bytes[SCRATCH_AT + 2] = 0;
      // The closing NUL would be a part of an abstract name.
      const used = isAbstract ? length - 1 : length;
      check('connect', libc.connect(fd.number, arena.address + SCRATCH_AT, used), name);
      return new UnixSocket(fd);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /**
   * Sends a prefix of `bytes`, and `fds` with its first byte. Returns how many bytes went, 0 when the
   * socket is full (then no descriptor went either). `fds` stay the caller's.
   * @throws SystemError EPIPE or ECONNRESET when the peer is gone
   */
  send(bytes: Uint8Array, fds: readonly OwnedFd[] = []): number {
    const length = Math.min(bytes.length, TRANSFER_BYTES_MAX);
    arena.bytes.set(length === bytes.length ? bytes : bytes.subarray(0, length), PAYLOAD_AT);
    let controlLength = 0;
    if (fds.length > 0) {
      controlLength = CMSGHDR.size + fds.length * 4;
      CMSGHDR.write(arena.view, CONTROL_AT, { length: controlLength, level: SOL_SOCKET, type: SCM_RIGHTS });
      fds.forEach((fd, index) => {
        arena.view.setInt32(CONTROL_AT + CMSGHDR.size + index * 4, fd.number, true);
      });
    }
    for (;;) {
      prepare(length, controlLength);
      const sent = libc.sendmsg(this.fd.number, arena.address + MSGHDR_AT, MSG_NOSIGNAL);
      if (sent !== -1) return sent;
      const error = errno();
      if (error === EAGAIN) return 0;
      if (error !== EINTR) throw new SystemError('sendmsg', error);
    }
  }

  /**
   * Receives at most `into.length` bytes. Returns undefined when nothing is there yet, and length 0 when
   * the peer is gone. Descriptors are close-on-exec from their first moment.
   * @throws AerostatError AEROSTAT_DESCRIPTORS_LOST when the kernel could not deliver all descriptors
   */
  receive(into: Uint8Array): Received | undefined {
    return this.#receive(into, MSG_CMSG_CLOEXEC);
  }

  /**
   * {@link receive}, but bytes and descriptors stay in the socket; those that it returns are duplicates. Where none ride on
   * the bytes that are wanted, they may be those of what comes next: the kernel looks there, too.
   */
  peek(into: Uint8Array): Received | undefined {
    return this.#receive(into, MSG_CMSG_CLOEXEC | MSG_PEEK);
  }

  /** How many of `length` bytes there are to be received: undefined for none yet, 0 when the peer is gone. */
  peekLength(into: Uint8Array): number | undefined {
    return this.#receive(into, MSG_PEEK, 0)?.length;
  }

  /**
   * Receives bytes that were peeked at, and returns their descriptors. They go straight to `address`: a reader that looks there
   * later, whatever becomes of this process, finds them there or in the socket, and never in both.
   */
  take(address: number, length: number): OwnedFd[] {
    const { view } = TAKING;
    view.setBigUint64(0, BigInt(address), true);
    view.setBigUint64(8, BigInt(length), true);
    view.setUint32(TAKING_MSGHDR_AT + MSGHDR.offset.controlLength, CONTROL_BYTES, true);
    const taken = libc.recvmsg(this.fd.number, TAKING.address + TAKING_MSGHDR_AT, MSG_CMSG_CLOEXEC);
    const controlLength = view.getUint32(TAKING_MSGHDR_AT + MSGHDR.offset.controlLength, true);
    const fds = taken > 0 ? takeDescriptors(controlLength, this.shed) : [];
    if (taken === length) return fds;
    closeAll(fds);
    throw new SystemError('recvmsg', taken === -1 ? errno() : ECONNRESET);
  }

  /**
   * Sends what `prepareMarkedSend` prepared; false when the socket is full. The kernel marks it as sent in the same call.
   * @throws SystemError EPIPE or ECONNRESET when the peer is gone
   */
  sendMarked(address: number): boolean {
    const sent = libc.sendmmsg(this.fd.number, address, 1, MSG_NOSIGNAL);
    if (sent === 1) return true;
    const error = errno();
    if (error === EAGAIN || error === EINTR) return false;
    throw new SystemError('sendmmsg', error);
  }

  #receive(into: Uint8Array, flagsIn: number, controlBytes = CONTROL_BYTES): Received | undefined {
    const length = Math.min(into.length, TRANSFER_BYTES_MAX);
    prepare(length, controlBytes);
    const received = libc.recvmsg(this.fd.number, arena.address + MSGHDR_AT, flagsIn);
    if (received === -1) {
      const error = errno();
      if (error === EAGAIN || error === EINTR) return undefined;
      if (error === ECONNRESET || error === EPIPE) return NOTHING_RECEIVED;
      throw new SystemError('recvmsg', error);
    }
    const controlLength = arena.view.getUint32(MSGHDR_AT + MSGHDR.offset.controlLength, true);
    const flags = arena.view.getUint32(MSGHDR_AT + MSGHDR.offset.flags, true);
    const fds = controlLength === 0 ? NO_DESCRIPTORS : takeDescriptors(controlLength, this.shed);
    if ((flags & MSG_CTRUNC) !== 0 && controlBytes > 0) {
      closeAll(fds);
      throw new AerostatError(
        'AEROSTAT_DESCRIPTORS_LOST',
        'the kernel dropped descriptors of a message; raise the limit of open files (ulimit -n)',
      );
    }
    into.set(arena.bytes.subarray(PAYLOAD_AT, PAYLOAD_AT + received));
    return { length: received, fds };
  }

  close(): void {
    this.fd.close();
  }
}

function takeDescriptors(controlLength: number, shed: Shed): OwnedFd[] {
  const fds: OwnedFd[] = [];
  let at = 0;
  while (at + CMSGHDR.size <= controlLength) {
    const header = CMSGHDR.read(arena.view, CONTROL_AT + at);
    if (header.length < CMSGHDR.size || at + header.length > controlLength) break;
    if (header.level === SOL_SOCKET && header.type === SCM_RIGHTS) {
      for (let offset = CMSGHDR.size; offset + 4 <= header.length; offset += 4) {
        fds.push(new OwnedFd(arena.view.getInt32(CONTROL_AT + at + offset, true), shed));
      }
    }
    at += Math.ceil(header.length / 8) * 8;
  }
  return fds;
}

/** Whether `fd` is a socket that listens; false for one that is connected. @throws SystemError ENOTSOCK */
export function isListening(fd: OwnedFd): boolean {
  arena.view.setUint32(SCRATCH_AT, 0, true);
  arena.view.setUint32(SCRATCH_AT + 4, 4, true);
  check(
    'getsockopt',
    libc.getsockopt(
      fd.number,
      SOL_SOCKET,
      SO_ACCEPTCONN,
      arena.address + SCRATCH_AT,
      arena.address + SCRATCH_AT + 4,
    ),
  );
  return arena.view.getUint32(SCRATCH_AT, true) !== 0;
}

export class UnixListener {
  readonly fd: OwnedFd;

  /** Takes ownership of a socket that listens. */
  constructor(fd: OwnedFd) {
    this.fd = fd;
    fd.setNonBlocking();
  }

  /** Binds `path`, which must not exist, and listens. */
  static bind(path: string): UnixListener {
    const fd = createSocket();
    try {
      check('bind', libc.bind(fd.number, arena.address + SCRATCH_AT, writeAddress(path)), path);
      check('listen', libc.listen(fd.number, LISTEN_BACKLOG), path);
      return new UnixListener(fd);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /**
   * The next connection, or undefined when none waits. With a `shed`, it and what comes over it are closed there: a
   * socket may hold descriptors that were never received, and they are closed with it.
   */
  accept(shed?: Shed): UnixSocket | undefined {
    const fd = libc.accept4(this.fd.number, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd !== -1) return new UnixSocket(new OwnedFd(fd, shed), shed);
    const error = errno();
    // A connection that died while it waited is no error of the listener.
    if (error === EAGAIN || error === EINTR || error === ECONNABORTED) return undefined;
    throw new SystemError('accept4', error);
  }

  close(): void {
    this.fd.close();
  }
}
