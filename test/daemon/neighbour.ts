/**
 * The guest next door: the same daemon serves it while another guest sends nonsense, and it must notice nothing.
 */
import { expect } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { DaemonProcess } from '../support/daemon.ts';
import type { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';

const MEMORY_BYTES = 64 * 2 ** 20;
/** More than one buffer, fewer than a ring. */
const PAGES = 1000;

export const NEIGHBOUR = 'neighbour';

export class Neighbour {
  readonly #daemon: DaemonProcess;
  readonly #guest: HandGuest;

  private constructor(daemon: DaemonProcess, guest: HandGuest) {
    this.#daemon = daemon;
    this.#guest = guest;
  }

  static async connect(daemon: DaemonProcess, loop: TestLoop): Promise<Neighbour> {
    const guest = await HandGuest.connect(daemon.socketOf(NEIGHBOUR), { loop, memoryBytes: MEMORY_BYTES });
    return new Neighbour(daemon, guest);
  }

  /**
   * Gives pages away while `nonsense` goes on and again after it, and takes them back: every buffer comes back,
   * and the host gets just these pages.
   */
  async livesThrough<T>(nonsense: () => Promise<T>): Promise<T> {
    const guest = this.#guest;
    const before = await this.#daemon.control.guest(NEIGHBOUR);
    guest.touch(FIRST_PAGE, 2 * PAGES);
    const resident = guest.residentBytes;
    const meanwhile = guest.inflate(FIRST_PAGE, PAGES);
    const result = await nonsense();
    await meanwhile;
    await guest.inflate(FIRST_PAGE + PAGES, PAGES);
    const after = await this.#daemon.untilGuest(NEIGHBOUR, ({ pendingBytes }) => pendingBytes === 0);
    expect(resident - guest.residentBytes).toBe(2 * PAGES * PAGE_SIZE);
    expect(after.balloonedBytes).toBe(2 * PAGES * PAGE_SIZE);
    const { badBuffers, badPages, badRequests, brokenRings, resets, connections } = after.counters;
    const { counters } = before;
    expect({ badBuffers, badPages, badRequests, brokenRings, resets, connections }).toEqual({
      badBuffers: counters.badBuffers,
      badPages: counters.badPages,
      badRequests: counters.badRequests,
      brokenRings: counters.brokenRings,
      resets: counters.resets,
      connections: counters.connections,
    });
    await guest.deflate(FIRST_PAGE, 2 * PAGES);
    return result;
  }

  close(): void {
    this.#guest.close();
  }
}

/** Lines of a guest's in the log that say that something is wrong. */
export const complaintsOf = (daemon: DaemonProcess, guest: string): string[] =>
  daemon.log.split('\n').filter(line => line.includes(` ${guest}: `) && / (warn|error) /.test(line));
