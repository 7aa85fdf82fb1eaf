/**
 * The frame of everything that one side of a migration says to the other (docs/migration-stream.md): a header with
 * type, length, number and checksum, and a payload of at most {@link SECTION_PAYLOAD_BYTES_MAX} bytes. What payloads
 * mean is elsewhere.
 */
import { createCipheriv } from 'node:crypto';
import { PAGE_SIZE } from '../../memory/page.ts';
import { AerostatError } from '../../sys/error.ts';
import { struct } from '../../sys/struct.ts';

/** Pages in one section at most: 1 MiB of data, for which all that is paid by the section hardly counts. */
export const PAGES_PER_SECTION = 256;
/** Runs of pages in one section at most. Zero pages travel as runs alone, 512 KiB of them. */
export const RUNS_PER_SECTION = 2 ** 16;

export const SECTION_HEADER = struct('section header', 24, {
  type: ['u16', 0],
  flags: ['u16', 2],
  /** Bytes of payload that follow. */
  length: ['u32', 4],
  /** How many sections came before it over this connection in this direction. */
  sequence: ['u32', 8],
  /** 0; a reader ignores it. */
  reserved: ['u32', 12],
  checksum: ['bits64', 16],
});

/** A count, a run for every page, and the pages: what the largest section holds. */
export const SECTION_PAYLOAD_BYTES_MAX = 4 + PAGES_PER_SECTION * (8 + PAGE_SIZE);
export const SECTION_BYTES_MAX = SECTION_HEADER.size + SECTION_PAYLOAD_BYTES_MAX;

/** The payload is compressed; in front of it, as le32, stands its length before. */
export const FLAG_COMPRESSED = 1;
/** Who does not know the type passes over the section. Without this flag it ends the migration. */
export const FLAG_OPTIONAL = 2;
const FLAGS_KNOWN = FLAG_COMPRESSED | FLAG_OPTIONAL;

export const SECTION = {
  // What the source sends.
  hello: 1,
  memory: 2,
  pages: 3,
  zeroPages: 4,
  round: 5,
  state: 6,
  end: 7,
  go: 8,
  cancel: 9,
  ahead: 10,
  rehearse: 11,
  patch: 12,
  missing: 13,
  rest: 14,
  recall: 15,
  // What the destination answers, over the first connection.
  welcome: 16,
  ready: 17,
  running: 18,
  refused: 19,
  spent: 20,
  rehearsed: 21,
  want: 22,
  arrived: 23,
  recalled: 24,
} as const;

export type SectionName = keyof typeof SECTION;

const NAMES = new Map<number, SectionName>(
  Object.entries(SECTION).map(([name, type]) => [type, name as SectionName]),
);

/** What readers of before pass over. */
export const OPTIONAL_SECTIONS: ReadonlySet<SectionName> = new Set<SectionName>(['spent']);

export const sectionName = (type: number): SectionName | undefined => NAMES.get(type);

/** What is wrong with a stream. */
type StreamFault =
  /** It is no migration at all, or one of a version that this program does not read. */
  | 'protocol'
  /** A type, flag or length that no section has. */
  | 'header'
  /** A section is missing, or comes twice. */
  | 'sequence'
  | 'checksum'
  | 'compression'
  /** The payload does not say what its type says. */
  | 'payload'
  /** It says what must not be said at this time. */
  | 'order'
  /** It asks for more than the guest, or this host, has. */
  | 'limit'
  /** It ended before its end. */
  | 'truncated';

/** The other side sent what it must not send. */
export class StreamError extends AerostatError {
  readonly fault: StreamFault;
  /** What is wrong, without what it is wrong of. */
  readonly detail: string;

  constructor(fault: StreamFault, detail: string) {
    super('AEROSTAT_MIGRATION_STREAM', `the migration stream is damaged (${fault}): ${detail}`);
    this.fault = fault;
    this.detail = detail;
  }
}

// GMAC (NIST SP 800-38D) under a key that everybody knows: a checksum that processors compute at gigabytes a second and
// Node 20 has. It guards against faults, not against people; against them there is TLS.
const KEY = Buffer.from('aerostat stream!');
const NONCE = Buffer.alloc(12);

/** The checksum of a section whose checksum field is 0. */
function checksumOf(section: Uint8Array): bigint {
  const gmac = createCipheriv('aes-128-gcm', KEY, NONCE);
  gmac.setAAD(section);
  gmac.final();
  return gmac.getAuthTag().readBigUInt64LE(0);
}

export interface SectionHeader {
  readonly type: number;
  readonly flags: number;
  readonly length: number;
  readonly sequence: number;
}

/** Writes the header in front of a payload that is in place, and its checksum. */
export function sealSection(section: Uint8Array, header: SectionHeader): void {
  const view = new DataView(section.buffer, section.byteOffset, section.length);
  SECTION_HEADER.write(view, 0, { ...header, reserved: 0, checksum: 0n });
  view.setBigUint64(SECTION_HEADER.offset.checksum, checksumOf(section), true);
}

/**
 * Reads a header, before its payload is there.
 * @throws StreamError when no section has such a header
 */
export function readHeader(bytes: Uint8Array): SectionHeader {
  const header = SECTION_HEADER.read(new DataView(bytes.buffer, bytes.byteOffset, SECTION_HEADER.size));
  const { type, flags, length } = header;
  if ((flags & ~FLAGS_KNOWN) !== 0) throw new StreamError('header', `flags 0x${flags.toString(16)}`);
  if (!NAMES.has(type) && (flags & FLAG_OPTIONAL) === 0) {
    throw new StreamError('header', `a section of the unknown type ${type}`);
  }
  if (length > SECTION_PAYLOAD_BYTES_MAX) {
    throw new StreamError(
      'header',
      `a section of ${length} bytes; it has at most ${SECTION_PAYLOAD_BYTES_MAX}`,
    );
  }
  return header;
}

/**
 * Compares a whole section with its checksum; zeroes the field.
 * @throws StreamError when they differ
 */
export function verifySection(section: Uint8Array): void {
  const view = new DataView(section.buffer, section.byteOffset, section.length);
  const claimed = view.getBigUint64(SECTION_HEADER.offset.checksum, true);
  view.setBigUint64(SECTION_HEADER.offset.checksum, 0n, true);
  if (checksumOf(section) !== claimed) throw new StreamError('checksum', 'a section changed on its way');
}
