/**
 * Pages of a mapping that come later, as the kernel knows it: userfaultfd's missing mode (ioctl_userfaultfd(2), Linux 4.11
 * for shared memory). A thread that touches such a page sleeps until another one has put the page there. The descriptor is
 * the process's, so several threads may use it by its number; nothing here decides what a page holds.
 */
import { constants } from 'node:os';
import { AerostatError } from './error.ts';
import type { Descriptor, OwnedFd } from './fd.ts';
import { check, errno, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import { readU64, struct } from './struct.ts';
import {
  API,
  ioctlNumber,
  openUserfault,
  REGISTER,
  UFFD_API,
  UFFDIO_API,
  UFFDIO_REGISTER,
} from './userfault.ts';

const UFFD_FEATURE_MISSING_SHMEM = 1 << 5;
const UFFDIO_REGISTER_MODE_MISSING = 1;
const UFFD_EVENT_PAGEFAULT = 0x12;
const PAGE_BYTES = 4096;

const UFFDIO_RANGE = struct('uffdio_range', 16, { start: ['u64', 0], length: ['u64', 8] });
const UFFDIO_COPY = struct('uffdio_copy', 40, {
  to: ['u64', 0],
  from: ['u64', 8],
  length: ['u64', 16],
  mode: ['u64', 24],
  copied: ['bits64', 32],
});
const UFFDIO_ZEROPAGE = struct('uffdio_zeropage', 32, {
  start: ['u64', 0],
  length: ['u64', 8],
  mode: ['u64', 16],
  zeroed: ['bits64', 24],
});
const UFFD_MSG = struct('uffd_msg', 32, { event: ['u16', 0], flags: ['u64', 8], address: ['u64', 16] });

const WAKE = ioctlNumber(2, UFFDIO_RANGE.size, UFFD_API, 0x02);
const COPY = ioctlNumber(3, UFFDIO_COPY.size, UFFD_API, 0x03);
const ZEROPAGE = ioctlNumber(3, UFFDIO_ZEROPAGE.size, UFFD_API, 0x04);

/** Faults that one read returns. */
const MESSAGES_MAX = 64;

const MESSAGES_AT = 64;
let scratch: Arena | undefined;
/** One for each thread: structures and what is read. */
const arena = (): Arena => {
  scratch ??= new Arena(PAGE_BYTES);
  return scratch;
};

/**
 * A descriptor through which pages are awaited.
 * @throws AerostatError AEROSTAT_WRITE_TRACKING where the kernel has no userfaultfd, or does not let us
 */
export function openMissingPages(): OwnedFd {
  let fd: OwnedFd | undefined;
  try {
    fd = openUserfault();
    fd.setNonBlocking();
    const { view, address } = arena();
    UFFDIO_API.write(view, 0, { api: UFFD_API, features: UFFD_FEATURE_MISSING_SHMEM, ioctls: 0 });
    check('ioctl(UFFDIO_API)', libc.ioctl(fd.number, API, address));
    return fd;
  } catch (cause) {
    fd?.close();
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AerostatError(
      'AEROSTAT_WRITE_TRACKING',
      `the kernel cannot have pages of memory come later (${reason}); it takes access to /dev/userfaultfd or userfaultfd(2)`,
      { cause },
    );
  }
}

/** From now on a touch of a page there that the file has not got waits. */
export function awaitMissing(userfault: Descriptor, address: number, length: number): void {
  const mode = UFFDIO_REGISTER_MODE_MISSING;
  UFFDIO_REGISTER.write(arena().view, 0, { start: address, length, mode, ioctls: 0 });
  check('ioctl(UFFDIO_REGISTER)', libc.ioctl(userfault.number, REGISTER, arena().address), `${length} bytes`);
}

/** Visits the addresses of faults that threads wait in, until there is no further one. */
export function readFaults(userfault: Descriptor, visit: (address: number) => void): void {
  for (;;) {
    const { view, address } = arena();
    const bytes = libc.read(userfault.number, address + MESSAGES_AT, MESSAGES_MAX * UFFD_MSG.size);
    if (bytes === -1) {
      const number = errno();
      if (number === constants.errno.EINTR) continue;
      if (number === constants.errno.EAGAIN) return;
      check('read', bytes);
    }
    const faults: number[] = [];
    for (let at = 0; at < bytes; at += UFFD_MSG.size) {
      if (view.getUint8(MESSAGES_AT + at) === UFFD_EVENT_PAGEFAULT)
        faults.push(readU64(view, MESSAGES_AT + at + UFFD_MSG.offset.address));
    }
    // A visitor may need the arena.
    for (const fault of faults) visit(fault);
    if (bytes < MESSAGES_MAX * UFFD_MSG.size) return;
  }
}

/**
 * Puts pages there that are at `from`, and wakes who waits for them at `to`. Pages that are there already stay as they are:
 * what came later than they would change what a guest wrote.
 */
export function placePages(userfault: Descriptor, to: number, from: number, length: number): void {
  const { view, address } = arena();
  for (let done = 0; done < length; ) {
    UFFDIO_COPY.write(view, 0, {
      to: to + done,
      from: from + done,
      length: length - done,
      mode: 0,
      copied: 0n,
    });
    const result = libc.ioctl(userfault.number, COPY, address);
    if (result === 0) return;
    done += advance(view.getBigInt64(UFFDIO_COPY.offset.copied, true), 'UFFDIO_COPY');
  }
}

/** Puts pages of zeros there, where none is, and wakes who waits for them at that address. */
export function placeZeros(userfault: Descriptor, to: number, length: number): void {
  const { view, address } = arena();
  for (let done = 0; done < length; ) {
    UFFDIO_ZEROPAGE.write(view, 0, { start: to + done, length: length - done, mode: 0, zeroed: 0n });
    if (libc.ioctl(userfault.number, ZEROPAGE, address) === 0) return;
    const zeroed = view.getBigInt64(UFFDIO_ZEROPAGE.offset.zeroed, true);
    if (zeroed === -BigInt(constants.errno.EEXIST)) wakeAt(userfault, to + done, PAGE_BYTES);
    done += advance(zeroed, 'UFFDIO_ZEROPAGE');
  }
}

/** Has those look again who wait there. */
export function wakeAt(userfault: Descriptor, start: number, length: number): void {
  UFFDIO_RANGE.write(arena().view, 0, { start, length });
  check('ioctl(UFFDIO_WAKE)', libc.ioctl(userfault.number, WAKE, arena().address));
}

/** How far an ioctl came that did not do all; a page that is there is passed over. */
function advance(done: bigint, name: string): number {
  if (done > 0n) return Number(done);
  const number = errno();
  if (done === -BigInt(constants.errno.EEXIST) || number === constants.errno.EEXIST) return PAGE_BYTES;
  // A mapping that is being changed: again.
  if (number === constants.errno.EAGAIN || number === constants.errno.EINTR) return 0;
  check(`ioctl(${name})`, -1);
  return 0;
}
