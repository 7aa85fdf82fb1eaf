/**
 * Layouts of C structures: declared once as a table of fields, from which the size, the reader and the
 * writer come. Used for what the kernel reads (msghdr) and for every wire format (vhost-user messages,
 * descriptors, inflight records). All fields are little-endian: the kernels and protocols we speak to are.
 */
import { InvariantError } from './error.ts';

interface FieldTypes {
  u8: number;
  u16: number;
  u32: number;
  /**
   * An unsigned 64-bit integer as a number. Values of 2^53 and above lose their low bits but stay above
   * 2^53, so a bound that every address and length is checked against rejects them.
   */
  u64: number;
  /** Sixty-four independent bits (feature sets), as a bigint. */
  bits64: bigint;
}

type FieldType = keyof FieldTypes;

const FIELD_SIZE: Readonly<Record<FieldType, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, bits64: 8 };

type Fields = Readonly<Record<string, readonly [type: FieldType, offset: number]>>;

type StructValue<F extends Fields> = { -readonly [K in keyof F]: FieldTypes[F[K][0]] };

export interface Struct<F extends Fields> {
  readonly name: string;
  /** Size in bytes, trailing padding included. */
  readonly size: number;
  /** Byte offset of each field. */
  readonly offset: { readonly [K in keyof F]: number };
  read(view: DataView, at?: number): StructValue<F>;
  /** Writes all of the structure; bytes that no field covers become 0. */
  write(view: DataView, at: number, value: StructValue<F>): void;
  /** A buffer that holds just this structure. */
  encode(value: StructValue<F>): Uint8Array;
}

const TWO_32 = 2 ** 32;

export function readU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
}

export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % TWO_32, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

function readField(view: DataView, at: number, type: FieldType): number | bigint {
  switch (type) {
    case 'u8':
      return view.getUint8(at);
    case 'u16':
      return view.getUint16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 'u64':
      return readU64(view, at);
    case 'bits64':
      return view.getBigUint64(at, true);
  }
}

function writeField(view: DataView, at: number, type: FieldType, value: number | bigint): void {
  switch (type) {
    case 'u8':
      view.setUint8(at, value as number);
      return;
    case 'u16':
      view.setUint16(at, value as number, true);
      return;
    case 'u32':
      view.setUint32(at, value as number, true);
      return;
    case 'u64':
      writeU64(view, at, value as number);
      return;
    case 'bits64':
      view.setBigUint64(at, value as bigint, true);
      return;
  }
}

/**
 * Declares a structure. Throws {@link InvariantError} while the module loads if fields overlap, are
 * misaligned for their type, or do not fit `size`, so a wrong table never reaches a peer.
 */
export function struct<const F extends Fields>(name: string, size: number, fields: F): Struct<F> {
  const entries = Object.entries(fields);
  const covered = new Uint8Array(size);
  for (const [field, [type, offset]] of entries) {
    const width = FIELD_SIZE[type];
    if (offset + width > size) throw new InvariantError(`${name}.${field} does not fit ${size} bytes`);
    if (offset % Math.min(width, 8) !== 0) throw new InvariantError(`${name}.${field} is misaligned`);
    for (let byte = offset; byte < offset + width; byte++) {
      if (covered[byte] !== 0) throw new InvariantError(`${name}.${field} overlaps another field`);
      covered[byte] = 1;
    }
  }
  const self: Struct<F> = {
    name,
    size,
    offset: Object.fromEntries(entries.map(([field, [, offset]]) => [field, offset])) as {
      [K in keyof F]: number;
    },
    read(view, at = 0) {
      const value: Record<string, number | bigint> = {};
      for (const [field, [type, offset]] of entries) value[field] = readField(view, at + offset, type);
      return value as StructValue<F>;
    },
    write(view, at, value) {
      for (let byte = 0; byte < size; byte++) view.setUint8(at + byte, 0);
      for (const [field, [type, offset]] of entries) {
        writeField(view, at + offset, type, (value as Record<string, number | bigint>)[field]);
      }
    },
    encode(value) {
      const bytes = new Uint8Array(size);
      self.write(new DataView(bytes.buffer), 0, value);
      return bytes;
    },
  };
  return self;
}
