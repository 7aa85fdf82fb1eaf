/**
 * The host's zstd (libzstd.so.1, which dpkg and rpm need themselves), through koffi. One context for each direction
 * serves every frame, and both ends of a call are the caller's memory, so nothing is allocated for a frame.
 */
import { AerostatError, assert } from './error.ts';
import { koffi } from './koffi.ts';

/** By its ABI's name: without the number it comes with headers alone. */
const NAME = 'libzstd.so.1';

/**
 * RFC 8878, 3.1.1. The library may know older formats as well, and frames to pass over; a peer that sends those wants to reach
 * code that is not needed.
 */
const FRAME_MAGIC = 0xfd2fb528;
const MAGIC_BYTES = 4;

/** zstd_errors.h: of the destination. The numbers are fixed since zstd 1.3.1. */
const DST_SIZE_TOO_SMALL = -70;

/** What is to be unpacked is not one frame of zstd, or not one that fits. */
class ZstdError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_ZSTD', message);
  }
}

/** A size_t is read as a signed number: an error is a small negative one, and no length is negative. */
function bind(name: string) {
  const library = koffi().load(name);
  return {
    createCCtx: library.func('intptr_t ZSTD_createCCtx()'),
    createDCtx: library.func('intptr_t ZSTD_createDCtx()'),
    compress: library.func(
      'int64_t ZSTD_compressCCtx(intptr_t context, void *to, uint64_t room, const void *from, uint64_t length, int level)',
    ),
    decompress: library.func(
      'int64_t ZSTD_decompressDCtx(intptr_t context, void *to, uint64_t room, const void *from, uint64_t length)',
    ),
    frameLength: library.func('int64_t ZSTD_findFrameCompressedSize(const void *from, uint64_t length)'),
    errorName: library.func('const char *ZSTD_getErrorName(int64_t code)'),
  } as const;
}

export class Libzstd {
  readonly #calls: ReturnType<typeof bind>;
  readonly #compressing: number;
  readonly #decompressing: number;

  private constructor(calls: ReturnType<typeof bind>) {
    this.#calls = calls;
    this.#compressing = calls.createCCtx();
    this.#decompressing = calls.createDCtx();
    assert(this.#compressing !== 0 && this.#decompressing !== 0, 'zstd has no memory for its contexts');
  }

  /** The library, or undefined where the host has none. Its contexts are never freed: open it once. */
  static open(name = NAME): Libzstd | undefined {
    let calls: ReturnType<typeof bind>;
    try {
      calls = bind(name);
    } catch {
      // Not there, or another library under its name: koffi throws for a function that it does not find.
      return undefined;
    }
    return new Libzstd(calls);
  }

  /** Writes `bytes` as one frame into `into`; returns its length, or undefined when there is not the room for it. */
  compress(bytes: Uint8Array, into: Uint8Array, level: number): number | undefined {
    const length = this.#calls.compress(this.#compressing, into, into.length, bytes, bytes.length, level);
    return length === DST_SIZE_TOO_SMALL ? undefined : this.#checked(length);
  }

  /**
   * Unpacks `frame` into `into`, and returns how many bytes that were. The frame's own claims about its size and window
   * cost no memory: the library writes to `into` and looks back there.
   * @throws ZstdError when it is not exactly one whole frame, or holds more than `into` does
   */
  decompress(frame: Uint8Array, into: Uint8Array): number {
    const { frameLength, decompress } = this.#calls;
    if (!beginsAFrame(frame)) throw new ZstdError('no frame of zstd begins there');
    const length = this.#checked(frameLength(frame, frame.length));
    if (length !== frame.length) {
      throw new ZstdError(`${frame.length - length} bytes come after the frame`);
    }
    return this.#checked(decompress(this.#decompressing, into, into.length, frame, frame.length));
  }

  #checked(length: number): number {
    if (length < 0) throw new ZstdError(this.#calls.errorName(length));
    return length;
  }
}

const beginsAFrame = (bytes: Uint8Array): boolean =>
  bytes.length >= MAGIC_BYTES &&
  new DataView(bytes.buffer, bytes.byteOffset, MAGIC_BYTES).getUint32(0, true) === FRAME_MAGIC;
