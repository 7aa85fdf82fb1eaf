/** Frames of zstd made by hand (RFC 8878, 3.1.1), to say what no compressor says. */

export interface FrameOptions {
  /** The contents: runs of one byte, which take four bytes each, and bytes as they are. */
  readonly blocks: readonly ({ readonly byte: number; readonly length: number } | Uint8Array)[];
  /** What the header claims; nothing when left out. */
  readonly contentSize?: number;
  /** How far back the header claims that it looks, as a power of two. */
  readonly windowLog?: number;
  readonly dictionary?: number;
}

/** Bytes in one block at most. */
export const BLOCK_BYTES_MAX = 2 ** 17;

const MAGIC = 0xfd2fb528;
const WINDOW_LOG_MIN = 10;
const CONTENT_SIZE_OF_8 = 3 << 6;
const DICTIONARY_OF_4 = 3;
const RAW = 0;
const RUN = 1;

export function zstdFrame({ blocks, contentSize, windowLog = 17, dictionary }: FrameOptions): Uint8Array {
  const parts: Uint8Array[] = [];
  const put = (length: number, value: number) => {
    const part = new Uint8Array(8);
    new DataView(part.buffer).setBigUint64(0, BigInt(value), true);
    parts.push(part.subarray(0, length));
  };
  put(4, MAGIC);
  put(
    1,
    (contentSize === undefined ? 0 : CONTENT_SIZE_OF_8) | (dictionary === undefined ? 0 : DICTIONARY_OF_4),
  );
  put(1, (windowLog - WINDOW_LOG_MIN) << 3);
  if (dictionary !== undefined) put(4, dictionary);
  if (contentSize !== undefined) put(8, contentSize);
  blocks.forEach((block, i) => {
    const type = block instanceof Uint8Array ? RAW : RUN;
    put(3, (block.length << 3) | (type << 1) | Number(i === blocks.length - 1));
    parts.push(block instanceof Uint8Array ? block : Uint8Array.of(block.byte));
  });
  return new Uint8Array(Buffer.concat(parts));
}

/** Some 30 KiB that would be 1 GiB. */
export const bomb = (contentSize?: number): Uint8Array =>
  zstdFrame({
    blocks: Array.from({ length: 2 ** 13 }, () => ({ byte: 0, length: BLOCK_BYTES_MAX })),
    ...(contentSize === undefined ? {} : { contentSize }),
  });
