/**
 * Writes cpio archives in the "newc" format, which is what Linux unpacks as its first file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's tree). Entries in, bytes out;
 * equal entries give equal bytes, so an archive can be named after its content. Reading is not needed.
 */
import { AerostatError } from '../../sys/error.ts';

interface Named {
  /** Relative to the root, without a leading slash. A directory comes before what it holds. */
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
}

export type CpioEntry =
  | (Named & { readonly kind: 'file'; readonly data: Uint8Array })
  | (Named & { readonly kind: 'directory' })
  | (Omit<Named, 'mode'> & { readonly kind: 'symlink'; readonly target: string })
  | (Named & { readonly kind: 'character-device'; readonly major: number; readonly minor: number });

const FILE_TYPE = { file: 0o100000, directory: 0o040000, symlink: 0o120000, 'character-device': 0o020000 };
const MAGIC = '070701';
const TRAILER = 'TRAILER!!!';
/** Every header and every body starts at a multiple of this. */
const ALIGNMENT = 4;
/** Archives are padded to whole blocks, as cpio(1) writes them. */
const BLOCK_BYTES = 512;
/** The kernel refuses longer names (PATH_MAX, with the terminating zero). */
const PATH_BYTES_MAX = 4095;

interface HeaderFields {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly fileSize: number;
  /** Of a device node: what it stands for. */
  readonly major: number;
  readonly minor: number;
  readonly nameSize: number;
}

/** The thirteen numbers of a header in their order, as eight hexadecimal digits each. */
function header({ inode, mode, links, fileSize, major, minor, nameSize }: HeaderFields): string {
  const [user, group, modified, heldOnMajor, heldOnMinor, checksum] = [0, 0, 0, 0, 0, 0];
  const identity = [inode, mode, user, group, links, modified, fileSize];
  const devices = [heldOnMajor, heldOnMinor, major, minor];
  const digits = [...identity, ...devices, nameSize, checksum].map(n => n.toString(16).padStart(8, '0'));
  return MAGIC + digits.join('');
}

function padding(length: number, alignment: number): Buffer {
  return Buffer.alloc((alignment - (length % alignment)) % alignment);
}

function bodyOf(entry: CpioEntry): Uint8Array {
  if (entry.kind === 'file') return entry.data;
  return entry.kind === 'symlink' ? Buffer.from(entry.target) : new Uint8Array(0);
}

function member(path: string, fields: Omit<HeaderFields, 'nameSize' | 'fileSize'>, body: Uint8Array): Buffer {
  const name = Buffer.from(`${path}\0`);
  const head = Buffer.from(header({ ...fields, fileSize: body.length, nameSize: name.length }));
  const nameEnd = head.length + name.length;
  return Buffer.concat([head, name, padding(nameEnd, ALIGNMENT), body, padding(body.length, ALIGNMENT)]);
}

function checkPath(path: string): void {
  const length = Buffer.byteLength(path);
  if (length > 0 && length < PATH_BYTES_MAX && !path.startsWith('/') && !path.includes('\0')) return;
  throw new AerostatError('AEROSTAT_CPIO_PATH', `no path for a cpio archive: ${JSON.stringify(path)}`);
}

/** The archive that holds `entries`, in their order. All belong to root and carry no time. */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const members = entries.map((entry, index) => {
    checkPath(entry.path);
    const device = entry.kind === 'character-device' ? entry : { major: 0, minor: 0 };
    const permissions = entry.kind === 'symlink' ? 0o777 : entry.mode;
    const fields = {
      inode: index + 1,
      mode: FILE_TYPE[entry.kind] | permissions,
      links: entry.kind === 'directory' ? 2 : 1,
      major: device.major,
      minor: device.minor,
    };
    return member(entry.path, fields, bodyOf(entry));
  });
  const end = { inode: 0, mode: 0, links: 1, major: 0, minor: 0 };
  const archive = Buffer.concat([...members, member(TRAILER, end, new Uint8Array(0))]);
  return Buffer.concat([archive, padding(archive.length, BLOCK_BYTES)]);
}
