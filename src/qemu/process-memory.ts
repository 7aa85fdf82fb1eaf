/**
 * What the host holds for a guest of QEMU's, which QEMU itself does not tell: the resident part of its memory in the
 * QEMU process, by the kernel's own account of that process (proc(5), smaps). What cannot be told is null.
 */
import { readFile } from 'node:fs/promises';
import { monotonicMs } from '../sys/poll.ts';

/** The kernel goes through the page tables of the process for an answer; it is asked for a small share of the time only. */
const REST_SHARE = 20;
const FRESH_MS = 500;

interface Area {
  readonly bytes: number;
  residentBytes: number;
}

/** Areas of the address space, and what of each is in memory; huge pages of hugetlbfs are in no Rss. */
export function areasOf(smaps: string): readonly Area[] {
  const areas: Area[] = [];
  for (const line of smaps.split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range !== null) {
      areas.push({ bytes: Number.parseInt(range[2], 16) - Number.parseInt(range[1], 16), residentBytes: 0 });
      continue;
    }
    const held = /^(?:Rss|Shared_Hugetlb|Private_Hugetlb): +(\d+) kB/.exec(line);
    const area = areas.at(-1);
    if (held !== null && area !== undefined) area.residentBytes += Number(held[1]) * 1024;
  }
  return areas;
}

/**
 * What is resident of memory of these sizes: each lies in an area of just that size. Null when one is not found, as in a
 * process that is not the guest's QEMU.
 */
export function residentOf(areas: readonly Area[], sizes: readonly number[]): number | null {
  const left = [...areas];
  let resident = 0;
  for (const size of sizes) {
    const at = left.findIndex(({ bytes }) => bytes === size);
    if (at < 0) return null;
    resident += left.splice(at, 1)[0].residentBytes;
  }
  return sizes.length === 0 ? null : resident;
}

export class ProcessMemory {
  #pid: number | undefined;
  #residentBytes: number | null = null;
  #freshUntilMs = 0;
  #looking: Promise<number | null> | undefined;

  /** Of the guest's memory, in backends of these sizes, in process `pid`. Never throws. */
  async residentBytes(pid: number | undefined, sizes: readonly number[]): Promise<number | null> {
    if (pid === undefined) return null;
    if (pid === this.#pid && monotonicMs() < this.#freshUntilMs) return this.#residentBytes;
    this.#looking ??= this.#look(pid, sizes).finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(pid: number, sizes: readonly number[]): Promise<number | null> {
    const beganMs = monotonicMs();
    // Another user's process hides it.
    const smaps = await readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => '');
    const endedMs = monotonicMs();
    this.#pid = pid;
    this.#residentBytes = residentOf(areasOf(smaps), sizes);
    this.#freshUntilMs = endedMs + Math.max(FRESH_MS, (endedMs - beganMs) * REST_SHARE);
    return this.#residentBytes;
  }
}
