/**
 * Pages that lie far apart wait for neighbours before they are discarded (memory/patient-discarder.ts). Here, with the
 * daemon's own threads and real memory: what waits may be taken back with all that it holds, and what is not goes back to
 * the host, whether neighbours come or not.
 */
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest, PFNS_PER_BUFFER } from './hand-guest.ts';

const MIB = 2 ** 20;
/** Far more than what is too little to wait. */
const PAGES = (384 * MIB) / PAGE_SIZE;
const END = FIRST_PAGE + PAGES;

let loop: TestLoop;
let daemon: DaemonProcess;
let guest: HandGuest;
let openBefore: number;

beforeAll(build);

beforeEach(async () => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
  daemon = await DaemonProcess.start(['a']);
  guest = await HandGuest.connect(daemon.socketOf('a'), { loop, memoryBytes: 400 * MIB });
  for (let page = FIRST_PAGE; page < END; page++) guest.memory.setU32(page * PAGE_SIZE, page);
});

afterEach(async () => {
  guest.close();
  await daemon.stop();
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

/** Sends every `step`th page, in buffers of Linux's size. */
async function send(role: 'inflate' | 'deflate', first: number, step: number): Promise<void> {
  const queue = guest.queue(role);
  for (let page = first; page < END; ) {
    let buffers = 0;
    while (page < END) {
      const pfns = new Uint32Array(Math.min(PFNS_PER_BUFFER, Math.ceil((END - page) / step)));
      for (const index of pfns.keys()) pfns[index] = page + index * step;
      if (!queue.add({ out: new Uint8Array(pfns.buffer) })) break;
      page += pfns.length * step;
      buffers++;
    }
    queue.kick();
    await queue.returned(buffers);
  }
}

const resident = () => guest.residentBytes / PAGE_SIZE - FIRST_PAGE;

test('half of all pages, every other one, go back to the host though no neighbours come', async () => {
  await send('inflate', FIRST_PAGE, 2);
  await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
  expect(resident()).toBe(PAGES / 2);
  for (let page = FIRST_PAGE + 1; page < END; page += 2) {
    if (guest.memory.u32(page * PAGE_SIZE) !== page) expect.unreachable(`page ${page} is lost`);
  }
});

test('pages that are taken back while they wait, or are discarded, hold what they held, or nothing, and stay', async () => {
  for (let round = 0; round < 3; round++) {
    await send('inflate', FIRST_PAGE, 2);
    // Every fourth of all comes back at once, and is written to: as soon as the device says so, it is the guest's.
    await send('deflate', FIRST_PAGE, 4);
    for (let page = FIRST_PAGE; page < END; page += 4) {
      const held = guest.memory.u32(page * PAGE_SIZE);
      if (held !== 0 && held !== page) expect.unreachable(`page ${page} holds ${held}`);
      guest.memory.setU32(page * PAGE_SIZE, page);
    }
    await send('inflate', FIRST_PAGE + 1, 4);
    await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
    for (let page = FIRST_PAGE; page < END; page++) {
      const mine = (page - FIRST_PAGE) % 4 === 0 || (page - FIRST_PAGE) % 4 === 3;
      if (mine && guest.memory.u32(page * PAGE_SIZE) !== page) expect.unreachable(`page ${page} is lost`);
    }
    expect((await daemon.control.guest('a')).balloonedBytes).toBe((PAGES / 2) * PAGE_SIZE);
    await send('deflate', FIRST_PAGE + 1, 4);
    await send('deflate', FIRST_PAGE + 2, 4);
  }
  expect((await daemon.control.guest('a')).balloonedBytes).toBe(0);
});
