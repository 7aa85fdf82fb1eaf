/**
 * A guest's whole life on a device, as two processes: `aerostat device` and `aerostat guest` over vhost-user, with the
 * guest's memory in a file that both have. After each chapter, whatever is known in three places has to agree: what the
 * guest's driver holds, what the device's account says, and what the host really keeps in the file.
 */
import { openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { expect } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { GUEST_REQUESTS, type GuestRequest } from '../../src/control/contract.ts';
import { decodeShares, MAP_CELLS_MAX } from '../../src/control/memory-map.ts';
import type { GuestProcess } from '../../src/embedded/guest-process.ts';
import type { RingKind } from '../../src/embedded/options.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { nextData, nextHole } from '../../src/sys/file.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { HUGE_PAGE_SIZE } from '../support/huge-pages.ts';

export const MIB = 2 ** 20;
export const MEMORY_BYTES = 128 * MIB;

const NAME = 'guest';
const PAGES = MEMORY_BYTES / PAGE_SIZE;
/** What the guest uses for itself all its life. */
const USED_BYTES = 16 * MIB;
const BALLOON_BYTES = 64 * MIB;
const SMALL_BALLOON_BYTES = 24 * MIB;
/** Of memory that is in pieces. */
const PIECES_BYTES = 40 * MIB;
/** More than is free beside a balloon of {@link BALLOON_BYTES}. */
const GREEDY_BYTES = 56 * MIB;

export interface LifeOptions {
  readonly profile: ProfileName;
  readonly rings?: RingKind;
  readonly hugePages?: boolean;
}

export class Life {
  readonly #options: LifeOptions;
  #daemon: DaemonProcess;
  readonly #guest: GuestProcess;

  private constructor(options: LifeOptions, daemon: DaemonProcess, guest: GuestProcess) {
    this.#options = options;
    this.#daemon = daemon;
    this.#guest = guest;
  }

  /** A guest that has written to all of its memory once, and uses some. */
  static async begin(options: LifeOptions): Promise<Life> {
    const daemon = await DaemonProcess.start([NAME], ['--profile', options.profile]);
    try {
      const guest = await startGuestProcess({
        socketPath: daemon.socketOf(NAME),
        memoryBytes: MEMORY_BYTES,
        words: [
          '--whole',
          ...['--profile', options.profile],
          ...['--rings', options.rings ?? 'split'],
          ...(options.hugePages === true ? ['--huge-pages'] : []),
        ],
      });
      const life = new Life(options, daemon, guest);
      await guest.tell({ do: 'use', bytes: USED_BYTES });
      await guest.tell({ do: 'touch' });
      return life;
    } catch (error) {
      await daemon.stop('SIGKILL');
      throw error;
    }
  }

  async end(): Promise<void> {
    await this.#guest.close();
    await this.#daemon.stop();
  }

  /** Wishes for a balloon of this size, has it, and looks whether everything adds up. */
  async reach(bytes: number): Promise<void> {
    await this.#daemon.reach(NAME, bytes);
    await this.#guest.tell({ do: 'settle' });
    await this.check();
  }

  async inflate(): Promise<void> {
    const before = this.#heldByHost();
    await this.reach(BALLOON_BYTES);
    // Nearly all memory was written to: next to nothing in the balloon can have been no burden to the host.
    const given = before - this.#heldByHost();
    expect(given).toBeGreaterThan(this.#options.hugePages === true ? 0 : 0.98 * BALLOON_BYTES);
  }

  async deflate(): Promise<void> {
    await this.reach(SMALL_BALLOON_BYTES);
    await this.#guest.tell({ do: 'touch' });
    await this.check();
  }

  /** The guest needs more than it has, and takes it out of the balloon. */
  async runOutOfMemory(): Promise<void> {
    await this.reach(BALLOON_BYTES);
    await this.#guest.tell({ do: 'use', bytes: GREEDY_BYTES });
    const { counters, vmstat } = await this.#guest.tell({ do: 'status' });
    expect(counters.oomReleases).toBeGreaterThan(0);
    expect(vmstat.oomKills).toBe(0);
    const { actualBytes } = await this.#daemon.control.guest(NAME);
    expect(actualBytes).toBeLessThan(BALLOON_BYTES);
    await this.#guest.tell({ do: 'verify' });
    await this.#guest.tell({ do: 'free' });
    await this.#guest.tell({ do: 'use', bytes: USED_BYTES });
    // What the guest had to take stays with it until the host changes its mind, as in Linux.
    await this.reach(SMALL_BALLOON_BYTES);
    await this.reach(BALLOON_BYTES);
  }

  /** Every way that the ABI has of naming pages that are not in use. */
  async nameFreePages(): Promise<void> {
    const { control } = this.#daemon;
    const { hint, features } = await control.guest(NAME);
    if (hint.state !== 'unsupported') {
      await control.hint(NAME, { action: 'start' });
      const ended = await this.#daemon.untilGuest(NAME, guest => guest.hint.state === 'stopped');
      expect(ended.hint.hintedBytes).toBeGreaterThan(0);
      await control.hint(NAME, { action: 'done' });
    }
    if (features.includes('misc-vq') || features.includes('host-req-vq')) {
      for (const request of GUEST_REQUESTS) await this.#request(request);
    }
    if (features.includes('reporting') || features.includes('hinting')) {
      await this.#guest.tell({ do: 'touch' });
      // Pages are counted when their report is read, and held as reported once they are discarded.
      await this.#daemon.untilGuest(
        NAME,
        ({ counters, reportedBytes }) => counters.reportedPages > 0 && (reportedBytes ?? 0) > 0,
      );
    }
    await this.check();
  }

  async #request(request: GuestRequest): Promise<void> {
    const answer = await this.#daemon.control.request(NAME, { request: request });
    if (request === 'drop-cache') expect(answer.unusedBytes).toBe(0);
    else expect(answer.unusedBytes).toBeGreaterThan(0);
  }

  /**
   * Free memory is in pieces of a page, which is what the balloon then gets in every ABI, and is joined again while the
   * balloon grows out of those pieces. Half of the memory stays with those who broke it up.
   */
  async compact(): Promise<void> {
    await this.reach(0);
    await this.#guest.tell({ do: 'age', degree: 0.9, touch: true, pinned: 0, holders: 256 });
    await this.reach(PIECES_BYTES);
    await this.#daemon.control.change(NAME, { targetBytes: PIECES_BYTES + 4 * MIB, force: true });
    for (let i = 0; i < 3; i++) await this.#guest.tell({ do: 'compact' });
    await this.reach(PIECES_BYTES + 4 * MIB);
    const { counters } = await this.#guest.tell({ do: 'status' });
    expect(counters.movedPages).toBeGreaterThan(0);
  }

  /** The driver resets its device in the middle of its work, and starts anew. */
  async reset(): Promise<void> {
    await this.#daemon.control.change(NAME, { targetBytes: SMALL_BALLOON_BYTES, force: true });
    const { resets } = (await this.#daemon.control.guest(NAME)).counters;
    await this.#guest.tell({ do: 'reset' });
    await this.reach(SMALL_BALLOON_BYTES);
    expect((await this.#daemon.control.guest(NAME)).counters.resets).toBeGreaterThan(resets);
  }

  /** The daemon is killed in the middle of its work, and another takes its place. */
  async reconnect(): Promise<void> {
    const { directory } = this.#daemon;
    await this.#daemon.control.change(NAME, { targetBytes: BALLOON_BYTES, force: true });
    await this.#daemon.end('SIGKILL');
    const words = ['--profile', this.#options.profile, '--target', String(BALLOON_BYTES)];
    this.#daemon = await DaemonProcess.start([NAME], words, { directory });
    await this.#daemon.untilGuest(NAME, guest => guest.connected);
    await this.#daemon.untilGuest(NAME, guest => guest.actualBytes === BALLOON_BYTES);
    await this.reach(BALLOON_BYTES);
    expect((await this.#guest.tell({ do: 'status' })).reconnections).toBe(1);
  }

  /** The driver is taken out: all memory is the guest's again, which writes to it. */
  async remove(): Promise<void> {
    await this.#guest.tell({ do: 'remove' });
    await this.#daemon.untilGuest(NAME, guest => guest.balloonedBytes === 0);
    await this.#guest.tell({ do: 'touch' });
    // Without a driver there is no word of the guest's.
    await this.check(null);
    await this.#guest.tell({ do: 'probe' });
  }

  /** Every page is accounted for once, and every page that the guest uses holds what it wrote. */
  async check(word?: null): Promise<void> {
    const { runs } = await this.#guest.tell({ do: 'balloon' });
    const held = pagesOfRuns(runs);
    const status = await this.#daemon.untilGuest(NAME, ({ pendingBytes }) => pendingBytes === 0);
    expect(status.balloonedBytes).toBe(held.size * PAGE_SIZE);
    expect(status.actualBytes).toBe(word === null ? null : status.balloonedBytes);
    expect(status.counters).toMatchObject({ badBuffers: 0, badPages: 0, badRequests: 0, punchFailures: 0 });
    expect(differences(await this.#account(), held)).toEqual([]);
    await this.#checkFile(held);
    const { checkedBytes } = await this.#guest.tell({ do: 'verify' });
    expect(checkedBytes).toBeGreaterThanOrEqual(USED_BYTES);
  }

  /** The device's account, page by page. */
  async #account(): Promise<Set<number>> {
    const ballooned = new Set<number>();
    for (let first = 0; first < PAGES; first += MAP_CELLS_MAX) {
      const map = await this.#daemon.control.map(NAME, {
        fromBytes: first * PAGE_SIZE,
        bytes: MAP_CELLS_MAX * PAGE_SIZE,
      });
      expect(map.cellBytes).toBe(PAGE_SIZE);
      const shares = decodeShares(map.layers.ballooned ?? '', map.bytes / PAGE_SIZE);
      for (const [cell, share] of shares.entries()) if (share > 0) ballooned.add(first + cell);
    }
    return ballooned;
  }

  #heldByHost(): number {
    return this.#withFile(fd => statSync(`/proc/self/fd/${fd.number}`).blocks * 512);
  }

  /** What is in the balloon is with the host no more; of huge pages, those that are in it whole. */
  async #checkFile(held: ReadonlySet<number>): Promise<void> {
    if (this.#options.hugePages === true) {
      const whole = wholeHugePages(held);
      expect(this.#heldByHost()).toBeLessThanOrEqual(MEMORY_BYTES - whole * HUGE_PAGE_SIZE);
      return;
    }
    expect(this.#backing(held).kept).toEqual([]);
    // What the guest reports as free is given back by another thread, also between two looks at the file.
    await expect
      .poll(() => {
        const bytes = this.#heldByHost();
        return bytes - this.#backing(held).bytes;
      })
      .toBe(0);
  }

  /** What the host has memory for: how much, and which pages of the balloon. */
  #backing(held: ReadonlySet<number>): { readonly kept: readonly number[]; readonly bytes: number } {
    return this.#withFile(fd => {
      const kept: number[] = [];
      let bytes = 0;
      for (let at = nextData(fd, 0); at !== undefined; ) {
        const end: number = nextHole(fd, at) ?? MEMORY_BYTES;
        for (let page = at / PAGE_SIZE; page < end / PAGE_SIZE; page++) if (held.has(page)) kept.push(page);
        bytes += end - at;
        at = end < MEMORY_BYTES ? nextData(fd, end) : undefined;
      }
      return { kept, bytes };
    });
  }

  /** Guest memory, by a descriptor of the daemon's. */
  #withFile<Result>(look: (fd: OwnedFd) => Result): Result {
    const directory = `/proc/${this.#daemon.child.pid}/fd`;
    const path = readdirSync(directory)
      .map(number => `${directory}/${number}`)
      .find(candidate => isMemory(candidate));
    if (path === undefined) throw new Error('the daemon has no guest memory');
    const fd = new OwnedFd(openSync(path, 'r'));
    try {
      return look(fd);
    } finally {
      fd.close();
    }
  }
}

function isMemory(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('/memfd:') && statSync(path).size === MEMORY_BYTES;
  } catch {
    // It was closed meanwhile.
    return false;
  }
}

function pagesOfRuns(runs: readonly number[]): Set<number> {
  const pages = new Set<number>();
  for (let i = 0; i < runs.length; i += 2) {
    for (let page = runs[i]; page < runs[i] + runs[i + 1]; page++) {
      // An expectation a page would take longer than all else that is done here.
      if (pages.has(page)) expect.fail(`page ${page} is in the balloon twice`);
      pages.add(page);
    }
  }
  return pages;
}

function wholeHugePages(pages: ReadonlySet<number>): number {
  const each = HUGE_PAGE_SIZE / PAGE_SIZE;
  let whole = 0;
  for (let first = 0; first < PAGES; first += each) {
    let count = 0;
    while (count < each && pages.has(first + count)) count++;
    if (count === each) whole++;
  }
  return whole;
}

/** Pages that are in one of them alone. */
function differences(some: ReadonlySet<number>, others: ReadonlySet<number>): number[] {
  const alone: number[] = [];
  for (const page of some) if (!others.has(page)) alone.push(page);
  for (const page of others) if (!some.has(page)) alone.push(page);
  return alone;
}

/** All chapters, in an order in which each leaves something behind for the next. */
export async function liveThrough(options: LifeOptions): Promise<void> {
  const life = await Life.begin(options);
  try {
    await life.inflate();
    await life.deflate();
    await life.runOutOfMemory();
    await life.nameFreePages();
    await life.reset();
    await life.reconnect();
    await life.nameFreePages();
    await life.compact();
    await life.remove();
  } finally {
    await life.end();
  }
}
