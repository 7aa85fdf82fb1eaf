/**
 * Compression of sections: zstd, Node's own where it has one (22.15 and later), else the host's library. Either reads what
 * the other one writes, and the stream does not say which it was.
 */
import zlib from 'node:zlib';
import { Libzstd } from '../../sys/libzstd.ts';

export interface Compression {
  /** Writes `bytes` as one frame into `into`; returns its length, or undefined when there is not the room for it. */
  compress(bytes: Uint8Array, into: Uint8Array): number | undefined;
  /**
   * Unpacks into `into` and returns how many bytes that were. It takes no more memory than that, whatever is claimed.
   * @throws Error when `bytes` are not one frame, or hold more than `into` does
   */
  decompress(bytes: Uint8Array, into: Uint8Array): number;
}

/** Level 1 is what keeps up with a network. */
const LEVEL = 1;

const C_COMPRESSION_LEVEL = 100;
const D_WINDOW_LOG_MAX = 100;
/**
 * Where Node unpacks, a frame's header says how far back it looks, and so much memory is set aside: up to 128 MiB. A
 * section needs no more than itself, which is less than 2 MiB.
 */
const WINDOW_LOG_MAX = 21;
/** The least that zlib takes as the size of a buffer. */
const CHUNK_BYTES_MIN = 64;

/** ZSTD_compressBound: no frame of so many bytes is longer. */
const boundOf = (length: number): number => length + (length >> 8) + CHUNK_BYTES_MIN;

/** Node's functions, which the types of Node 20 do not know. */
interface NodeZstd {
  zstdCompressSync?: (bytes: Uint8Array, options: object) => Uint8Array;
  zstdDecompressSync?: (
    bytes: Uint8Array,
    options: object,
  ) => { readonly buffer: Uint8Array; readonly engine: { readonly bytesWritten: number } };
}

/** Undefined where Node is older than 22.15. */
export function zstdOfNode(): Compression | undefined {
  const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as NodeZstd;
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined) return undefined;
  return {
    compress(bytes, into) {
      const packed = zstdCompressSync(bytes, {
        params: { [C_COMPRESSION_LEVEL]: LEVEL },
        // One buffer that is always large enough: many small ones would take most of the time.
        chunkSize: boundOf(bytes.length),
      });
      if (packed.length > into.length) return undefined;
      into.set(packed);
      return packed.length;
    },
    decompress(bytes, into) {
      const { buffer, engine } = zstdDecompressSync(bytes, {
        params: { [D_WINDOW_LOG_MAX]: WINDOW_LOG_MAX },
        maxOutputLength: into.length,
        // With a byte to spare, so that it is not full when the frame ends: then it ends there, too.
        chunkSize: Math.max(CHUNK_BYTES_MIN, into.length + 1),
        info: true,
      });
      const rest = bytes.length - engine.bytesWritten;
      if (rest !== 0) throw new Error(`${rest} bytes come after the frame`);
      into.set(buffer);
      return buffer.length;
    },
  };
}

/** Undefined where the host has no libzstd. */
export function zstdOfHost(): Compression | undefined {
  const library = Libzstd.open();
  if (library === undefined) return undefined;
  return {
    compress: (bytes, into) => library.compress(bytes, into, LEVEL),
    decompress: (bytes, into) => library.decompress(bytes, into),
  };
}

/** What sections are compressed with; undefined where neither is there. */
export const zstd = zstdOfNode() ?? zstdOfHost();
