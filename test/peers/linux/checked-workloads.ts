/**
 * What a guest does with its memory for tests: scripts for busybox. Files live on the guest's tmpfs, so their pages are
 * memory that only deleting them frees; anonymous memory is that of a process, which the kernel may kill when there is none
 * left.
 */
import type { CommandResult } from '../../../src/peers/linux/channel.ts';
import type { LinuxGuest, RunOptions } from '../../../src/peers/linux/guest.ts';
import { WORK_DIRECTORY } from '../../../src/peers/linux/init.ts';

const MIB = 2 ** 20;
const KEPT = `${WORK_DIRECTORY}/kept`;
const SUMS = `${WORK_DIRECTORY}/kept.md5`;
/** Files of this many MiB: large enough to be quick, small enough that a sum tells where damage is. */
const KEPT_FILE_MIB = 16;
/** read(2) fills at most 2 GiB less a page at once, so one dd cannot hold more. */
const HOG_MIB_MAX = 2047;
/** What a shell says of a process that SIGKILL ended. */
const SIGKILLED = 137;
/** Gigabytes under a loaded host take their time. */
const PATIENCE: RunOptions = { timeoutMs: 300_000 };

function wholeMib(bytes: number): number {
  if (!Number.isInteger(bytes / MIB)) throw new RangeError(`a workload takes whole MiB, not ${bytes} bytes`);
  return bytes / MIB;
}

/** Fills `bytes` (whole MiB) of memory with random content and remembers its checksums in the guest. */
export async function checksummedFiles(guest: LinuxGuest, bytes: number): Promise<void> {
  const mib = wholeMib(bytes);
  const script = `rm -rf ${KEPT} && mkdir ${KEPT} && cd ${KEPT} || exit 1
    left=${mib} n=0
    while [ $left -gt 0 ]; do
      size=$((left < ${KEPT_FILE_MIB} ? left : ${KEPT_FILE_MIB}))
      dd if=/dev/urandom of=$n bs=1M count=$size 2>/dev/null || exit 1
      left=$((left - size)) n=$((n + 1))
    done
    md5sum * >${SUMS}`;
  await guest.check(script, PATIENCE);
}

/** Reads what checksummedFiles() wrote. @throws GuestCommandError naming the files whose content changed */
export async function verifyFiles(guest: LinuxGuest): Promise<void> {
  const script = `cd ${KEPT} && sums=$(md5sum -c ${SUMS} 2>&1) || { echo "$sums" | grep -v ': OK$'; exit 1; }`;
  await guest.check(script, PATIENCE);
}

/** Makes the kernel let go of page cache, dentries and inodes; tmpfs files stay. */
export async function dropCaches(guest: LinuxGuest): Promise<void> {
  await guest.check('echo 3 >/proc/sys/vm/drop_caches');
}

/**
 * Takes `bytes` (whole MiB) of anonymous memory all at once, in processes that the kernel may kill, holds it
 * for `holdMs` and gives it back. The result's exit code is 0 if there was that much to be had, from free
 * memory, from what could be reclaimed, or from a balloon that deflates for a guest in need; 137 if the
 * kernel killed for it.
 */
export function eatMemory(
  guest: LinuxGuest,
  bytes: number,
  { holdMs = 0, ...options }: RunOptions & { readonly holdMs?: number } = {},
): Promise<CommandResult> {
  const parts: number[] = [];
  for (let left = wholeMib(bytes); left > 0; left -= HOG_MIB_MAX) parts.push(Math.min(left, HOG_MIB_MAX));
  // A dd fills its one block, then hangs in its pipe with it: the pipe's reader takes a single byte, which
  // says that the block is full (or no byte, if the kernel killed the dd), and the rest after all others.
  const script = `d=$(mktemp -d /run/eat.XXXXXX) && cd $d || exit 1
    hog() {
      { dd if=/dev/zero bs=\${1}M count=1 2>/dev/null; echo $? >$1.code.$2; } | {
        head -c 1 >/dev/null
        : >full.$2
        until [ -e release ]; do sleep 0.05; done
        cat >/dev/null
      }
    }
    ${parts.map((mib, index) => `hog ${mib} ${index} &`).join('\n')}
    until [ -e full.${parts.length - 1} ] && [ $(ls full.* | wc -l) = ${parts.length} ]; do sleep 0.05; done
    sleep ${holdMs / 1000}
    : >release
    wait
    code=$(sort -n *.code.* | tail -n 1)
    cd / && rm -r $d
    exit $code`;
  return guest.run(script, { ...PATIENCE, ...options });
}

/** Takes memory until the kernel kills for it, whatever the guest has; true if it came to that. */
export async function eatUntilOom(guest: LinuxGuest, options?: RunOptions): Promise<boolean> {
  return (await eatMemory(guest, guest.memoryBytes + HOG_MIB_MAX * MIB, options)).exitCode === SIGKILLED;
}
