import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { createMemfd, fileStatus, punchHole } from '../../src/sys/file.ts';
import { Arena, MAPPING_BYTES_MAX, Mapping, ResidentPages } from '../../src/sys/mapping.ts';

const PAGE = 4096;

describe('a mapping', () => {
  test('of a file is the file', () => {
    const fd = createMemfd({ name: 'aerostat-test', size: 4 * PAGE });
    const one = Mapping.shared(fd.number, 0, 4 * PAGE);
    const other = Mapping.shared(fd.number, PAGE, PAGE);
    fd.close();
    new Uint8Array(one.buffer)[PAGE + 7] = 42;
    expect(new Uint8Array(other.buffer)[7]).toBe(42);
    expect(one.buffer.byteLength).toBe(4 * PAGE);
    one.close();
    other.close();
  });

  test('of many pages is the file as well, wherever it begins in its buffer', () => {
    const size = 2 ** 22;
    const fd = createMemfd({ name: 'aerostat-test', size: size + PAGE });
    const one = Mapping.shared(fd.number, 0, size);
    const other = Mapping.shared(fd.number, PAGE, size);
    fd.close();
    const bytes = ({ buffer, offset, length }: Mapping) => new Uint8Array(buffer, offset, length);
    bytes(one)[PAGE + 7] = 42;
    expect(bytes(other)[7]).toBe(42);
    bytes(other)[size - PAGE - 1] = 43;
    expect(bytes(one)[size - 1]).toBe(43);
    one.close();
    expect(bytes(one).every(byte => byte === 0)).toBe(true);
    expect(bytes(other)[7]).toBe(42);
    other.close();
  });

  test('of many pages does not count as garbage to be', () => {
    const before = process.memoryUsage().external;
    const mappings = Array.from({ length: 8 }, () => Mapping.anonymous(2 ** 27));
    expect(process.memoryUsage().external - before).toBeLessThan(2 ** 27);
    for (const mapping of mappings) mapping.close();
  });

  test('that is closed leaves zeros to readers that still look, and takes writes that go nowhere', () => {
    const fd = createMemfd({ name: 'aerostat-test', size: PAGE });
    const mapping = Mapping.shared(fd.number, 0, PAGE);
    const bytes = new Uint8Array(mapping.buffer);
    bytes.fill(5);
    expect(mapping.open).toBe(true);
    mapping.close();
    mapping.close();
    expect(mapping.open).toBe(false);
    expect(bytes.every(byte => byte === 0)).toBe(true);
    bytes[0] = 1;
    const again = Mapping.shared(fd.number, 0, PAGE);
    expect(new Uint8Array(again.buffer)[0]).toBe(5);
    again.close();
    fd.close();
  });

  test('is unmapped when no reader is left', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const addressSpace = () =>
      Number(/^VmSize:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
    const before = addressSpace();
    const each = 2 ** 26;
    const count = 64;
    for (let time = 0; time < count; time++) Mapping.anonymous(each).close();
    const grown = () => addressSpace() - before > (count * each) / 1024 / 2;
    expect(grown()).toBe(true);
    // A finalizer runs some time after its collection.
    for (let time = 0; time < 50 && grown(); time++) {
      collect();
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    expect(grown()).toBe(false);
  });

  test('of nothing, or of more than a window, is a bug of ours', () => {
    expect(() => Mapping.anonymous(0)).toThrow('a mapping of 0 bytes');
    expect(() => Mapping.anonymous(MAPPING_BYTES_MAX + PAGE)).toThrow('a bug in Aerostat');
    expect(() => Mapping.shared(0, 0, MAPPING_BYTES_MAX + PAGE)).toThrow('a bug in Aerostat');
  });

  test('that the kernel refuses is told', () => {
    expect(() => Mapping.shared(-1, 0, PAGE)).toThrow('mmap failed with EBADF: 4096 bytes at offset 0');
    const fd = createMemfd({ name: 'aerostat-test', size: PAGE });
    expect(() => Mapping.shared(fd.number, 1, PAGE)).toThrow('mmap failed with EINVAL');
    fd.close();
  });

  test('that the kernel refuses is told before it has a place, which would be a gap for other threads', () => {
    const places = vi.spyOn(globalThis, 'SharedArrayBuffer');
    onTestFinished(() => places.mockRestore());
    expect(() => Mapping.shared(-1, 0, 2 ** 21)).toThrow('mmap failed with EBADF');
    expect(places).not.toHaveBeenCalled();
  });

  test('of many pages is counted where many were closed and are not collected yet, so that V8 collects them', () => {
    const kept = Array.from({ length: 256 }, () => Mapping.anonymous(2 ** 20));
    for (const mapping of kept) mapping.close();
    const next = Mapping.anonymous(2 ** 20);
    expect(next.buffer).toBeInstanceOf(ArrayBuffer);
    expect(kept.every(({ buffer }) => buffer instanceof SharedArrayBuffer)).toBe(true);
    next.close();
  });
});

test('an arena has an address, zeros, and two ways to look at them', () => {
  const arena = new Arena(100);
  expect(arena.address % PAGE).toBe(0);
  expect(arena.bytes.length).toBe(100);
  expect(arena.bytes.every(byte => byte === 0)).toBe(true);
  arena.view.setUint32(4, 0x01020304, true);
  expect([...arena.bytes.subarray(4, 8)]).toEqual([4, 3, 2, 1]);
  arena.close();
  expect(arena.bytes[4]).toBe(0);
});

test('the pages of a file that are in memory are known without touching any', () => {
  const fd = createMemfd({ name: 'aerostat-test', size: 8 * PAGE });
  const mapping = Mapping.shared(fd.number, 0, 8 * PAGE);
  const bytes = new Uint8Array(mapping.buffer);
  for (const page of [1, 2, 7]) bytes[page * PAGE] = 1;
  const held = new ResidentPages(8);
  const ask = (first: number, count: number) => {
    held.ask(fd.number, first * PAGE, count * PAGE);
    return [...held.bytes.subarray(0, count)].map(byte => byte & 1);
  };
  expect(ask(0, 8)).toEqual([0, 1, 1, 0, 0, 0, 0, 1]);
  punchHole(fd, 2 * PAGE, PAGE);
  expect(ask(1, 3)).toEqual([1, 0, 0]);
  expect(fileStatus(fd).residentBytes).toBe(2 * PAGE);
  mapping.close();
  fd.close();
});
