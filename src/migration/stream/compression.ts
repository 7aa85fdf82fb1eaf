/** Compression of sections: zstd, where Node has it (22.15 and later). The format says which one by a bit in `hello`. */
import zlib from 'node:zlib';
import { StreamError } from './section.ts';

export interface Compression {
  readonly name: string;
  compress(bytes: Uint8Array): Uint8Array;
  /** @throws StreamError when it is not compressed data, or is more than `bytesMax` */
  decompress(bytes: Uint8Array, bytesMax: number): Uint8Array;
}

interface Zstd {
  zstdCompressSync?: (bytes: Uint8Array, options: object) => Uint8Array;
  zstdDecompressSync?: (bytes: Uint8Array, options: object) => Uint8Array;
}

/** Level 1 is what keeps up with a network. */
const ZSTD_LEVEL = 1;
const ZSTD_C_COMPRESSION_LEVEL = 100;

/** A compression by two functions of zlib's kind; what they throw becomes a {@link StreamError}. */
export function compressionOf(
  name: string,
  compress: (bytes: Uint8Array) => Uint8Array,
  decompress: (bytes: Uint8Array, options: { maxOutputLength: number }) => Uint8Array,
): Compression {
  return {
    name,
    compress,
    decompress(bytes, bytesMax) {
      try {
        // The bound is zlib's to keep: a bomb must not be unpacked before it is measured.
        return decompress(bytes, { maxOutputLength: bytesMax });
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new StreamError('compression', reason);
      }
    },
  };
}

/** zstd, or undefined where Node is too old for it. */
export const zstd: Compression | undefined = (() => {
  const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Zstd;
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined) return undefined;
  const options = { params: { [ZSTD_C_COMPRESSION_LEVEL]: ZSTD_LEVEL } };
  return compressionOf('zstd', bytes => zstdCompressSync(bytes, options), zstdDecompressSync);
})();
