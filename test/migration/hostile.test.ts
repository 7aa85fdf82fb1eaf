import { describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { ByteChannel } from '../../src/migration/byte-channel.ts';
import { MigrationDestination } from '../../src/migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../../src/migration/destination-link.ts';
import { Ram } from '../../src/migration/ram.ts';
import { type Compression, zstd } from '../../src/migration/stream/compression.ts';
import type { RegionShape } from '../../src/migration/stream/messages.ts';
import * as messages from '../../src/migration/stream/messages.ts';
import {
  FLAG_COMPRESSED,
  PAYLOAD_BYTES_MAX,
  SECTION,
  SECTION_HEADER,
  type SectionName,
  StreamError,
  sealSection,
} from '../../src/migration/stream/section.ts';
import { SectionReader } from '../../src/migration/stream/section-reader.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { bomb } from '../sys/zstd-frames.ts';

const PAGES = 64;
const MEMORY_MAX = PAGES * PAGE_SIZE;

/** A destination on a channel whose bytes we make. */
class Victim {
  readonly created: number[] = [];
  readonly replies: SectionName[] = [];
  readonly destination: MigrationDestination;
  loaded: readonly { readonly name: string; readonly bytes: Uint8Array }[] = [];
  runs = false;
  abandoned = false;
  closedByUs = false;
  ram: Ram | undefined;
  error: Error | undefined;
  #taker: Parameters<ByteChannel['listen']>[0] | undefined;

  constructor() {
    this.destination = new MigrationDestination({
      machine: {
        createMemory: async (regions: readonly RegionShape[]) => {
          this.created.push(regions.reduce((sum, { size }) => sum + size, 0));
          this.ram = new Ram(
            new GuestMemory(
              regions.map(
                ({ guestAddress, size }, i) =>
                  new MemoryRegion({ guestAddress, size, userAddress: i * 2 ** 44 }, new HeapBacking(size)),
              ),
            ),
          );
        },
        load: async states => {
          this.loaded = states;
          if (states.some(({ name }) => name !== 'guest')) {
            throw new AerostatError('AEROSTAT_TEST', 'a state that nobody reads');
          }
        },
        run: async () => {
          this.runs = true;
        },
        abandon: async () => {
          this.abandoned = true;
        },
      },
      ramOf: () => {
        if (this.ram === undefined) throw new Error('no memory');
        return this.ram;
      },
      memoryBytesMax: MEMORY_MAX,
      clock: { nowMs: () => 0, sleep: () => new Promise(() => {}) },
    });
    this.destination.outcome.catch((error: Error) => {
      this.error = error;
    });
    const reader = new SectionReader(name => this.replies.push(name));
    let take: (message: DestinationMessage) => void = () => {};
    const link = new DestinationLink(
      {
        write: async bytes => reader.push(bytes),
        listen: taker => {
          this.#taker = taker;
        },
        close: () => {
          this.closedByUs = true;
        },
        destroy: () => {
          this.closedByUs = true;
        },
      },
      message => take(message),
    );
    take = this.destination.accept(link);
  }

  /** Feeds bytes, in pieces between which everything settles. */
  async feed(pieces: Iterable<Uint8Array>): Promise<this> {
    for (const piece of pieces) {
      if (this.closedByUs) break;
      this.#taker?.data(piece);
      await settle();
    }
    return this;
  }

  async end(error?: Error): Promise<this> {
    if (!this.closedByUs) this.#taker?.closed(error);
    await settle();
    return this;
  }
}

const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

interface Part {
  readonly name: SectionName;
  readonly payload: Uint8Array;
}

/** A whole and honest migration over one connection, as sections. */
function honest(features = 0): Part[] {
  const parts: Part[] = [];
  const reader = new SectionReader((name, payload) => parts.push({ name, payload: new Uint8Array(payload) }));
  const writer = new SectionWriter();
  const push = (section: Uint8Array) => reader.push(section);
  const half = MEMORY_MAX / 2;
  push(
    messages.writeHello(writer, {
      id: new Uint8Array(16).fill(7),
      purpose: 'migrate',
      connection: 0,
      connections: 1,
      features,
    }),
  );
  push(
    messages.writeMemory(writer, [
      { guestAddress: 0, size: half, pageSize: PAGE_SIZE },
      { guestAddress: 2 ** 32, size: half, pageSize: PAGE_SIZE },
    ]),
  );
  push(messages.writeRound(writer, 1));
  push(
    pages(writer, 3, [
      [5, 2],
      [PAGES - 1, 1],
    ]),
  );
  push(
    zeros(writer, [
      [5, 1],
      [40, 2],
    ]),
  );
  push(messages.writeRound(writer, 2));
  push(pages(writer, 1, [[6, 1]]));
  push(state(writer, 'guest', true, new Uint8Array(1000).fill(9)));
  push(messages.writeEnd(writer, { pages: 4, zeroPages: 3 }));
  push(messages.writeBare(writer, 'go'));
  return parts;
}

type Runs = readonly (readonly [number, number])[];

function pages(writer: SectionWriter, count: number, runs: Runs): Uint8Array {
  const { view, payload } = writer.begin();
  view.setUint32(0, count, true);
  payload.fill(0x5a, 4, 4 + count * PAGE_SIZE);
  return writer.seal('pages', writeRuns(view, 4 + count * PAGE_SIZE, runs));
}

const zeros = (writer: SectionWriter, runs: Runs): Uint8Array =>
  writer.begin().seal('zeroPages', writeRuns(writer.view, 0, runs));

function writeRuns(view: DataView, at: number, runs: Runs): number {
  for (const [start, count] of runs) {
    view.setUint32(at, start, true);
    view.setUint32(at + 4, count, true);
    at += 8;
  }
  return at;
}

function state(writer: SectionWriter, name: string, last: boolean, bytes: Uint8Array): Uint8Array {
  const { view, payload } = writer.begin();
  view.setUint16(0, name.length, true);
  payload.set(new TextEncoder().encode(name), 2);
  view.setUint16(2 + name.length, Number(last), true);
  payload.set(bytes, 4 + name.length);
  return writer.seal('state', 4 + name.length + bytes.length);
}

/** Bytes of these sections, numbered and with the right checksums. */
const sealed = (parts: readonly Part[]): Uint8Array[] =>
  parts.map(({ name, payload }, sequence) => sealedOne(name, payload, 0, sequence));

function sealedOne(name: SectionName, payload: Uint8Array, flags: number, sequence: number): Uint8Array {
  const bytes = new Uint8Array(SECTION_HEADER.size + payload.length);
  bytes.set(payload, SECTION_HEADER.size);
  sealSection(bytes, { type: SECTION[name], flags, length: payload.length, sequence });
  return bytes;
}

/** The same, with every payload after `hello` and `memory` as what compression makes of it; which is longer sometimes. */
const compressed = (parts: readonly Part[], compression: Compression): Uint8Array[] =>
  parts.map(({ name, payload }, sequence) => {
    const bytes = sequence < 2 || payload.length === 0 ? undefined : packed(payload, compression);
    return sealedOne(name, bytes ?? payload, bytes === undefined ? 0 : FLAG_COMPRESSED, sequence);
  });

function packed(payload: Uint8Array, compression: Compression): Uint8Array {
  const into = new Uint8Array(payload.length + 1024);
  new DataView(into.buffer).setUint32(0, payload.length, true);
  return into.subarray(0, 4 + (compression.compress(payload, into.subarray(4)) ?? 0));
}

/** What must hold whatever came: no guest that was not wholly there, no more memory than allowed, one clear end. */
function expectHarmless(victim: Victim): void {
  expect(victim.created.length).toBeLessThanOrEqual(1);
  for (const size of victim.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
  expect(victim.runs).toBe(false);
  expect(victim.destination.phase).not.toBe('running');
  if (victim.error !== undefined) {
    expect(victim.error).toBeInstanceOf(AerostatError);
    expect(victim.abandoned).toBe(true);
    expect(victim.closedByUs).toBe(true);
  }
}

test('an honest stream brings the guest', async () => {
  const victim = await new Victim().feed(sealed(honest()));
  expect([victim.runs, victim.error, victim.replies]).toEqual([
    true,
    undefined,
    ['welcome', 'ready', 'running'],
  ]);
  expect(victim.loaded.map(({ name, bytes }) => [name, bytes.length])).toEqual([['guest', 1000]]);
  const page = new Uint8Array(PAGE_SIZE);
  const filled = Array.from({ length: PAGES }, (_, slot) => {
    victim.ram?.read(slot, 1, page, 0);
    return page[17] === 0x5a;
  });
  expect(filled.flatMap((full, slot) => (full ? [slot] : []))).toEqual([6, PAGES - 1]);
});

describe('a stream', () => {
  test('that ends anywhere before its end brings no guest', async () => {
    const bytes = Buffer.concat(sealed(honest()));
    const cuts = sealed(honest()).reduce<number[]>(
      (at, { length }) => at.concat((at.at(-1) ?? 0) + length),
      [],
    );
    for (const cut of [1, 20, 30, ...cuts.slice(0, -1), bytes.length - 1]) {
      const victim = new Victim();
      await victim.feed([bytes.subarray(0, cut)]);
      await victim.end();
      expectHarmless(victim);
    }
  });

  test('with a section left out, twice, or in another place is refused', async () => {
    const sections = sealed(honest());
    for (let index = 0; index < sections.length - 1; index++) {
      const without = sections.filter((_, i) => i !== index);
      const twice = [...sections.slice(0, index + 1), ...sections.slice(index)];
      const swapped = sections.slice();
      [swapped[index], swapped[index + 1]] = [swapped[index + 1], swapped[index]];
      for (const order of [without, twice, swapped]) {
        const victim = await (await new Victim().feed(order)).end();
        expectHarmless(victim);
      }
    }
  });

  test('whose sections come in a wrong order, under right numbers, is refused', async () => {
    const parts = honest();
    const refused = async (order: readonly Part[]): Promise<string> => {
      const victim = await (await new Victim().feed(sealed(order))).end();
      expectHarmless(victim);
      return victim.error instanceof StreamError ? victim.error.fault : String(victim.error);
    };
    const [hello, memory, round, data] = parts;
    const end = parts[parts.length - 2];
    const go = parts[parts.length - 1];
    expect(await refused([memory])).toBe('undefined');
    expect(await refused([hello, hello])).toBe('order');
    expect(await refused([hello, data])).toBe('order');
    expect(await refused([hello, round])).toBe('order');
    expect(await refused([hello, end])).toBe('order');
    expect(await refused([hello, go])).toBe('order');
    expect(await refused([hello, memory, memory])).toBe('order');
    expect(await refused([hello, memory, go])).toBe('order');
    // Totals that do not fit what came.
    expect(await refused([hello, memory, end])).toBe('payload');
    expect(await refused([...parts.slice(0, -1), data])).toBe('order');
    expect(await refused([hello, memory, { name: 'ready', payload: new Uint8Array() }])).toBe('order');
  });

  test('that asks for more memory than this host gives is refused before any is made', async () => {
    const [hello] = honest();
    const memory = (...regions: [number, number][]): Part => {
      const writer = new SectionWriter();
      const shapes = regions.map(([guestAddress, size]) => ({ guestAddress, size, pageSize: PAGE_SIZE }));
      return {
        name: 'memory',
        payload: messages.writeMemory(writer, shapes).slice(SECTION_HEADER.size),
      };
    };
    for (const part of [
      memory([0, 2 ** 52]),
      memory([2 ** 52, 2 ** 52]),
      memory([4096, 100]),
      memory([0, PAGE_SIZE], [0, PAGE_SIZE]),
      memory(),
    ]) {
      const victim = await new Victim().feed(sealed([hello, part]));
      expectHarmless(victim);
      expect([victim.created, victim.error instanceof StreamError]).toEqual([[], true]);
    }
    // These make sense, and are too large here.
    for (const part of [memory([0, MEMORY_MAX + PAGE_SIZE]), memory([0, MEMORY_MAX], [2 ** 32, PAGE_SIZE])]) {
      const victim = await new Victim().feed(sealed([hello, part]));
      expectHarmless(victim);
      expect([victim.created, victim.error?.message]).toEqual([
        [],
        expect.stringContaining('this destination takes'),
      ]);
    }
  });

  test('with states without end is refused', async () => {
    const [hello, memory] = honest();
    const writer = new SectionWriter();
    const part = (name: string, last: boolean): Part => ({
      name: 'state',
      payload: state(writer, name, last, new Uint8Array(2 ** 20)).slice(SECTION_HEADER.size),
    });
    const long = await new Victim().feed(sealed([hello, memory, ...Array(40).fill(part('guest', false))]));
    expectHarmless(long);
    expect(long.error).toMatchObject({ fault: 'limit' });
    const small = (name: string): Part => ({
      name: 'state',
      payload: state(writer, name, false, new Uint8Array()).slice(SECTION_HEADER.size),
    });
    const many = await new Victim().feed(
      sealed([hello, memory, ...Array.from({ length: 100 }, (_, i) => small(`state ${i}`))]),
    );
    expect(many.error).toMatchObject({ fault: 'limit' });
    const again = await new Victim().feed(sealed([hello, memory, part('guest', true), part('guest', true)]));
    expect(again.error).toMatchObject({ fault: 'order' });
  });

  test('of a stranger does not disturb a migration, nor does its end', async () => {
    const victim = new Victim();
    for (const piece of [
      new TextEncoder().encode('GET / HTTP/1.1\r\nHost: here\r\n\r\n'),
      sealed(honest())[1],
      new Uint8Array(5000).fill(255),
    ]) {
      const stranger = await new Victim().feed([piece]);
      await stranger.end();
      expectHarmless(stranger);
      expect([stranger.destination.phase, stranger.closedByUs]).toEqual(['waiting', true]);
    }
    await victim.feed(sealed(honest()));
    expect(victim.runs).toBe(true);
  });
});

describe.skipIf(zstd === undefined)('a stream that is compressed', () => {
  const compression = zstd as Compression;

  test('brings the guest', async () => {
    const victim = await new Victim().feed(compressed(honest(messages.FEATURE_ZSTD), compression));
    expect([victim.runs, victim.error]).toEqual([true, undefined]);
    expect(victim.loaded.map(({ name, bytes }) => [name, bytes.length])).toEqual([['guest', 1000]]);
  });

  test('is refused where it was not agreed on, and before there is memory', async () => {
    const parts = honest(0);
    const unasked = await (await new Victim().feed(compressed(parts, compression))).end();
    expectHarmless(unasked);
    expect(unasked.error).toMatchObject({ fault: 'compression' });
    const hello = sealedOne('hello', packed(parts[0].payload, compression), FLAG_COMPRESSED, 0);
    const early = await (await new Victim().feed([hello])).end();
    expectHarmless(early);
    expect([early.destination.phase, early.closedByUs]).toEqual(['waiting', true]);
  });

  test('and is a bomb, a piece of a frame, or a frame and more, is refused', async () => {
    const parts = honest(messages.FEATURE_ZSTD);
    const index = parts.findIndex(({ name }) => name === 'pages');
    const whole = packed(parts[index].payload, compression);
    const { length } = parts[index].payload;
    const claiming = (claimed: number, frame: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(4 + frame.length);
      new DataView(bytes.buffer).setUint32(0, claimed, true);
      bytes.set(frame, 4);
      return bytes;
    };
    for (const payload of [
      claiming(length, bomb()),
      claiming(PAYLOAD_BYTES_MAX, bomb(2 ** 30)),
      claiming(2 ** 32 - 1, bomb(2 ** 32 - 1)),
      claiming(0, whole.subarray(4)),
      claiming(length - 1, whole.subarray(4)),
      claiming(length + 1, whole.subarray(4)),
      claiming(length, whole.subarray(4, -1)),
      claiming(length, new Uint8Array(Buffer.concat([whole.subarray(4), whole.subarray(4)]))),
      claiming(length, new Uint8Array()),
      whole.subarray(0, 3),
    ]) {
      const sections = compressed(parts, compression);
      sections[index] = sealedOne('pages', payload, FLAG_COMPRESSED, index);
      const victim = await (await new Victim().feed(sections)).end();
      expectHarmless(victim);
      expect(victim.error).toMatchObject({ fault: 'compression' });
    }
  });
});

describe('a thousand mutations by seed', () => {
  const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_101);

  test(`of an honest stream end with an error and without a guest (seed ${SEED})`, async () => {
    const random = new Random(SEED);
    for (let i = 0; i < 1000; i++) {
      // The bytes of `go` are left alone: what comes before must be refused before it.
      const sections = sealed(honest());
      const last = sections.length - 1;
      const bytes = Buffer.concat(sections.slice(0, last));
      const changed = mutate(bytes, random);
      if (changed.equals(bytes)) continue;
      const victim = new Victim();
      await victim.feed([changed.subarray(0, 5000), changed.subarray(5000), sections[last]]);
      await victim.end();
      try {
        expectHarmless(victim);
      } catch (error) {
        throw new Error(`seed ${SEED}, mutation ${i}`, { cause: error });
      }
    }
  });

  test(`of payloads, under right checksums, never bring more than was asked (seed ${SEED})`, async () => {
    const random = new Random(SEED + 1);
    for (let i = 0; i < 1000; i++) {
      const parts = honest();
      const index = random.below(parts.length);
      parts[index] = { name: parts[index].name, payload: mutate(Buffer.from(parts[index].payload), random) };
      const victim = await (await new Victim().feed(sealed(parts))).end();
      // It may still be a guest: whoever can make checksums can make a stream. But nothing worse.
      if (!victim.runs) expectHarmless(victim);
      for (const size of victim.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
    }
  });

  test.skipIf(zstd === undefined)(
    `of what was compressed, under right checksums, neither (seed ${SEED})`,
    async () => {
      const random = new Random(SEED + 2);
      const compression = zstd as Compression;
      const parts = honest(messages.FEATURE_ZSTD);
      for (let i = 0; i < 500; i++) {
        const sections = compressed(parts, compression);
        // `go` and what is never compressed are left alone.
        const index = random.between(2, parts.length - 2);
        const frame = Buffer.from(packed(parts[index].payload, compression));
        sections[index] = sealedOne(parts[index].name, mutate(frame, random), FLAG_COMPRESSED, index);
        const victim = await (await new Victim().feed(sections)).end();
        if (!victim.runs) expectHarmless(victim);
        for (const size of victim.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
      }
    },
  );
});

/** Flips, cuts, doubles or overwrites some of the bytes. */
function mutate(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length === 0) return Buffer.from([random.below(256)]);
  const at = random.below(copy.length);
  const length = random.between(1, Math.min(64, copy.length - at));
  switch (random.below(5)) {
    case 0:
      copy[at] ^= 1 << random.below(8);
      return copy;
    case 1:
      for (let i = at; i < at + length; i++) copy[i] = random.below(256);
      return copy;
    case 2:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + length)]);
    case 3:
      return Buffer.concat([copy.subarray(0, at + length), copy.subarray(at)]);
    default:
      copy.fill(random.chance(0.5) ? 255 : 0, at, at + length);
      return copy;
  }
}
