/**
 * What a guest does with its memory: scripts for busybox, for the demo and benchmarks. Files live on the guest's tmpfs, so
 * their pages are memory that only deleting them frees.
 */
import { GuestCommandError } from './errors.ts';
import type { LinuxGuest, RunOptions } from './guest.ts';
import { WORK_DIRECTORY } from './init.ts';

const MIB = 2 ** 20;
/** Where the files are kept. */
const USED = `${WORK_DIRECTORY}/used`;

/** Gigabytes under a loaded host take their time. */
const PATIENCE: RunOptions = { timeoutMs: 300_000 };

function wholeMib(bytes: number): number {
  if (Number.isInteger(bytes / MIB) && bytes > 0) return bytes / MIB;
  throw new GuestCommandError(`a workload takes whole MiB, not ${bytes} bytes`);
}

/** Writes to `bytes` (whole MiB) of memory and keeps it, in addition to what is in use already. */
export async function useMemory(guest: LinuxGuest, bytes: number): Promise<void> {
  const file = `${USED}/$(ls ${USED} | wc -l)`;
  await guest.check(
    `mkdir -p ${USED} && dd if=/dev/zero of=${file} bs=1M count=${wholeMib(bytes)}`,
    PATIENCE,
  );
}

/** Frees all that useMemory() took. */
export async function freeMemory(guest: LinuxGuest): Promise<void> {
  await guest.check(`rm -rf ${USED}`, PATIENCE);
}
