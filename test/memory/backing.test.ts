/** What guest memory is made of: which files are taken, and whether discarding gives memory back. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { AnonymousBacking, type Backing, HeapBacking, WINDOW_BYTES } from '../../src/memory/backing.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { fileSystemType } from '../../src/sys/descriptor-kind.ts';
import { createEventFd, createPipe, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd, fileStatus, nextData, nextHole } from '../../src/sys/file.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';

const MIB = 2 ** 20;
const O_PATH = 0o10000000;

const directory = mkdtempSync(join(tmpdir(), 'aerostat-backing-'));

afterAll(() => {
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(0);
});

const memfd = (size = MIB): OwnedFd => createMemfd({ name: 'aerostat-test', size });

function opened<B extends Backing>(backing: B): B {
  onTestFinished(() => backing.close());
  return backing;
}

const refusal = (message: string) =>
  expect.objectContaining({ code: 'AEROSTAT_REGION_FILE', message: expect.stringContaining(message) });

/** A descriptor whose file another process shrinks just before its use number `at`. */
class ShrinkingFd extends OwnedFd {
  #left: number;

  constructor(size: number, at: number) {
    super(memfd(size).release());
    this.#left = at;
  }

  override get number(): number {
    if (this.#left-- === 0) {
      try {
        ftruncateSync(super.number, 0);
      } catch {
        // Too late: it is sealed.
      }
    }
    return super.number;
  }
}

describe('a file that ends this process when it is touched', () => {
  test('is refused when it shrank while it was looked at, at whatever moment', () => {
    const outcomes = new Set<string>();
    for (let at = 0; at < 16; at++) {
      const fd = new ShrinkingFd(MIB, at);
      let backing: FileBacking | undefined;
      try {
        backing = new FileBacking(fd, 0, MIB);
      } catch (error) {
        expect(error).toEqual(refusal('its file has 0'));
        outcomes.add('refused');
        continue;
      }
      outcomes.add('taken');
      expect(backing.sealed).toBe(true);
      expect(fileStatus(backing.fd).size).toBe(MIB);
      backing.close();
    }
    expect([...outcomes].sort()).toEqual(['refused', 'taken']);
  });

  test('is not mapped where it is of huge pages that the pool does not have', () => {
    // More than any test host's pool: 512 GiB, of which a GiB would be mapped at a time.
    const size = 2 ** 39;
    let fd: OwnedFd;
    try {
      fd = createMemfd({ name: 'aerostat-test', size, hugePageSize: HUGE_PAGE_SIZE });
    } catch (error) {
      console.warn(`Skipped: this kernel makes no files of huge pages. ${(error as Error).message}`);
      return;
    }
    const backing = opened(new FileBacking(fd, 0, size));
    const windows = size / WINDOW_BYTES;
    expect(() => {
      for (let index = 0; index < windows; index++) backing.window(index);
    }).toThrow(/mmap failed with ENOMEM/);
  });
});

describe('a file as memory', () => {
  test.each([
    ['is no file but an eventfd', () => createEventFd(), 0, MIB, 'not a regular file'],
    ['is a directory', () => new OwnedFd(openSync(directory, 'r')), 0, MIB, 'not a regular file'],
    [
      'is read-only',
      () => new OwnedFd(openSync('/proc/self/exe', 'r')),
      0,
      PAGE_SIZE,
      'both reading and writing',
    ],
    ['is too small', memfd, 0, 2 * MIB, 'its file has 1048576'],
    ['is too small from where it begins', memfd, PAGE_SIZE, MIB, 'its file has 1048576'],
    ['is of no use where it begins', memfd, 100, PAGE_SIZE, 'file offset 100'],
    ['would end in the middle of a page', memfd, 0, 1000, 'size 1000'],
    ['would have no bytes', memfd, 0, 0, 'size 0'],
    ['would have fewer', memfd, 0, -PAGE_SIZE, 'size -4096'],
    ['is asked for more than a number can say', memfd, 2 ** 64, PAGE_SIZE, 'its file has'],
  ] as const)('is refused when it %s, and its descriptor closed', (_, make, offset, size, message) => {
    const before = openDescriptorCount();
    const fd = make();
    expect(() => new FileBacking(fd, offset, size)).toThrow(refusal(message));
    expect(fd.open).toBe(false);
    expect(openDescriptorCount()).toBe(before);
  });

  test('is refused when it is the end of a pipe', () => {
    const { reader, writer } = createPipe();
    expect(() => new FileBacking(reader, 0, PAGE_SIZE)).toThrow(refusal('not a regular file'));
    writer.close();
  });

  test('is refused, and its descriptor closed, when it cannot even be asked what it is', () => {
    const fd = new OwnedFd(openSync(directory, O_PATH));
    closeSync(fd.number);
    expect(() => new FileBacking(fd, 0, PAGE_SIZE)).toThrow('its descriptor is not a regular file');
    expect(fd.open).toBe(false);
  });

  test('gives back what is discarded, and nothing beside it', () => {
    const backing = opened(new FileBacking(memfd(), 0, MIB));
    const { u8 } = backing.window(0);
    u8.fill(7);
    expect(backing.residentBytes()).toBe(MIB);
    backing.discard(64 * PAGE_SIZE, 32 * PAGE_SIZE);
    expect(backing.residentBytes()).toBe(MIB - 32 * PAGE_SIZE);
    expect([u8[64 * PAGE_SIZE - 1], u8[64 * PAGE_SIZE], u8[96 * PAGE_SIZE - 1], u8[96 * PAGE_SIZE]]).toEqual([
      7, 0, 0, 7,
    ]);
    // Reading made two of them resident again.
    expect(backing.residentBytes()).toBe(MIB - 30 * PAGE_SIZE);
  });

  test('begins where it is said to begin', () => {
    const fd = memfd();
    const whole = opened(new FileBacking(fd.duplicate(), 0, MIB));
    const part = opened(new FileBacking(fd, 16 * PAGE_SIZE, 16 * PAGE_SIZE));
    part.window(0).u32[0] = 0xabcd;
    expect(whole.window(0).u32[(16 * PAGE_SIZE) / 4]).toBe(0xabcd);
    whole.window(0).u8.fill(1);
    part.discard(0, 16 * PAGE_SIZE);
    expect(part.residentBytes()).toBe(MIB - 16 * PAGE_SIZE);
    expect(nextHole(fd, 0)).toBe(16 * PAGE_SIZE);
    expect(nextData(fd, 16 * PAGE_SIZE)).toBe(32 * PAGE_SIZE);
    expect(part.identity).toBe(whole.identity);
    expect(opened(new FileBacking(memfd(), 0, MIB)).identity).not.toBe(whole.identity);
  });

  test('cannot be shrunk under us once it is ours, where it can be sealed', () => {
    const fd = memfd();
    const other = fd.duplicate();
    const backing = opened(new FileBacking(fd, 0, MIB));
    expect(backing.sealed).toBe(true);
    expect(backing.kind).toBe('shmem');
    expect(() => ftruncateSync(other.number, PAGE_SIZE)).toThrow('EPERM');
    ftruncateSync(other.number, 2 * MIB);
    other.close();
  });

  test('is taken without a seal where it is a plain file', () => {
    const fd = new OwnedFd(openSync(join(directory, 'memory'), 'w+'));
    ftruncateSync(fd.number, MIB);
    const backing = opened(new FileBacking(fd, 0, MIB));
    expect(backing.sealed).toBe(false);
    backing.window(0).u8[5] = 9;
    expect(readFileSync(join(directory, 'memory'))[5]).toBe(9);
    backing.discard(0, MIB);
    expect(backing.window(0).u8[5]).toBe(0);
  });

  test('maps a window once, and the last one as short as it is', () => {
    const backing = opened(new FileBacking(memfd(WINDOW_BYTES + MIB), 0, WINDOW_BYTES + MIB));
    expect(backing.window(1)).toBe(backing.window(1));
    expect(backing.window(1).u8.length).toBe(MIB);
    expect(backing.window(0).u16.length).toBe(WINDOW_BYTES / 2);
    expect(backing.residentBytes()).toBe(0);
  });

  test('asks for huge pages where it is told to', () => {
    const fd = memfd(4 * MIB);
    const backing = opened(new FileBacking(fd, 0, 4 * MIB, { adviseHugePages: true }));
    backing.window(0).u8[0] = 1;
    // Whether there are any is the host's to decide; one page at least is there.
    expect(backing.residentBytes()).toBeGreaterThanOrEqual(PAGE_SIZE);
  });

  test('closes its descriptor and leaves zeros in windows that are still held', () => {
    const backing = new FileBacking(memfd(), 0, MIB);
    const { u8 } = backing.window(0);
    u8[0] = 5;
    backing.close();
    expect(u8[0]).toBe(0);
    backing.close();
    expect(() => backing.residentBytes()).toThrow('closed');
  });
});

const pool = reserveHugePages(4);
afterAll(() => pool.release());

describe.skipIf(pool.missing !== undefined)('huge pages', () => {
  const huge = (pages: number): OwnedFd =>
    createMemfd({ name: 'aerostat-huge', size: pages * HUGE_PAGE_SIZE, hugePageSize: HUGE_PAGE_SIZE });

  test('are given back whole', () => {
    const backing = opened(new FileBacking(huge(4), 0, 4 * HUGE_PAGE_SIZE));
    expect([backing.kind, backing.discardUnit]).toEqual(['hugetlb', HUGE_PAGE_SIZE]);
    const { u8 } = backing.window(0);
    for (let page = 0; page < 4; page++) u8[page * HUGE_PAGE_SIZE] = 1;
    expect(backing.residentBytes()).toBe(4 * HUGE_PAGE_SIZE);
    backing.discard(HUGE_PAGE_SIZE, 2 * HUGE_PAGE_SIZE);
    expect(backing.residentBytes()).toBe(2 * HUGE_PAGE_SIZE);
    expect([u8[0], u8[3 * HUGE_PAGE_SIZE]]).toEqual([1, 1]);
  });

  test('are written as memory, for the file system takes no writes', () => {
    const backing = opened(new FileBacking(huge(1), 0, HUGE_PAGE_SIZE));
    backing.write(PAGE_SIZE, new Uint8Array([1, 2, 3]), 0, 3);
    const into = new Uint8Array(3);
    backing.read(PAGE_SIZE, into, 0, 3);
    expect([...into]).toEqual([1, 2, 3]);
  });

  test('are refused where a region would cut one', () => {
    expect(() => new FileBacking(huge(2), PAGE_SIZE, HUGE_PAGE_SIZE)).toThrow(refusal('file offset'));
    expect(() => new FileBacking(huge(2), 0, HUGE_PAGE_SIZE + PAGE_SIZE)).toThrow(refusal('page size'));
  });
});

describe('memory of this process', () => {
  test('gives back what is discarded', () => {
    const size = 64 * MIB;
    const backing = opened(new AnonymousBacking(size));
    const { u8 } = backing.window(0);
    u8.fill(3);
    const before = process.memoryUsage.rss();
    backing.discard(MIB, size - 2 * MIB);
    // Other memory of the process comes and goes meanwhile; half of it is proof enough.
    expect(before - process.memoryUsage.rss()).toBeGreaterThan(size / 2);
    expect([u8[MIB - 1], u8[MIB], u8[size - MIB - 1], u8[size - MIB]]).toEqual([3, 0, 0, 3]);
    expect(backing.residentBytes()).toBeNaN();
  });

  test('is discarded across windows', () => {
    const backing = opened(new AnonymousBacking(WINDOW_BYTES + MIB));
    const low = backing.window(0).u8;
    const high = backing.window(1).u8;
    low[WINDOW_BYTES - 1] = 1;
    high[0] = 2;
    high[PAGE_SIZE] = 3;
    backing.discard(WINDOW_BYTES - PAGE_SIZE, 2 * PAGE_SIZE);
    expect([low[WINDOW_BYTES - 1], high[0], high[PAGE_SIZE]]).toEqual([0, 0, 3]);
  });
});

describe('memory on the heap', () => {
  test('reads as zeros where it was discarded, and counts what holds anything else', () => {
    const backing = new HeapBacking(MIB);
    const { u8 } = backing.window();
    u8.fill(1, 0, 3 * PAGE_SIZE + 1);
    expect(backing.residentBytes()).toBe(4 * PAGE_SIZE);
    backing.discard(PAGE_SIZE, PAGE_SIZE);
    expect([u8[PAGE_SIZE - 1], u8[PAGE_SIZE], u8[2 * PAGE_SIZE]]).toEqual([1, 0, 1]);
    expect(backing.residentBytes()).toBe(3 * PAGE_SIZE);
    backing.close();
  });

  test('may come in units of any size', () => {
    const backing = new HeapBacking(4 * MIB, HUGE_PAGE_SIZE);
    backing.window().u8[HUGE_PAGE_SIZE] = 1;
    expect(backing.residentBytes()).toBe(HUGE_PAGE_SIZE);
  });

  test('is not there for guests of more than a window', () => {
    expect(() => new HeapBacking(WINDOW_BYTES + PAGE_SIZE)).toThrow('guest memory on the heap');
  });
});

test('memory in a file on a disk is known to be there, and a memfd not to be', () => {
  const path = join(directory, 'on-a-disk');
  const fd = new OwnedFd(openSync(path, 'w+'));
  ftruncateSync(fd.number, MIB);
  const inMemory = ['tmpfs', 'ramfs', 'hugetlbfs'].includes(fileSystemType(fd) ?? '');
  expect(opened(new FileBacking(fd, 0, MIB)).onDisk).toBe(!inMemory);
  expect(opened(new FileBacking(memfd(), 0, MIB)).onDisk).toBe(false);
});

describe.each([
  ['a file', () => new FileBacking(memfd(4 * MIB), MIB, 2 * MIB)],
  ['memory of this process', () => new AnonymousBacking(2 * MIB)],
  ['memory on the heap, in units of two pages', () => new HeapBacking(2 * MIB, 2 * PAGE_SIZE)],
])('%s', (_, open) => {
  test('reads what was written, and zeros where it was cleared, to the byte', () => {
    const backing = opened<Backing>(open());
    const bytes = new Uint8Array(6 * PAGE_SIZE).fill(7);
    backing.write(3 * PAGE_SIZE, bytes, PAGE_SIZE, 5 * PAGE_SIZE);
    const read = (offset: number, length: number) => {
      const into = new Uint8Array(length + 2);
      backing.read(offset, into, 1, length);
      expect([into[0], into[length + 1]]).toEqual([0, 0]);
      return new Set(into.subarray(1, length + 1));
    };
    expect(read(3 * PAGE_SIZE, 5 * PAGE_SIZE)).toEqual(new Set([7]));
    expect(read(0, 3 * PAGE_SIZE)).toEqual(new Set([0]));
    backing.clear(4 * PAGE_SIZE, 3 * PAGE_SIZE);
    expect(read(3 * PAGE_SIZE, PAGE_SIZE)).toEqual(new Set([7]));
    expect(read(4 * PAGE_SIZE, 3 * PAGE_SIZE)).toEqual(new Set([0]));
    expect(read(7 * PAGE_SIZE, PAGE_SIZE)).toEqual(new Set([7]));
  });

  test('visits what is backed, all of it where it is no file', () => {
    const backing = opened<Backing>(open());
    backing.write(8 * PAGE_SIZE, new Uint8Array(2 * PAGE_SIZE).fill(1), 0, 2 * PAGE_SIZE);
    const visited: number[][] = [];
    backing.forEachBacked(PAGE_SIZE, 20 * PAGE_SIZE, (offset, length) => visited.push([offset, length]));
    const all = [[PAGE_SIZE, 20 * PAGE_SIZE]];
    expect(visited).toEqual(backing.file === undefined ? all : [[8 * PAGE_SIZE, 2 * PAGE_SIZE]]);
  });
});
