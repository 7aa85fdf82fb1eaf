import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BUFFER_BYTES_MAX, DescriptorChain, SegmentList } from '../../src/virtio/chain.ts';
import { BUFFERS, segments, testMemory } from './rings.ts';

describe('a list of segments', () => {
  it('keeps what the device reads before what it writes (2.7.4.2)', () => {
    const list = new SegmentList();
    expect(list.addReadable(0x1000, 1)).toBe(true);
    list.addWritable(0x2000, 2);
    expect(list.addReadable(0x3000, 3)).toBe(false);
    list.addWritable(0x4000, 4);
    expect([list.count, list.readableCount, list.readableBytes, list.writableBytes]).toEqual([3, 1, 1, 6]);
    expect([0, 1, 2].map(i => [list.address(i), list.length(i), list.isWritable(i)])).toEqual([
      [0x1000, 1, false],
      [0x2000, 2, true],
      [0x4000, 4, true],
    ]);
    expect(list.clear().count).toBe(0);
  });

  it('grows as far as it must', () => {
    const list = new SegmentList();
    for (let i = 0; i < 1000; i++) list.addWritable(i * 4096, i);
    expect([list.count, list.address(999), list.length(999)]).toEqual([1000, 999 * 4096, 999]);
  });

  it('is read and written alike however it is cut (2.7.4.1)', () => {
    const memory = testMemory();
    const cuts = fc.array(fc.nat(20), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(cuts, fc.nat(100), fc.nat(100), (lengths, offset, length) => {
        const source = new SegmentList();
        const target = new SegmentList();
        const total = lengths.reduce((sum, part) => sum + part, 0);
        const content = Uint8Array.from({ length: total }, (_, i) => i + 1);
        // Segments lie in memory in reverse, so only their order in the list can put them right.
        let done = 0;
        lengths.forEach((part, index) => {
          const address = BUFFERS + (lengths.length - index) * 0x20;
          memory.write(address, content.subarray(done, done + part));
          source.addReadable(address, part);
          target.addWritable(address + 0x1000, part);
          done += part;
        });
        const into = new Uint8Array(length);
        const expected = content.subarray(offset, offset + length);
        expect(source.read(memory, offset, into, 0, length)).toBe(expected.length);
        expect(into.subarray(0, expected.length)).toEqual(expected);
        expect(target.write(memory, offset, expected)).toBe(expected.length);
        lengths.forEach((part, index) => {
          const address = BUFFERS + (lengths.length - index) * 0x20;
          const before = lengths.slice(0, index).reduce((sum, earlier) => sum + earlier, 0);
          const copied = new Uint8Array(part);
          memory.read(address + 0x1000, copied, 0, part);
          for (let i = 0; i < part; i++) {
            if (before + i >= offset && before + i < offset + length)
              expect(copied[i]).toBe(content[before + i]);
          }
        });
      }),
    );
  });

  it('never reads what the device writes, nor writes what it reads (2.7.5.1)', () => {
    const memory = testMemory();
    const list = segments([[BUFFERS, 4]], [[BUFFERS + 4, 4]]);
    memory.fill(BUFFERS, 7, 8);
    expect(list.read(memory, 0, new Uint8Array(8), 0, 8)).toBe(4);
    expect(list.write(memory, 0, new Uint8Array(8))).toBe(4);
    const bytes = new Uint8Array(8);
    memory.read(BUFFERS, bytes, 0, 8);
    expect([...bytes]).toEqual([7, 7, 7, 7, 0, 0, 0, 0]);
  });
});

describe('a descriptor chain', () => {
  it('is checked segment by segment, and a fault leaves none of them', () => {
    const memory = testMemory();
    const chain = new DescriptorChain();
    chain.begin(3, 5, 4);
    expect(chain.append(memory, BUFFERS, 16, true)).toBe(true);
    expect(chain.append(memory, BUFFERS, 16, false)).toBe(false);
    expect(chain.hold()).toEqual({
      id: 3,
      position: 5,
      descriptorCount: 1,
      writableBytes: 0,
      fault: 'order',
    });
    expect(chain.count).toBe(0);
    chain.begin(3, 6, 4);
    expect(chain.fault).toBeUndefined();
  });

  it('holds at most 2^32 bytes (2.7.5.2)', () => {
    expect(BUFFER_BYTES_MAX).toBe(2 ** 32);
    const chain = new DescriptorChain();
    const everything = { contains: () => true } as never;
    chain.begin(0, 0, 8);
    expect(chain.append(everything, 0, 2 ** 32 - 1, true)).toBe(true);
    expect(chain.append(everything, 0, 1, true)).toBe(true);
    expect(chain.writableBytes).toBe(2 ** 32);
    expect(chain.append(everything, 0, 1, true)).toBe(false);
    expect(chain.fault).toBe('total-bytes');
  });
});
