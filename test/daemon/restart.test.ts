/**
 * A daemon that is killed while a guest gives it pages and takes them back, and started again: neither the guest nor its
 * front-end notices. How often it is killed is AEROSTAT_KILLS.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { build, program } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';

const KILLS = Number(process.env.AEROSTAT_KILLS ?? 4);
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
/** The guest gives and takes pieces of so many pages. */
const PIECE_PAGES = 256;
const PIECES = 24;

let directory: string;
let keeper: ChildProcess;

beforeAll(async () => {
  build();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  const socket = join(directory, 'keeper.sock');
  keeper = spawn(process.execPath, [program, 'keep', socket], { stdio: ['ignore', 'ignore', 'pipe'] });
  // It says so when it listens.
  await once(keeper.stderr!, 'data');
  if (!existsSync(socket)) throw new Error('the keeper does not listen');
}, 60_000);

afterAll(async () => {
  keeper.kill();
  await once(keeper, 'exit');
  rmSync(directory, { recursive: true, force: true });
});

const start = () => DaemonProcess.start(['a'], ['--keep', join(directory, 'keeper.sock')], { directory });

/** What a guest does with its balloon, and what its memory has to hold. */
class BusyGuest {
  readonly guest: HandGuest;
  readonly #random: Random;
  /** The value that fills each piece; undefined while it is in the balloon. */
  readonly values: (number | undefined)[] = Array.from({ length: PIECES }, (_, index) => index + 1);

  constructor(guest: HandGuest, random: Random) {
    this.guest = guest;
    this.#random = random;
    for (let piece = 0; piece < PIECES; piece++) guest.touch(firstOf(piece), PIECE_PAGES, piece + 1);
  }

  get balloonedPages(): number {
    return this.values.filter(value => value === undefined).length * PIECE_PAGES;
  }

  /** Gives a piece, or takes it back and uses it; then all that it has is what it was. */
  async step(): Promise<void> {
    const piece = this.#random.below(PIECES);
    if (this.values[piece] === undefined) {
      await this.guest.deflate(firstOf(piece), PIECE_PAGES);
      this.values[piece] = this.#random.between(1, 255);
      this.guest.touch(firstOf(piece), PIECE_PAGES, this.values[piece]);
    } else {
      this.values[piece] = undefined;
      await this.guest.inflate(firstOf(piece), PIECE_PAGES);
    }
    await this.guest.writeActual(this.balloonedPages);
    this.verify();
  }

  verify(): void {
    for (const [piece, value] of this.values.entries()) {
      if (value === undefined) continue;
      for (const page of [0, 100, PIECE_PAGES - 1]) {
        const found = this.guest.memory.u32((firstOf(piece) + page) * PAGE_SIZE);
        if (found !== value * 0x01010101) throw new Error(`piece ${piece}, page ${page} holds ${found}`);
      }
    }
  }
}

const firstOf = (piece: number): number => FIRST_PAGE + piece * PIECE_PAGES;

test(`a guest goes on while its daemon is killed ${KILLS} times (seed ${SEED})`, async () => {
  const loop = new TestLoop();
  const random = new Random(SEED);
  let daemon = await start();
  const guest = await HandGuest.connect(daemon.socketOf('a'), { loop });
  const busy = new BusyGuest(guest, random);
  let running = true;
  const work = (async () => {
    while (running) await busy.step();
  })();
  work.catch(() => {});
  for (let kills = 0; kills < KILLS; kills++) {
    await new Promise(resolve => setTimeout(resolve, random.below(300)));
    await daemon.end(kills % 3 === 2 ? 'SIGTERM' : 'SIGKILL');
    daemon = await start();
    const { connected, badRequests } = await daemon.control
      .guest('a')
      .then(({ connected, counters }) => ({ connected, badRequests: counters.badRequests }));
    expect({ connected, badRequests }, daemon.log).toEqual({ connected: true, badRequests: 0 });
  }
  running = false;
  await work;
  const status = await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
  expect(status.balloonedBytes).toBe(busy.balloonedPages * PAGE_SIZE);
  expect(status.actualBytes).toBe(busy.balloonedPages * PAGE_SIZE);
  expect(guest.frontend.connected).toBe(true);
  expect(guest.brokenRings).toEqual([]);
  busy.verify();
  // All that it gave is back at the host, whichever daemon it gave it to.
  const kept = (FIRST_PAGE + PIECES * PIECE_PAGES - busy.balloonedPages) * PAGE_SIZE;
  expect(guest.residentBytes).toBeLessThanOrEqual(kept);
  guest.close();
  loop.close();
  await daemon.end();
}, 600_000);
