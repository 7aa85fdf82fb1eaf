/** What the sections say that carry no pages. Each is read whole, and refused when it is not exactly that. */

import { type GuestMemory, REGION_BYTES_MAX } from '../../memory/guest-memory.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { writeU64 } from '../../sys/struct.ts';
import { CONNECTIONS_MAX } from '../limits.ts';
import { PAUSE_STEPS_MAX, type PauseStep } from '../pause.ts';
import { SECTION_PAYLOAD_BYTES_MAX, type SectionName, StreamError } from './section.ts';
import { PayloadReader } from './section-reader.ts';
import type { SectionWriter } from './section-writer.ts';

/** The first bytes of every connection after the section's header. */
const MAGIC = 'AEROSTAT';
const STREAM_VERSION = 1;
/** Identifies one migration among all, so that no connection of another one is taken for part of it. */
const MIGRATION_ID_BYTES = 16;
/** Regions of a guest: vhost-user and KVM hand memory over in far fewer. */
export const REGIONS_MAX = 512;
/** Names of states and texts of reasons. */
const TEXT_BYTES_MAX = 1024;

/** Bits of `hello` and `welcome`: what the source would like, and what of it is to be. */
export const FEATURE_ZSTD = 1;
/** States are sent ahead, and patched at the stop. */
export const FEATURE_AHEAD = 2;
export const FEATURE_POSTCOPY = 4;
/** A stop may be called off until the guest was let go. */
export const FEATURE_RECALL = 8;

/**
 * What a connection is for: to migrate, to ask what became of a migration whose end was not heard, or to bring the pages
 * that a guest waits for which runs at its destination already.
 */
type Purpose = 'migrate' | 'inquire' | 'recover';
const PURPOSES: readonly Purpose[] = ['migrate', 'inquire', 'recover'];

export interface Hello {
  readonly id: Uint8Array;
  readonly purpose: Purpose;
  /** This connection's number among {@link connections}. */
  readonly connection: number;
  readonly connections: number;
  readonly features: number;
}

export interface RegionShape {
  readonly guestAddress: number;
  /** Bytes. */
  readonly size: number;
  /** Bytes of its pages on the source's host: 4 KiB, or huge ones. A destination may choose others. */
  readonly pageSize: number;
}

interface StateChunk {
  readonly name: string;
  readonly last: boolean;
  /** Valid until the next section is read. */
  readonly bytes: Uint8Array;
}

export interface Totals {
  /** Pages sent with their contents, and as zeros, over this connection. */
  readonly pages: number;
  readonly zeroPages: number;
}

export interface RefusedBody {
  readonly code: string;
  readonly message: string;
}

const encoder = new TextEncoder();

/** Writes fields one after the other into the section that is being made. */
export class PayloadWriter {
  readonly #writer: SectionWriter;
  #at = 0;

  constructor(writer: SectionWriter) {
    this.#writer = writer.begin();
  }

  u16(value: number): this {
    this.#writer.view.setUint16(this.#at, value, true);
    this.#at += 2;
    return this;
  }

  u32(value: number): this {
    this.#writer.view.setUint32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  u64(value: number): this {
    writeU64(this.#writer.view, this.#at, value);
    this.#at += 8;
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#writer.payload.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  /** Cut where it is longer than a reader takes. */
  text(text: string): this {
    const bytes = encoder.encode(text).subarray(0, TEXT_BYTES_MAX);
    return this.u16(bytes.length).bytes(bytes);
  }

  seal(name: SectionName): Uint8Array {
    return this.#writer.seal(name, this.#at);
  }
}

export const writeHello = (writer: SectionWriter, hello: Hello): Uint8Array =>
  new PayloadWriter(writer)
    .bytes(encoder.encode(MAGIC))
    .u16(STREAM_VERSION)
    .u16(PURPOSES.indexOf(hello.purpose))
    .u16(hello.connection)
    .u16(hello.connections)
    .u32(hello.features)
    .bytes(hello.id)
    .seal('hello');

export function readHello(payload: Uint8Array): Hello {
  const reader = new PayloadReader('hello', payload);
  if (payload.length < MAGIC.length || new TextDecoder().decode(reader.bytes(MAGIC.length)) !== MAGIC) {
    throw new StreamError('protocol', 'this is no migration');
  }
  const version = reader.u16();
  if (version !== STREAM_VERSION) {
    throw new StreamError(
      'protocol',
      `the source speaks version ${version} and this program ${STREAM_VERSION}; use the same release on both sides`,
    );
  }
  const purpose = PURPOSES[reader.u16()];
  const connection = reader.u16();
  const connections = reader.u16();
  const features = reader.u32();
  const id = reader.bytes(MIGRATION_ID_BYTES).slice();
  reader.end();
  if (purpose === undefined) throw new StreamError('payload', 'hello: a connection for no known purpose');
  if (connections < 1 || connections > CONNECTIONS_MAX || connection >= connections) {
    throw new StreamError('payload', `hello: connection ${connection} of ${connections}`);
  }
  return { id, purpose, connection, connections, features };
}

export const shapeOf = ({ regions }: GuestMemory): RegionShape[] =>
  regions.map(({ guestAddress, size, backing }) => ({ guestAddress, size, pageSize: backing.discardUnit }));

export function writeMemory(writer: SectionWriter, regions: readonly RegionShape[]): Uint8Array {
  const payload = new PayloadWriter(writer).u32(regions.length);
  for (const { guestAddress, size, pageSize } of regions) payload.u64(guestAddress).u64(size).u64(pageSize);
  return payload.seal('memory');
}

/** Regions in rising order that do not overlap; their number and sizes are bounded, their sum is the caller's to judge. */
export function readMemory(payload: Uint8Array): RegionShape[] {
  const reader = new PayloadReader('memory', payload);
  const count = reader.u32();
  if (count < 1 || count > REGIONS_MAX) throw new StreamError('limit', `memory of ${count} regions`);
  const regions: RegionShape[] = [];
  let end = 0;
  for (let index = 0; index < count; index++) {
    const guestAddress = reader.u64();
    const size = reader.u64();
    const pageSize = reader.u64();
    const aligned = guestAddress % PAGE_SIZE === 0 && size % PAGE_SIZE === 0;
    if (
      !aligned ||
      guestAddress < end ||
      size <= 0 ||
      size > REGION_BYTES_MAX ||
      pageSize % PAGE_SIZE !== 0
    ) {
      throw new StreamError('payload', `memory: a region of ${size} bytes at 0x${guestAddress.toString(16)}`);
    }
    regions.push({ guestAddress, size, pageSize });
    end = guestAddress + size;
    if (end > Number.MAX_SAFE_INTEGER) throw new StreamError('payload', 'memory: a region beyond 2^53');
  }
  reader.end();
  return regions;
}

export const writeRound = (writer: SectionWriter, round: number): Uint8Array =>
  new PayloadWriter(writer).u32(round).seal('round');

export function readRound(payload: Uint8Array): number {
  const reader = new PayloadReader('round', payload);
  const round = reader.u32();
  reader.end();
  return round;
}

/** Bytes of one state in one section, with room for its name. */
const STATE_CHUNK_BYTES = SECTION_PAYLOAD_BYTES_MAX - TEXT_BYTES_MAX - 4;

/** A state, one that is sent ahead of the stop, or what of that has changed since: they look alike. */
export type StateSection = 'state' | 'ahead' | 'patch';

/** Calls `send` with the sections of one state, of any length. */
export async function writeState(
  writer: SectionWriter,
  name: string,
  bytes: Uint8Array,
  send: (section: Uint8Array) => Promise<void>,
  section: StateSection = 'state',
): Promise<void> {
  let at = 0;
  do {
    const part = bytes.subarray(at, at + STATE_CHUNK_BYTES);
    at += part.length;
    const last = at === bytes.length;
    await send(new PayloadWriter(writer).text(name).u16(Number(last)).bytes(part).seal(section));
  } while (at < bytes.length);
}

export function readState(payload: Uint8Array, section: StateSection = 'state'): StateChunk {
  const reader = new PayloadReader(section, payload);
  const name = reader.text(TEXT_BYTES_MAX);
  const last = reader.u16() !== 0;
  return { name, last, bytes: reader.rest() };
}

export const writeEnd = (writer: SectionWriter, { pages, zeroPages }: Totals): Uint8Array =>
  new PayloadWriter(writer).u64(pages).u64(zeroPages).seal('end');

export function readEnd(payload: Uint8Array): Totals {
  const reader = new PayloadReader('end', payload);
  const totals = { pages: reader.u64(), zeroPages: reader.u64() };
  reader.end();
  return totals;
}

/** All states have been sent ahead, for the time of this number: the destination makes ready for them. */
export const writeRehearse = (writer: SectionWriter, number: number): Uint8Array =>
  new PayloadWriter(writer).u32(number).seal('rehearse');

export function readRehearse(payload: Uint8Array): number {
  const reader = new PayloadReader('rehearse', payload);
  const number = reader.u32();
  reader.end();
  return number;
}

/** `go`, `ready` and the like say all by their type. */
export const writeBare = (
  writer: SectionWriter,
  name: 'go' | 'ready' | 'rehearsed' | 'running' | 'rest' | 'recall' | 'recalled',
): Uint8Array => new PayloadWriter(writer).seal(name);

export const readBare = (name: SectionName, payload: Uint8Array): void =>
  new PayloadReader(name, payload).end();

export const writeCancel = (writer: SectionWriter, reason: string): Uint8Array =>
  new PayloadWriter(writer).text(reason).seal('cancel');

export function readCancel(payload: Uint8Array): string {
  const reader = new PayloadReader('cancel', payload);
  const reason = reader.text(TEXT_BYTES_MAX);
  reader.end();
  return reason;
}

export const writeWelcome = (writer: SectionWriter, features: number): Uint8Array =>
  new PayloadWriter(writer).u32(features).seal('welcome');

export function readWelcome(payload: Uint8Array): number {
  const reader = new PayloadReader('welcome', payload);
  const features = reader.u32();
  reader.end();
  return features;
}

const STEP_NAME = /^[a-z][a-z/-]{0,39}$/;
const MICROSECONDS = 1000;

/** Where the destination's time went, in the order in which it did. */
export function writeSpent(writer: SectionWriter, steps: readonly PauseStep[]): Uint8Array {
  const told = steps.slice(0, PAUSE_STEPS_MAX);
  const payload = new PayloadWriter(writer).u32(told.length);
  for (const { step, ms } of told) payload.text(step).u64(Math.max(0, Math.round(ms * MICROSECONDS)));
  return payload.seal('spent');
}

export function readSpent(payload: Uint8Array): PauseStep[] {
  const reader = new PayloadReader('spent', payload);
  const count = reader.u32();
  if (count > PAUSE_STEPS_MAX) throw new StreamError('limit', `spent: ${count} steps`);
  const steps = Array.from({ length: count }, () => {
    const step = reader.text(TEXT_BYTES_MAX);
    if (!STEP_NAME.test(step)) throw new StreamError('payload', 'spent: a step without a name');
    return { step, ms: reader.u64() / MICROSECONDS };
  });
  reader.end();
  return steps;
}

export const writeRefused = (writer: SectionWriter, { code, message }: RefusedBody): Uint8Array =>
  new PayloadWriter(writer).text(code).text(message).seal('refused');

export function readRefused(payload: Uint8Array): RefusedBody {
  const reader = new PayloadReader('refused', payload);
  const refusal = { code: reader.text(TEXT_BYTES_MAX), message: reader.text(TEXT_BYTES_MAX) };
  reader.end();
  return refusal;
}
