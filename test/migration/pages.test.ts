import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { PageReceiver } from '../../src/migration/page-receiver.ts';
import { PageSender, STRIPE_PAGES } from '../../src/migration/page-sender.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { PAGES_PER_SECTION, StreamError } from '../../src/migration/stream/section.ts';
import { SectionReader } from '../../src/migration/stream/section-reader.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';
import { createMemfd } from '../../src/sys/file.ts';

const opened: GuestMemory[] = [];
afterEach(() => {
  for (const memory of opened.splice(0)) memory.close();
});

const GiB = 2 ** 30;

function ramOf(make: (size: number) => FileBacking | HeapBacking, ...sizes: number[]): Ram {
  const regions = sizes.map((pages, index) => {
    const size = pages * PAGE_SIZE;
    return new MemoryRegion(
      { guestAddress: index * 4 * GiB, size, userAddress: index * 8 * GiB },
      make(size),
    );
  });
  const memory = new GuestMemory(regions);
  opened.push(memory);
  return new Ram(memory);
}

const onHeap = (size: number) => new HeapBacking(size);
const inFile = (size: number) => new FileBacking(createMemfd({ name: 'aerostat-pages', size }), 0, size);

const page = (byte: number) => new Uint8Array(PAGE_SIZE).fill(byte);

function contents(ram: Ram, slot: number): Uint8Array {
  const into = new Uint8Array(PAGE_SIZE);
  ram.read(slot, 1, into, 0);
  return into;
}

/** Slots whose contents differ. */
const differences = (from: Ram, to: Ram): number[] =>
  Array.from({ length: from.slots }, (_, slot) => slot).filter(
    slot => Buffer.compare(contents(from, slot), contents(to, slot)) !== 0,
  );

class Link {
  readonly dirty: SlotBitmap;
  readonly sent: SlotBitmap;
  readonly senders: PageSender[];
  readonly receiver: PageReceiver;
  readonly sections: string[] = [];
  readonly #writers: SectionWriter[];
  readonly #readers: SectionReader[];

  constructor(from: Ram, to: Ram, connections = 1) {
    this.dirty = new SlotBitmap(from.slots);
    this.sent = new SlotBitmap(from.slots);
    this.receiver = new PageReceiver(to, new SlotBitmap(to.slots));
    const indices = Array.from({ length: connections }, (_, index) => index);
    this.senders = indices.map(
      index =>
        new PageSender({ ram: from, dirty: this.dirty, sent: this.sent, share: { index, of: connections } }),
    );
    this.#writers = indices.map(() => new SectionWriter());
    this.#readers = indices.map(
      () =>
        new SectionReader((name, payload) => {
          this.sections.push(name);
          if (name === 'pages') this.receiver.takePages(payload);
          else this.receiver.takeZeroPages(payload);
        }),
    );
  }

  round(): void {
    for (const [index, sender] of this.senders.entries()) {
      for (;;) {
        const section = sender.next(this.#writers[index]);
        if (section === undefined) break;
        this.#readers[index].push(section);
      }
    }
  }
}

describe.each([
  ['on the heap', onHeap],
  ['in a file', inFile],
])('pages of memory %s', (_, make) => {
  test('arrive over several regions and connections', () => {
    const sizes = [STRIPE_PAGES + 100, 300, STRIPE_PAGES * 2];
    const from = ramOf(make, ...sizes);
    const to = ramOf(make, ...sizes);
    const link = new Link(from, to, 3);
    const slots = [
      0,
      1,
      5,
      STRIPE_PAGES - 1,
      STRIPE_PAGES + 99,
      STRIPE_PAGES + 100,
      STRIPE_PAGES + 399,
      from.slots - 1,
    ];
    for (const slot of slots) from.write(slot, 1, page(slot % 255 || 1), 0);
    link.dirty.setAll();
    expect(link.senders.reduce((sum, sender) => sum + sender.remaining, 0)).toBe(from.slots);
    link.round();
    for (const slot of slots) expect(contents(to, slot)).toEqual(page(slot % 255 || 1));
    expect(link.dirty.countIn()).toBe(0);
    expect(link.receiver.totals).toEqual({ pages: slots.length, zeroPages: 0 });
  });

  test('that became zero are zero at the destination, and zero pages that it has are not sent', () => {
    const from = ramOf(make, 1000);
    const to = ramOf(make, 1000);
    const link = new Link(from, to);
    from.write(10, 2, new Uint8Array(2 * PAGE_SIZE).fill(9), 0);
    link.dirty.setAll();
    link.round();
    expect(contents(to, 11)).toEqual(page(9));
    from.clear(11, 1);
    link.dirty.setAll();
    link.round();
    expect(contents(to, 10)).toEqual(page(9));
    expect(contents(to, 11)).toEqual(page(0));
    expect(link.sections).toEqual(['pages', 'pages', 'zeroPages']);
    const [{ counts }] = link.senders;
    expect(counts).toEqual({ pages: 3, zeroPages: 998 + 999, zeroPagesSent: 1, resentPages: 1 });
    expect(link.receiver.totals).toEqual({ pages: 3, zeroPages: 1 });
  });

  test('are the same on both sides whatever is written between rounds', () => {
    const slots = 700;
    const step = fc.tuple(
      fc.nat(slots - 1),
      fc.integer({ min: 1, max: 400 }),
      fc.integer({ min: 0, max: 3 }),
    );
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 8 }), { maxLength: 5 }), rounds => {
        const from = ramOf(make, slots);
        const to = ramOf(make, slots);
        const link = new Link(from, to, 2);
        for (const writes of rounds) {
          for (const [start, length, byte] of writes) {
            const count = Math.min(length, slots - start);
            from.write(start, count, new Uint8Array(count * PAGE_SIZE).fill(byte), 0);
            link.dirty.set(start, count);
          }
          link.round();
        }
        expect(differences(from, to)).toEqual([]);
        for (const { memory } of [from, to]) memory.close();
      }),
      { numRuns: 20 },
    );
  });
});

describe('reading pages to send', () => {
  test('does not make the host back what it did not back before', () => {
    const from = ramOf(inFile, 2000);
    const to = ramOf(inFile, 2000);
    from.write(1500, 1, page(1), 0);
    const link = new Link(from, to);
    link.dirty.setAll();
    link.round();
    expect(from.memory.regions[0].backing.residentBytes()).toBe(PAGE_SIZE);
    expect(to.memory.regions[0].backing.residentBytes()).toBe(PAGE_SIZE);
    from.clear(1500, 1);
    link.dirty.setAll();
    link.round();
    expect(to.memory.regions[0].backing.residentBytes()).toBe(0);
  });

  test('tells whether so much is backed that the rest need not be looked for', () => {
    const full = ramOf(inFile, 1000, 1000);
    for (let slot = 0; slot < full.slots; slot++) full.write(slot, 1, page(1), 0);
    expect(full.nearlyBacked).toBe(true);
    full.clear(0, 150);
    expect(full.nearlyBacked).toBe(true);
    full.clear(150, 100);
    expect(full.nearlyBacked).toBe(false);
    expect(ramOf(inFile, 10).nearlyBacked).toBe(false);
    // The kernel tells nothing of memory that is no file, so there is nothing to be looked for.
    expect(ramOf(onHeap, 10).nearlyBacked).toBe(true);
  });

  test('finds what is backed', () => {
    const ram = ramOf(inFile, 1000, 1000);
    for (const slot of [3, 4, 999, 1000, 1500]) ram.write(slot, 1, page(1), 0);
    const runs: [number, number][] = [];
    ram.forEachBacked(0, ram.slots, (start, count) => runs.push([start, count]));
    expect(runs).toEqual([
      [3, 2],
      [999, 1],
      [1000, 1],
      [1500, 1],
    ]);
    runs.length = 0;
    ram.forEachBacked(4, 996, (start, count) => runs.push([start, count]));
    expect(runs).toEqual([
      [4, 1],
      [999, 1],
    ]);
  });

  test('maps page frames to slots and back', () => {
    const ram = ramOf(onHeap, 10, 20);
    const runs: [number, number][] = [];
    const second = (4 * GiB) / PAGE_SIZE;
    ram.forEachSlotOf(5, second, (start, count) => runs.push([start, count]));
    expect(runs).toEqual([
      [5, 5],
      [10, 5],
    ]);
    expect([ram.pfnOf(9), ram.pfnOf(10), ram.pfnOf(29)]).toEqual([9, second, second + 19]);
  });
});

describe('sections of pages', () => {
  const receive = (name: 'pages' | 'zeroPages', payload: Uint8Array): string => {
    const ram = ramOf(onHeap, 64);
    const receiver = new PageReceiver(ram, new SlotBitmap(64));
    const { u8 } = ram.memory.regions[0].windowAt(0);
    try {
      if (name === 'pages') receiver.takePages(payload);
      else receiver.takeZeroPages(payload);
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      expect(u8.every(byte => byte === 0)).toBe(true);
      return error.fault;
    }
    return 'none';
  };

  const pagesPayload = (pages: number, data: number, runs: readonly (readonly [number, number])[]) => {
    const payload = new Uint8Array(4 + data * PAGE_SIZE + runs.length * 8).fill(1);
    const view = new DataView(payload.buffer);
    view.setUint32(0, pages, true);
    runs.forEach(([start, count], i) => {
      view.setUint32(4 + data * PAGE_SIZE + i * 8, start, true);
      view.setUint32(8 + data * PAGE_SIZE + i * 8, count, true);
    });
    return payload;
  };

  test.each([
    ['fewer pages than it says', pagesPayload(3, 2, [[0, 3]])],
    ['more runs than pages', pagesPayload(2, 2, [[0, 3]])],
    ['fewer runs than pages', pagesPayload(2, 2, [[0, 1]])],
    ['a page beyond the guest', pagesPayload(2, 2, [[63, 2]])],
    ['a page far beyond the guest', pagesPayload(1, 1, [[0xffffffff, 1]])],
    [
      'a run of nothing',
      pagesPayload(1, 1, [
        [0, 0],
        [0, 1],
      ]),
    ],
    ['no pages', pagesPayload(0, 0, [])],
    ['nothing at all', new Uint8Array()],
    ['half a run', pagesPayload(1, 1, [[0, 1]]).subarray(0, -1)],
    ['too many pages', pagesPayload(PAGES_PER_SECTION + 1, 1, [[0, 1]])],
    ['a number of pages that overflows', pagesPayload(0xffffffff, 1, [[0, 1]])],
  ])('with %s are refused, and nothing is written', (_, payload) => {
    expect(receive('pages', payload)).toBe('payload');
  });

  test('of zero pages are refused beyond the guest, and when they name more than all of it', () => {
    const runs = (...list: [number, number][]) => pagesPayload(0, 0, list).subarray(4);
    expect(receive('zeroPages', runs([0, 64]))).toBe('none');
    expect(receive('zeroPages', runs([0, 65]))).toBe('payload');
    expect(receive('zeroPages', runs([0, 64], [0, 1]))).toBe('payload');
    expect(receive('zeroPages', runs([0, 64]).subarray(1))).toBe('payload');
  });

  test('of arbitrary bytes give pages or a typed error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.boolean(), (payload, zero) => {
        receive(zero ? 'zeroPages' : 'pages', payload);
      }),
    );
  });
});

test('skipping free memory costs no look at it: 128 GiB with ten pages are ten reads and one section', () => {
  const reads: number[] = [];
  const size = 128 * GiB;
  const from = ramOf(inFile, size / PAGE_SIZE);
  const counted = new (class extends Ram {
    override read(start: number, count: number, into: Uint8Array, at: number): void {
      reads.push(start);
      super.read(start, count, into, at);
    }
  })(from.memory);
  const slots = Array.from({ length: 10 }, (_, index) => index * 3_300_000 + 17);
  for (const slot of slots) from.write(slot, 1, page(7), 0);
  const dirty = new SlotBitmap(from.slots);
  const visits: number[] = [];
  counted.forEachBacked(0, counted.slots, (start, count) => {
    visits.push(start);
    dirty.set(start, count);
  });
  expect([visits, dirty.countIn()]).toEqual([slots, 10]);
  const sent = new SlotBitmap(from.slots);
  const sender = new PageSender({ ram: counted, dirty, sent, share: { index: 0, of: 1 } });
  const writer = new SectionWriter();
  expect(sender.next(writer)?.length).toBeGreaterThan(10 * PAGE_SIZE);
  expect(sender.next(writer)).toBeUndefined();
  expect(reads).toEqual(slots);
});

test('memory that turns out to be zeros is looked at in steps, with a turn for others in between', () => {
  const from = ramOf(inFile, 40_000);
  const dirty = new SlotBitmap(from.slots);
  dirty.setAll();
  const sent = new SlotBitmap(from.slots);
  const sender = new PageSender({ ram: from, dirty, sent, share: { index: 0, of: 1 } });
  const writer = new SectionWriter();
  const lengths: number[] = [];
  for (let section = sender.next(writer); section !== undefined; section = sender.next(writer)) {
    lengths.push(section.length);
  }
  expect(lengths).toEqual([0, 0]);
  expect([sender.counts.zeroPages, sender.counts.zeroPagesSent, dirty.countIn()]).toEqual([40_000, 0, 0]);
});
