/**
 * Takes a stream apart into sections. It has room for one section and asks for no byte more than the section needs, so
 * a mover of bytes can write them here directly. Nothing of a section is given out before its checksum fits.
 */
import { assert } from '../../sys/error.ts';
import { readU64 } from '../../sys/struct.ts';
import type { Compression } from './compression.ts';
import {
  FLAG_COMPRESSED,
  readHeader,
  SECTION_BYTES_MAX,
  SECTION_HEADER,
  SECTION_PAYLOAD_BYTES_MAX,
  type SectionHeader,
  type SectionName,
  StreamError,
  sectionName,
  verifySection,
} from './section.ts';

/** Takes the payload of one section, which it may not keep. @throws StreamError when the payload is malformed */
type TakeSection = (name: SectionName, payload: Uint8Array) => void;

export class SectionReader {
  /** Set when both sides agreed on it; without it a compressed section is refused. */
  compression: Compression | undefined;
  readonly #buffer = new Uint8Array(SECTION_BYTES_MAX);
  /** What was compressed, unpacked; made when something is. */
  #unpacked: Uint8Array | undefined;
  readonly #take: TakeSection;
  #header: SectionHeader | undefined;
  #length = 0;
  #needed: number = SECTION_HEADER.size;
  #sequence = 0;

  constructor(take: TakeSection) {
    this.#take = take;
  }

  /** Where the next bytes belong; never empty, and no longer than what the section still needs. */
  get space(): Uint8Array {
    return this.#buffer.subarray(this.#length, this.#needed);
  }

  /** Whether the stream may end here. */
  get betweenSections(): boolean {
    return this.#length === 0;
  }

  /** `count` bytes are now in {@link space}. @throws StreamError when they are malformed */
  filled(count: number): void {
    this.#length += count;
    assert(this.#length <= this.#needed, 'more bytes than there was space');
    if (this.#length < this.#needed) return;
    if (this.#header === undefined) {
      this.#header = readHeader(this.#buffer);
      this.#needed += this.#header.length;
      if (this.#header.length > 0) return;
    }
    this.#finish(this.#header);
  }

  /** Takes bytes from wherever they are. @throws StreamError when they are malformed */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const { space } = this;
      const part = bytes.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      this.filled(part.length);
    }
  }

  /** The stream ended. @throws StreamError when it ended within a section */
  end(): void {
    if (!this.betweenSections) throw new StreamError('truncated', 'it ends in the middle of a section');
  }

  #finish(header: SectionHeader): void {
    const section = this.#buffer.subarray(0, this.#needed);
    verifySection(section);
    // Only now: the number of a section that changed on its way says nothing.
    if (header.sequence !== this.#sequence) {
      throw new StreamError('sequence', `section ${header.sequence} came in place of ${this.#sequence}`);
    }
    this.#sequence++;
    this.#header = undefined;
    this.#length = 0;
    this.#needed = SECTION_HEADER.size;
    const name = sectionName(header.type);
    // An unknown type that may be passed over; readHeader refuses the others.
    if (name === undefined) return;
    const payload = section.subarray(SECTION_HEADER.size);
    this.#take(name, (header.flags & FLAG_COMPRESSED) === 0 ? payload : this.#decompress(payload));
  }

  #decompress(payload: Uint8Array): Uint8Array {
    if (this.compression === undefined) throw new StreamError('compression', 'it was not agreed on');
    if (payload.length < 4) throw new StreamError('compression', 'the length before compression is missing');
    const length = new DataView(payload.buffer, payload.byteOffset, 4).getUint32(0, true);
    if (length === 0 || length > SECTION_PAYLOAD_BYTES_MAX) {
      throw new StreamError('compression', `a section of ${length} bytes before compression`);
    }
    this.#unpacked ??= new Uint8Array(SECTION_PAYLOAD_BYTES_MAX);
    const bytes = this.#unpacked.subarray(0, length);
    const count = unpack(this.compression, payload.subarray(4), bytes);
    if (count !== length) {
      throw new StreamError('compression', `${count} bytes came out in place of ${length}`);
    }
    return bytes;
  }
}

function unpack(compression: Compression, bytes: Uint8Array, into: Uint8Array): number {
  try {
    return compression.decompress(bytes, into);
  } catch (error) {
    throw new StreamError('compression', error instanceof Error ? error.message : String(error));
  }
}

/** Reads the fields of a payload in order, and refuses one that is too short or too long. */
export class PayloadReader {
  readonly #what: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(what: string, bytes: Uint8Array) {
    this.#what = what;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  /** @throws StreamError for 2^53 and above, which no count and no address here reaches */
  u64(): number {
    const value = readU64(this.#view, this.#advance(8));
    if (value > Number.MAX_SAFE_INTEGER)
      throw new StreamError('payload', `${this.#what}: ${value} is too much`);
    return value;
  }

  bytes(count: number): Uint8Array {
    const at = this.#advance(count);
    return this.#bytes.subarray(at, at + count);
  }

  text(bytesMax: number): string {
    const length = this.u16();
    if (length > bytesMax) throw new StreamError('payload', `${this.#what}: a text of ${length} bytes`);
    return new TextDecoder().decode(this.bytes(length));
  }

  rest(): Uint8Array {
    return this.bytes(this.#bytes.length - this.#at);
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left !== 0) throw new StreamError('payload', `${this.#what}: ${left} bytes too many`);
  }

  #advance(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) throw new StreamError('payload', `${this.#what} is cut short`);
    this.#at = at + count;
    return at;
  }
}
