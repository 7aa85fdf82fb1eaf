/**
 * Fuzz targets of the rooms for migrations and snapshots: arbitrary bytes as the other side of a migration would have sent
 * them, and as a file would hold them. They throw only if a promise is broken: an error that is not the typed one, pages that are taken before there is memory or go
 * where there is none, anything that counts after the end.
 */

import { HeapBacking } from '../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import type { ByteChannel, ByteTaker } from '../src/migration/byte-channel.ts';
import { DestinationLink, type DestinationMessage } from '../src/migration/destination-link.ts';
import { FEATURES_HERE } from '../src/migration/features.ts';
import { CONNECTIONS_MAX } from '../src/migration/limits.ts';
import { Ram } from '../src/migration/ram.ts';
import { SlotBitmap } from '../src/migration/slot-bitmap.ts';
import { REGIONS_MAX, readBare, readRefused, readWelcome } from '../src/migration/stream/messages.ts';
import {
  SECTION_BYTES_MAX,
  SECTION_HEADER,
  SECTION_PAYLOAD_BYTES_MAX,
  StreamError,
  sealSection,
} from '../src/migration/stream/section.ts';
import { SectionReader } from '../src/migration/stream/section-reader.ts';
import {
  decodeHeader,
  encodeHeader,
  HeaderRefused,
  SNAPSHOT_HEADER_BYTES,
  type SnapshotHeader,
  sealHeader,
} from '../src/snapshot/header.ts';
import { refusalInFile } from '../src/snapshot/restore.ts';
import { assert } from '../src/sys/error.ts';

const PAGES = 16;
const ram = new Ram(
  new GuestMemory([
    new MemoryRegion(
      { guestAddress: 0, size: PAGES * PAGE_SIZE, userAddress: 0 },
      new HeapBacking(PAGES * PAGE_SIZE),
    ),
  ]),
);

/** What we write goes nowhere; what we read is the input. */
class InputChannel implements ByteChannel {
  taker: ByteTaker | undefined;

  async write(): Promise<void> {}

  listen(taker: ByteTaker): void {
    this.taker = taker;
  }

  close(): void {}

  destroy(): void {}
}

/** Takes what a source says, as a destination does, without its patience. */
class Destination {
  readonly channel = new InputChannel();
  readonly #link: DestinationLink;
  #greeted = false;
  #hasMemory = false;
  #ended = false;
  #closed = false;
  #refused = false;

  /** `header`: it is a file of that snapshot. */
  constructor(header?: SnapshotHeader) {
    this.#link = new DestinationLink(this.channel, message => {
      const refusal = header === undefined || this.#refused ? undefined : refusalInFile(message, header);
      if (refusal === undefined) this.#take(message);
      else if (refusal instanceof StreamError || refusal instanceof HeaderRefused) this.#refused = true;
      else throw refusal;
      if (header !== undefined && message.kind === 'hello' && refusal === undefined) {
        assert(message.hello.connections === 1 && message.hello.purpose === 'migrate', 'no file says that');
      }
    });
  }

  #take(message: DestinationMessage): void {
    if (this.#refused) return;
    assert(!this.#closed, `${message.kind} after the connection was closed`);
    if (message.kind === 'closed') {
      this.#closed = true;
      const { error } = message;
      if (error !== undefined && !(error instanceof StreamError)) throw error;
      return;
    }
    assert(this.#greeted === (message.kind !== 'hello'), `${message.kind} where it must not be`);
    assert(
      !this.#ended || message.kind === 'go' || message.kind === 'cancel',
      `${message.kind} after the end`,
    );
    if (message.kind === 'hello') {
      const { connection, connections } = message.hello;
      assert(connection < connections && connections <= CONNECTIONS_MAX, `connection ${connection}`);
      this.#greeted = true;
    } else if (message.kind === 'memory') {
      this.#createMemory(message);
    } else if (message.kind === 'state') {
      assert(message.bytes.length <= SECTION_PAYLOAD_BYTES_MAX, `${message.bytes.length} bytes of a state`);
    } else if (message.kind === 'end') {
      assert(this.#hasMemory, 'the end of pages that had nowhere to go');
      this.#ended = true;
    }
  }

  #createMemory({ regions }: DestinationMessage & { kind: 'memory' }): void {
    assert(regions.length > 0 && regions.length <= REGIONS_MAX, `${regions.length} regions`);
    let end = 0;
    for (const { guestAddress, size } of regions) {
      assert(guestAddress >= end && size > 0, 'regions that overlap');
      end = guestAddress + size;
      assert(Number.isSafeInteger(end) && end % PAGE_SIZE === 0, `memory up to ${end}`);
    }
    if (this.#hasMemory) return;
    this.#hasMemory = true;
    ram.clear(0, PAGES);
    this.#link.receiveInto(ram, new SlotBitmap(PAGES), FEATURES_HERE);
  }
}

/** Gives the whole input to `taker`: in pieces of this many bytes, as they would come in, and then the end. */
function feed(taker: ByteTaker | undefined, bytes: Uint8Array, pieceBytes: number): void {
  for (let at = 0; at < bytes.length; at += pieceBytes) taker?.data(bytes.subarray(at, at + pieceBytes));
  taker?.closed();
}

/** The first byte says how the stream is cut. */
function stream(bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  feed(new Destination().channel.taker, bytes.subarray(1), 1 + bytes[0] * 8);
}

const SHORT_BYTES = 4;
const PAGES_IN_SHORT = 0x80;

/**
 * Reads the input as sections, so that checksums and numbers are right and only what is said is not: a byte for the type,
 * one for the flags, le16 for the length, and the payload. With the type's highest bit the payload's first byte stands
 * for so many pages, and runs follow.
 */
function sections(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const made: Uint8Array[] = [];
  for (let at = 0, total = 0; at + SHORT_BYTES <= bytes.length && total < 4 * SECTION_BYTES_MAX; ) {
    const type = view.getUint8(at);
    const flags = view.getUint8(at + 1);
    const length = view.getUint16(at + 2, true);
    const said = bytes.subarray(at + SHORT_BYTES, at + SHORT_BYTES + length);
    const payload = (type & PAGES_IN_SHORT) === 0 ? said : withPages(said);
    const section = new Uint8Array(SECTION_HEADER.size + payload.length);
    section.set(payload, SECTION_HEADER.size);
    sealSection(section, {
      type: type & ~PAGES_IN_SHORT,
      flags,
      length: payload.length,
      sequence: made.length,
    });
    made.push(section);
    total += section.length;
    at += SHORT_BYTES + length;
  }
  return Buffer.concat(made);
}

function withPages(said: Uint8Array): Uint8Array {
  const pages = said[0] ?? 0;
  const payload = new Uint8Array(4 + pages * PAGE_SIZE + Math.max(0, said.length - 1));
  payload[0] = pages;
  payload.fill(0x5a, 4, 4 + pages * PAGE_SIZE);
  payload.set(said.subarray(1), 4 + pages * PAGE_SIZE);
  return payload;
}

/** What a destination answers, as far as a source reads it. */
function answers(bytes: Uint8Array): void {
  const reader = new SectionReader((name, payload) => {
    if (name === 'welcome') assert(Number.isSafeInteger(readWelcome(payload)), 'features that are no number');
    else if (name === 'refused')
      assert(readRefused(payload).message.length <= payload.length, 'a text from nowhere');
    else readBare(name, payload);
  });
  try {
    reader.push(sections(bytes));
    reader.end();
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
  }
}

const HEADER_AT = 12;

/**
 * A snapshot's file: as it stands, and with a right beginning and a right checksum of its header, so that the fields are what
 * is not. After the header come sections.
 */
function snapshotFile(bytes: Uint8Array): void {
  const plain = new Uint8Array(SNAPSHOT_HEADER_BYTES);
  plain.set(bytes.subarray(0, SNAPSHOT_HEADER_BYTES));
  headerOf(plain.subarray(0, Math.min(bytes.length, SNAPSHOT_HEADER_BYTES)));
  plain.set(encodeHeader({ name: 'a', createdMs: 0, id: new Uint8Array(16) }).subarray(0, HEADER_AT));
  sealHeader(plain);
  const header = headerOf(plain);
  if (header === undefined) return;
  assert(/^[A-Za-z0-9._-]{1,64}$/.test(header.name), `a guest called ${header.name}`);
  assert(!Number.isNaN(new Date(header.createdMs).getTime()), 'a time that cannot be');
  const again = decodeHeader(encodeHeader(header));
  assert(JSON.stringify(again) === JSON.stringify(header), 'a header that is another one when it is written');
  const stream = sections(bytes.subarray(SNAPSHOT_HEADER_BYTES));
  feed(new Destination(header).channel.taker, stream, SECTION_BYTES_MAX);
}

function headerOf(bytes: Uint8Array): SnapshotHeader | undefined {
  try {
    return decodeHeader(bytes);
  } catch (error) {
    if (error instanceof HeaderRefused) return undefined;
    throw error;
  }
}

export const targets: Record<string, (bytes: Uint8Array) => void> = {
  'migration-stream': stream,
  'migration-sections': bytes => {
    feed(new Destination().channel.taker, sections(bytes), SECTION_BYTES_MAX);
  },
  'migration-answers': answers,
  'snapshot-file': snapshotFile,
};
