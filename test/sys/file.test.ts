/** Files as memory. */
import { ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { closeAll, createEventFd, createPipe, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import {
  adviseHugePages,
  createMemfd,
  discardAnonymous,
  fileStatus,
  fileSystem,
  isReadWrite,
  nextData,
  nextHole,
  punchHole,
  readAt,
  sealAgainstShrinking,
  writeAt,
} from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { Mapping } from '../../src/sys/mapping.ts';

const MIB = 2 ** 20;
const PAGE = 4096;

const directory = mkdtempSync(join(tmpdir(), 'aerostat-file-'));
const owned: OwnedFd[] = [];
const own = (fd: OwnedFd): OwnedFd => {
  owned.push(fd);
  return fd;
};
const memfd = (size = MIB): OwnedFd => own(createMemfd({ name: 'aerostat-test', size }));

afterEach(() => {
  closeAll(owned.splice(0));
  expect(openDescriptorCount()).toBe(0);
});
afterAll(() => rmSync(directory, { recursive: true }));

test('a memfd has its size, nothing in it, and an identity of its own', () => {
  const fd = memfd();
  expect(fileStatus(fd)).toMatchObject({ regular: true, size: MIB, residentBytes: 0 });
  expect(fileStatus(fd).identity).toBe(fileStatus(own(fd.duplicate())).identity);
  expect(fileStatus(memfd()).identity).not.toBe(fileStatus(fd).identity);
  expect(fileSystem(fd)).toEqual({ kind: 'tmpfs', blockSize: PAGE });
});

test('a memfd that cannot be is told, and leaves no descriptor', () => {
  expect(() => createMemfd({ name: 'aerostat-test', size: -1 })).toThrow(
    'ftruncate failed with EINVAL: -1 bytes',
  );
  expect(() => createMemfd({ name: 'x'.repeat(300), size: 1 })).toThrow('memfd_create failed with EINVAL');
  expect(() => createMemfd({ name: 'aerostat-test', size: MIB, hugePageSize: 2 ** 17 })).toThrow(
    'memfd_create',
  );
});

test('what is punched is the host’s again, and the size stays', () => {
  const fd = memfd();
  const mapping = Mapping.shared(fd.number, 0, MIB);
  new Uint8Array(mapping.buffer, mapping.offset, MIB).fill(1);
  expect(fileStatus(fd).residentBytes).toBe(MIB);
  punchHole(fd, 16 * PAGE, 32 * PAGE);
  expect(fileStatus(fd)).toMatchObject({ size: MIB, residentBytes: MIB - 32 * PAGE });
  expect([nextHole(fd, 0), nextData(fd, 16 * PAGE), nextHole(fd, 48 * PAGE)]).toEqual([
    16 * PAGE,
    48 * PAGE,
    MIB,
  ]);
  punchHole(fd, 0, MIB);
  expect(nextData(fd, 0)).toBeUndefined();
  expect(nextHole(fd, 0)).toBe(0);
  mapping.close();
});

test('a punch that a signal interrupts begins anew', () => {
  const EINTR = 4;
  const fd = memfd();
  writeAt(fd, 0, new Uint8Array(MIB), 0, MIB);
  const fallocate = vi.spyOn(libc, 'fallocate').mockImplementationOnce(() => {
    koffi.errno(EINTR);
    return -1;
  });
  try {
    punchHole(fd, 0, MIB);
    expect(fallocate).toHaveBeenCalledTimes(2);
    expect(fileStatus(fd).residentBytes).toBe(0);
  } finally {
    fallocate.mockRestore();
  }
});

test('what cannot be punched, or searched, is told with its place', () => {
  const fd = memfd();
  expect(() => punchHole(fd, 0, 0)).toThrow('fallocate failed with EINVAL: 0 bytes at 0');
  expect(() => punchHole(own(createEventFd()), 0, PAGE)).toThrow('fallocate failed with');
  const { reader, writer } = createPipe();
  own(writer);
  expect(() => nextData(own(reader), 0)).toThrow('lseek failed with ESPIPE: offset 0');
});

test('a sealed memfd never shrinks; what is no memfd cannot be sealed', () => {
  const fd = memfd();
  expect(sealAgainstShrinking(fd)).toBe(true);
  expect(sealAgainstShrinking(fd)).toBe(true);
  expect(() => ftruncateSync(fd.number, PAGE)).toThrow('EPERM');
  ftruncateSync(fd.number, 2 * MIB);
  expect(fileStatus(fd).size).toBe(2 * MIB);
  const plain = own(new OwnedFd(openSync(join(directory, 'plain'), 'w+')));
  expect(sealAgainstShrinking(plain)).toBe(false);
});

test('a descriptor says whether it may be both read and written', () => {
  const path = join(directory, 'modes');
  expect(isReadWrite(own(new OwnedFd(openSync(path, 'w+'))))).toBe(true);
  expect(isReadWrite(own(new OwnedFd(openSync(path, 'r'))))).toBe(false);
  expect(isReadWrite(own(new OwnedFd(openSync(path, 'w'))))).toBe(false);
});

describe('bytes of a file', () => {
  test('are written and read back at any place, and holes that are read stay holes', () => {
    const fd = memfd();
    const bytes = Uint8Array.from({ length: PAGE }, (_, index) => index & 0xff);
    writeAt(fd, 3 * PAGE + 5, bytes, 10, 1000);
    const resident = fileStatus(fd).residentBytes;
    expect(resident).toBe(PAGE);
    const into = new Uint8Array(1006).fill(0xee);
    readAt(fd, 3 * PAGE + 4, into, 2, 1002);
    expect([into[1], into[2], into[3], into[1002], into[1003], into[1004]]).toEqual([
      0xee,
      0,
      10,
      (10 + 999) & 0xff,
      0,
      0xee,
    ]);
    readAt(fd, 100 * PAGE, new Uint8Array(8 * PAGE), 0, 8 * PAGE);
    expect(fileStatus(fd).residentBytes).toBe(resident);
  });

  test('beyond its end are not there', () => {
    const fd = memfd(PAGE);
    const read = () => readAt(fd, PAGE - 10, new Uint8Array(20), 0, 20);
    expect(read).toThrow(expect.objectContaining({ code: 'AEROSTAT_FILE_END' }));
  });
});

describe('memory of this process', () => {
  test('is zeros again when it was discarded', () => {
    const mapping = Mapping.anonymous(16 * PAGE);
    const bytes = new Uint8Array(mapping.buffer).fill(9);
    discardAnonymous(mapping.address + PAGE, 2 * PAGE);
    expect([bytes[PAGE - 1], bytes[PAGE], bytes[3 * PAGE - 1], bytes[3 * PAGE]]).toEqual([9, 0, 0, 9]);
    expect(() => discardAnonymous(mapping.address + 1, PAGE)).toThrow('madvise failed with EINVAL');
    expect(typeof adviseHugePages(mapping.address, 16 * PAGE)).toBe('boolean');
    expect(adviseHugePages(mapping.address + 1, PAGE)).toBe(false);
    mapping.close();
  });
});

test('a file system of another kind is known as that', () => {
  const fd = own(new OwnedFd(openSync('/proc/self/stat', 'r')));
  expect(fileSystem(fd).kind).toBe('other');
});
