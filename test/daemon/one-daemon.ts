/**
 * One daemon with one guest, `a`, for all tests of a file; a loop of its own for each test. What a test opens is gone
 * after it: front-ends, their descriptors, and the daemon's knowledge of a connection.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { SpokenGuest, type SpokenGuestOptions } from './spoken-guest.ts';

export class OneDaemon {
  /** Those of the test that runs. */
  guests: SpokenGuest[] = [];
  #daemon: DaemonProcess | undefined;
  #loop: TestLoop | undefined;
  #openBefore = 0;

  /** To be called at the top of a test file. */
  constructor() {
    beforeAll(async () => {
      build();
      this.#daemon = await DaemonProcess.start(['a']);
    });
    afterAll(() => this.daemon.stop());
    beforeEach(() => {
      this.#openBefore = openDescriptorCount();
      this.#loop = new TestLoop();
      this.guests = [];
    });
    afterEach(async () => {
      for (const guest of this.guests) guest.close();
      await this.daemon.untilGuest('a', ({ connected }) => !connected);
      this.loop.close();
      expect(openDescriptorCount()).toBe(this.#openBefore);
    });
  }

  get daemon(): DaemonProcess {
    return made(this.#daemon);
  }

  get loop(): TestLoop {
    return made(this.#loop);
  }

  /** A front-end that has said nothing yet. */
  async connect(): Promise<SpokenGuest> {
    return this.#added(await SpokenGuest.connect(this.daemon.socketOf('a'), { loop: this.loop }));
  }

  /** A guest whose driver runs. */
  async start(options: Partial<SpokenGuestOptions> = {}): Promise<SpokenGuest> {
    return this.#added(await SpokenGuest.start(this.daemon.socketOf('a'), { loop: this.loop, ...options }));
  }

  #added(guest: SpokenGuest): SpokenGuest {
    this.guests.push(guest);
    return guest;
  }
}

function made<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('there is no daemon outside of a test');
  return part;
}
