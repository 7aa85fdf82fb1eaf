/**
 * Where a guest's memory can live. User Mode Linux keeps it in an unlinked file of the directory that TMPDIR
 * names; the file must be mappable for execution, and only on a tmpfs is it memory rather than disk.
 */
import { accessSync, constants, readFileSync, statfsSync } from 'node:fs';
import { resolve } from 'node:path';
import { TMPFS_MAGIC } from '../../sys/libc.ts';
import { GuestBootError } from '../linux/errors.ts';

interface MemoryDirectory {
  readonly path: string;
  /** Bytes that are free for files right now. */
  readonly freeBytes: number;
  /** What speaks against it, as words for an error; undefined when nothing does. */
  readonly fault: string | undefined;
}

const unescapeMountPath = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** Options of the mount that `path` lies on, by a table in the form of /proc/self/mounts. */
export function mountOptions(path: string, mounts: string): readonly string[] {
  let longest = '';
  let options: readonly string[] = [];
  for (const line of mounts.split('\n')) {
    const [, escaped, , optionWord] = line.split(' ');
    if (escaped === undefined || optionWord === undefined) continue;
    const point = unescapeMountPath(escaped);
    const covers = path === point || path.startsWith(point.endsWith('/') ? point : `${point}/`);
    // A later line of the same point covers an earlier one.
    if (covers && point.length >= longest.length) {
      longest = point;
      options = optionWord.split(',');
    }
  }
  return options;
}

export function inspectMemoryDirectory(directory: string): MemoryDirectory {
  const path = resolve(directory);
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    const { type, bavail, bsize } = statfsSync(path);
    const options = mountOptions(path, readFileSync('/proc/self/mounts', 'utf8'));
    let fault: string | undefined;
    if (type !== TMPFS_MAGIC) fault = 'is not on a tmpfs';
    else if (options.includes('noexec')) fault = 'is mounted noexec (mount -o remount,exec lifts that)';
    return { path, freeBytes: bavail * bsize, fault };
  } catch (cause) {
    return { path, freeBytes: 0, fault: `cannot be used (${(cause as Error).message})` };
  }
}

/** The directories that are tried, best first. */
function candidates(): string[] {
  const own = process.getuid?.() ?? 0;
  return ['/dev/shm', process.env.XDG_RUNTIME_DIR ?? `/run/user/${own}`, process.env.TMPDIR ?? '/tmp'];
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;

/**
 * A directory for the memory file of a guest of `memoryBytes`: `wanted` if given, else the first suitable
 * of /dev/shm, the user's runtime directory, TMPDIR.
 * @throws GuestBootError that says of each what speaks against it
 */
export function memoryDirectory(memoryBytes: number, wanted?: string): string {
  const faults: string[] = [];
  for (const candidate of wanted === undefined ? candidates() : [wanted]) {
    const { path, freeBytes, fault } = inspectMemoryDirectory(candidate);
    if (fault === undefined && freeBytes >= memoryBytes) return path;
    faults.push(`${path} ${fault ?? `has only ${mebibytes(freeBytes)} free`}`);
  }
  throw new GuestBootError(
    `no place for ${mebibytes(memoryBytes)} of guest memory: ${faults.join('; ')}. ` +
      'Give the guest less memory, enlarge a tmpfs (mount -o remount,size=8G /dev/shm), or name another one.',
  );
}

/** Bytes that a guest's memory can have at most on this machine right now: by file space, and by free memory. */
export function guestMemoryBytesMax(): number {
  const usable = candidates().map(inspectMemoryDirectory);
  const room = usable.filter(({ fault }) => fault === undefined).map(({ freeBytes }) => freeBytes);
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return Math.min(Math.max(0, ...room), Number(available ?? 0) * 1024);
}
