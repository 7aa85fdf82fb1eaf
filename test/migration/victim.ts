/** A destination that reads a stream of our making, an honest one to begin with, and what must hold whatever comes of it. */
import { expect } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { ByteChannel } from '../../src/migration/byte-channel.ts';
import { MigrationDestination } from '../../src/migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../../src/migration/destination-link.ts';
import { Ram } from '../../src/migration/ram.ts';
import type { RegionShape } from '../../src/migration/stream/messages.ts';
import * as messages from '../../src/migration/stream/messages.ts';
import {
  SECTION,
  SECTION_HEADER,
  type SectionName,
  sealSection,
} from '../../src/migration/stream/section.ts';
import { SectionReader } from '../../src/migration/stream/section-reader.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';
import { AerostatError } from '../../src/sys/error.ts';

export const PAGES = 64;
export const MEMORY_MAX = PAGES * PAGE_SIZE;

/** A destination on a channel whose bytes we make. */
export class Victim {
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
            throw new AerostatError('AEROSTAT_VM_STATE', 'a state that is not read');
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
    const reader = new SectionReader(name => {
      // How long it took is no answer.
      if (name !== 'spent') this.replies.push(name);
    });
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

export interface Part {
  readonly name: SectionName;
  readonly payload: Uint8Array;
}

/** A whole and honest migration over one connection, as sections. */
export function honest(features = 0): Part[] {
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

export function state(writer: SectionWriter, name: string, last: boolean, bytes: Uint8Array): Uint8Array {
  const { view, payload } = writer.begin();
  view.setUint16(0, name.length, true);
  payload.set(new TextEncoder().encode(name), 2);
  view.setUint16(2 + name.length, Number(last), true);
  payload.set(bytes, 4 + name.length);
  return writer.seal('state', 4 + name.length + bytes.length);
}

/** Bytes of these sections, numbered and with the right checksums. */
export const sealed = (parts: readonly Part[]): Uint8Array[] =>
  parts.map(({ name, payload }, sequence) => sealedOne(name, payload, 0, sequence));

export function sealedOne(
  name: SectionName,
  payload: Uint8Array,
  flags: number,
  sequence: number,
): Uint8Array {
  const bytes = new Uint8Array(SECTION_HEADER.size + payload.length);
  bytes.set(payload, SECTION_HEADER.size);
  sealSection(bytes, { type: SECTION[name], flags, length: payload.length, sequence });
  return bytes;
}

/** What must hold whatever came: no guest that was not wholly there, no more memory than allowed, one clear end. */
export function expectHarmless(victim: Victim): void {
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
