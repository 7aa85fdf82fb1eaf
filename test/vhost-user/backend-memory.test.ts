/** Memory tables and slots: what a front-end hands over, changes, and takes away. */
import { openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createEventFd, createPipe, OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { MEM_SLOTS_MAX } from '../../src/vhost-user/protocol.ts';
import {
  type Conversation,
  conversations,
  fileOf,
  MIB,
  payloads,
  type RegionFields,
  regionFields,
} from './conversation.ts';

const converse = conversations();

const TWO_REGIONS = [
  { guestAddress: 0, size: MIB },
  { guestAddress: 2 ** 32, size: MIB },
];

const fields = (guestAddress: number, size = MIB, mmapOffset = 0): RegionFields => ({
  guestAddress,
  size,
  userAddress: guestAddress + 2 ** 46,
  mmapOffset,
});

const memfd = (size: number): OwnedFd => createMemfd({ name: 'aerostat-test', size });

const layout = (talk: Conversation): [number, number][] =>
  talk.session.memory.regions.map(({ guestAddress, size }) => [guestAddress, size]);

/** A single region as ADD_MEM_REG and REM_MEM_REG carry it. */
const single = (region: RegionFields): Uint8Array => {
  const bytes = new Uint8Array(40);
  bytes.set(payloads.table([region]).subarray(8), 8);
  return bytes;
};

describe('SET_MEM_TABLE', () => {
  it('maps all regions, and shows what the front-end writes', () => {
    const talk = converse({ regions: TWO_REGIONS });
    talk.handOver();
    expect(talk.device.takeCalls()).toEqual(['region+ 0x0', 'region+ 0x100000000']);
    talk.memory.setU32(2 ** 32 + 0x1000, 0xfeed);
    expect(talk.session.memory.u32(2 ** 32 + 0x1000)).toBe(0xfeed);
    expect(talk.refused).toEqual([]);
  });

  it('sent again keeps the regions that are the same, drops those that are gone and adds new ones', () => {
    const talk = converse({ regions: TWO_REGIONS });
    talk.handOver();
    const [first] = talk.session.memory.regions;
    talk.device.takeCalls();
    const [low, high] = talk.memory.regions;
    const third = { ...regionFields(high), guestAddress: 2 ** 33, userAddress: 2 ** 47 };
    talk.say('SET_MEM_TABLE', payloads.table([regionFields(low), third]), {
      fds: [fileOf(low), fileOf(high)],
    });
    expect(talk.device.takeCalls()).toEqual(['region- 0x100000000', 'region+ 0x200000000']);
    expect(talk.session.memory.regions[0]).toBe(first);
  });

  it('replaces a region that has the same addresses on another file', () => {
    const talk = converse();
    talk.handOver();
    talk.device.takeCalls();
    talk.say('SET_MEM_TABLE', payloads.table([fields(0)]), { fds: [memfd(MIB)] });
    expect(talk.device.takeCalls()).toEqual(['region- 0x0', 'region+ 0x0']);
  });

  it.each<[string, () => { regions: RegionFields[]; fds: OwnedFd[]; count?: number }]>([
    ['no descriptors', () => ({ regions: [fields(0)], fds: [] })],
    ['one descriptor too few', () => ({ regions: [fields(0), fields(MIB)], fds: [memfd(MIB)] })],
    ['one descriptor too many', () => ({ regions: [fields(0)], fds: [memfd(MIB), memfd(MIB)] })],
    ['more regions than the payload holds', () => ({ regions: [fields(0)], fds: [memfd(MIB)], count: 2 })],
    [
      'more regions than a table may have',
      () => ({
        regions: Array.from({ length: 9 }, (_, i) => fields(i * MIB)),
        fds: Array.from({ length: 8 }, () => memfd(MIB)),
      }),
    ],
    ['2^32 - 1 regions', () => ({ regions: [], fds: [], count: 0xffff_ffff })],
    [
      'regions that overlap in guest addresses',
      () => ({ regions: [fields(0), fields(MIB / 2)], fds: [memfd(MIB), memfd(MIB)] }),
    ],
    [
      'regions that overlap in user addresses',
      () => ({
        regions: [fields(0), { ...fields(MIB), userAddress: 2 ** 46 }],
        fds: [memfd(MIB), memfd(MIB)],
      }),
    ],
    ['a region larger than its file', () => ({ regions: [fields(0, MIB)], fds: [memfd(MIB / 2)] })],
    ['a region that begins behind its file', () => ({ regions: [fields(0, MIB, MIB)], fds: [memfd(MIB)] })],
    ['a descriptor that is no file', () => ({ regions: [fields(0)], fds: [createEventFd()] })],
    [
      'a pipe',
      () => {
        const { reader, writer } = createPipe();
        writer.close();
        return { regions: [fields(0)], fds: [reader] };
      },
    ],
    ['a directory', () => ({ regions: [fields(0)], fds: [new OwnedFd(openSync('/tmp', 'r'))] })],
    ['a region of no bytes', () => ({ regions: [fields(0, 0)], fds: [memfd(MIB)] })],
    ['a region that is no number of pages', () => ({ regions: [fields(0, 5000)], fds: [memfd(MIB)] })],
    ['a region at an address that is no page', () => ({ regions: [fields(12)], fds: [memfd(MIB)] })],
    ['a region at an offset that is no page', () => ({ regions: [fields(0, 4096, 12)], fds: [memfd(MIB)] })],
    [
      'a region that wraps round the address space',
      () => ({ regions: [fields(2 ** 64 - 4096, 8192)], fds: [memfd(MIB)] }),
    ],
    ['an offset that wraps', () => ({ regions: [fields(0, 4096, 2 ** 64 - 4096)], fds: [memfd(MIB)] })],
    ['more memory than any guest has', () => ({ regions: [fields(0, 2 ** 46)], fds: [memfd(2 ** 46)] })],
  ])('is refused with %s, and leaves the old table in place', (_, make) => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    const before = layout(talk);
    talk.device.takeCalls();
    const { regions, fds, count } = make();
    expect(talk.accepts('SET_MEM_TABLE', payloads.table(regions, count), fds)).toBe(false);
    expect(fds.every(fd => !fd.open)).toBe(true);
    expect(layout(talk)).toEqual(before);
    expect(talk.device.takeCalls()).toEqual([]);
  });

  it('may have payload behind its regions, as User Mode Linux sends it', () => {
    const talk = converse();
    talk.negotiate();
    const bytes = new Uint8Array(8 + 2 * 32);
    bytes.set(payloads.table([fields(0)]));
    expect(talk.accepts('SET_MEM_TABLE', bytes, [memfd(MIB)])).toBe(true);
    expect(layout(talk)).toEqual([[0, MIB]]);
  });

  it('takes all memory away when it is empty', () => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    expect(talk.accepts('SET_MEM_TABLE', payloads.table([]))).toBe(true);
    expect(layout(talk)).toEqual([]);
  });
});

describe('ADD_MEM_REG and REM_MEM_REG', () => {
  it('add and take away one region', () => {
    const talk = converse({ regions: TWO_REGIONS });
    talk.negotiate();
    for (const region of talk.memory.regions) {
      expect(talk.accepts('ADD_MEM_REG', payloads.region(region), [fileOf(region)])).toBe(true);
    }
    expect(layout(talk)).toEqual(TWO_REGIONS.map(({ guestAddress, size }) => [guestAddress, size]));
    expect(talk.accepts('REM_MEM_REG', payloads.region(talk.memory.regions[0]))).toBe(true);
    expect(layout(talk)).toEqual([[2 ** 32, MIB]]);
  });

  it('refuse a region that is there already, overlaps one, or is not there', () => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    const [region] = talk.memory.regions;
    expect(talk.accepts('ADD_MEM_REG', payloads.region(region), [fileOf(region)])).toBe(false);
    expect(talk.accepts('ADD_MEM_REG', single(fields(MIB / 2)), [memfd(MIB)])).toBe(false);
    expect(talk.accepts('ADD_MEM_REG', single(fields(MIB)))).toBe(false);
    expect(talk.accepts('REM_MEM_REG', single(fields(MIB)))).toBe(false);
    expect(talk.accepts('REM_MEM_REG', single(fields(0, MIB / 2)))).toBe(false);
    expect(layout(talk)).toEqual([[0, MIB]]);
  });

  it('take a region away whose descriptor is sent along, as some front-ends do', () => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    const [region] = talk.memory.regions;
    expect(talk.accepts('REM_MEM_REG', payloads.region(region), [fileOf(region)])).toBe(true);
    expect(layout(talk)).toEqual([]);
  });

  it('fill all slots and no more', () => {
    const talk = converse();
    talk.negotiate();
    const file = memfd(4096);
    for (let slot = 0; slot <= MEM_SLOTS_MAX; slot++) {
      const taken = talk.accepts('ADD_MEM_REG', single(fields(slot * 4096, 4096)), [file.duplicate()]);
      expect(taken).toBe(slot < MEM_SLOTS_MAX);
    }
    file.close();
  });

  it('count memory over all regions against the limit', () => {
    const talk = converse();
    talk.negotiate();
    const size = 2 ** 42;
    const file = memfd(size);
    const added = Array.from({ length: 5 }, (_, slot) =>
      talk.accepts('ADD_MEM_REG', single(fields(slot * size, size)), [file.duplicate()]),
    );
    expect(added).toEqual([true, true, true, true, false]);
    file.close();
  });

  it('refuse a descriptor that is not open for reading and writing', () => {
    const talk = converse();
    talk.negotiate();
    const file = memfd(MIB);
    const readOnly = new OwnedFd(openSync(`/proc/self/fd/${file.number}`, 'r'));
    expect(talk.accepts('ADD_MEM_REG', single(fields(0)), [readOnly])).toBe(false);
    file.close();
  });
});
