/** Makes sections in memory that is used again: a section stays as it is until the next but one is begun. */
import { assert } from '../../sys/error.ts';
import type { Compression } from './compression.ts';
import {
  FLAG_COMPRESSED,
  PAYLOAD_BYTES_MAX,
  SECTION,
  SECTION_BYTES_MAX,
  SECTION_HEADER,
  type SectionName,
  sealSection,
} from './section.ts';

/** Less than this is not worth compressing. */
const COMPRESS_BYTES_MIN = 1024;

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
  #sequence = 0;
  #compressedLength = 0;
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
      length <= PAYLOAD_BYTES_MAX && !this.#sealed,
      `a section of ${length} bytes, or one without a beginning`,
    );
    this.#sealed = true;
    const flags = this.#compress(length);
    const sealed = flags === 0 ? length : this.#compressedLength;
    const section = this.#draft.section.subarray(0, SECTION_HEADER.size + sealed);
    sealSection(section, { type: SECTION[name], flags, length: sealed, sequence: this.#sequence++ });
    return section;
  }

  /** A section of these bytes. */
  section(name: SectionName, payload: Uint8Array): Uint8Array {
    this.begin().payload.set(payload);
    return this.seal(name, payload.length);
  }

  /** Compresses the payload in place where that makes it shorter; returns the flags that say so. */
  #compress(length: number): number {
    if (this.compression === undefined || length < COMPRESS_BYTES_MIN) return 0;
    const { payload, view } = this.#draft;
    const compressed = this.compression.compress(payload.subarray(0, length));
    if (compressed.length + 4 >= length) return 0;
    view.setUint32(0, length, true);
    payload.set(compressed, 4);
    this.#compressedLength = compressed.length + 4;
    return FLAG_COMPRESSED;
  }
}
