/** Makes sections in memory that is used again: a section stays as it is until the next but one is begun. */
import { assert } from '../../sys/error.ts';
import type { Compression } from './compression.ts';
import {
  FLAG_COMPRESSED,
  FLAG_OPTIONAL,
  OPTIONAL_SECTIONS,
  SECTION,
  SECTION_BYTES_MAX,
  SECTION_HEADER,
  SECTION_PAYLOAD_BYTES_MAX,
  type SectionName,
  sealSection,
} from './section.ts';

/** Less than this is not worth compressing. */
const COMPRESS_BYTES_MIN = 1024;
/** The length before compression. */
const LENGTH_BYTES = 4;

class Draft {
  readonly section = new Uint8Array(SECTION_BYTES_MAX);
  readonly payload = this.section.subarray(SECTION_HEADER.size);
  readonly view = new DataView(this.payload.buffer, this.payload.byteOffset, this.payload.length);
}

export class SectionWriter {
  /** Compresses what is sealed from now on. */
  compression: Compression | undefined;
  #draft = new Draft();
  #previous = new Draft();
  /** Where what is compressed is put. */
  #spare: Draft | undefined;
  #sequence = 0;
  #sealed = false;

  /** Where the payload of the section goes that is being made. */
  get payload(): Uint8Array {
    return this.#draft.payload;
  }

  get view(): DataView {
    return this.#draft.view;
  }

  /** Begins a section; the one sealed before the last is overwritten. One that was begun and not sealed begins anew. */
  begin(): this {
    if (!this.#sealed) return this;
    this.#sealed = false;
    [this.#draft, this.#previous] = [this.#previous, this.#draft];
    return this;
  }

  /** Finishes the section whose payload's first `length` bytes are in place: header and payload, ready to go. */
  seal(name: SectionName, length: number): Uint8Array {
    assert(
      length <= SECTION_PAYLOAD_BYTES_MAX && !this.#sealed,
      `a section of ${length} bytes, or one without a beginning`,
    );
    this.#sealed = true;
    const compressed = this.#compress(length);
    const flags =
      (compressed === undefined ? 0 : FLAG_COMPRESSED) | (OPTIONAL_SECTIONS.has(name) ? FLAG_OPTIONAL : 0);
    const sealed = compressed ?? length;
    const section = this.#draft.section.subarray(0, SECTION_HEADER.size + sealed);
    sealSection(section, { type: SECTION[name], flags, length: sealed, sequence: this.#sequence++ });
    return section;
  }

  /** A section of these bytes. */
  section(name: SectionName, payload: Uint8Array): Uint8Array {
    this.begin().payload.set(payload);
    return this.seal(name, payload.length);
  }

  /** Puts the payload in the draft's place as it is compressed, where that is shorter; returns its length then. */
  #compress(length: number): number | undefined {
    if (this.compression === undefined || length < COMPRESS_BYTES_MIN) return undefined;
    this.#spare ??= new Draft();
    const { payload, view } = this.#spare;
    // No room for what would not be shorter: the compressor gives up as soon as it is full.
    const room = payload.subarray(LENGTH_BYTES, length - 1);
    const compressed = this.compression.compress(this.#draft.payload.subarray(0, length), room);
    if (compressed === undefined) return undefined;
    view.setUint32(0, length, true);
    [this.#draft, this.#spare] = [this.#spare, this.#draft];
    return LENGTH_BYTES + compressed;
  }
}
