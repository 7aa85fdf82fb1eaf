/**
 * The guest of shared.test.ts, in a process of its own: it allocates, writes, checks and frees blocks of all sizes as fast as
 * it can, and exits with what it found wrong. Every page that it has is filled with a value of its own; every block that
 * was freed may be gone.
 */
import { SharedGuest } from '../../dist/embedded/shared-guest.js';
import { FIXED_PAGES, FREE_BLOCK, SPARE_PAGES } from '../../dist/memory/kernel-memory.js';
import { gpaOf } from '../../dist/memory/page.js';

const [socketPath, memoryBytes, seed] = process.argv.slice(2);
const guest = await SharedGuest.start({ socketPath, memoryBytes: Number(memoryBytes) });
const { kernel, memory } = guest;
const owner = kernel.addOwner({ name: 'programs', contents: 'kept' });
const blocks = [];
const wrong = [];
let pages = 0;
let checked = 0;
let blocked = 0;
let state = Number(seed);
const below = bound => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * bound);
};

/** First and last word of a page. */
const wordsOf = page => [gpaOf(page), gpaOf(page) + 4092];

function fill({ pfn, order, value }) {
  for (let page = pfn; page < pfn + 2 ** order; page++) {
    for (const at of wordsOf(page)) memory.setU32(at, (value ^ page) >>> 0);
  }
}

function check({ pfn, order, value }, times) {
  for (let page = pfn; page < pfn + 2 ** order; page++) {
    for (const at of wordsOf(page)) {
      const found = memory.u32(at);
      checked++;
      if (found !== (value ^ page) >>> 0)
        wrong.push(`${times}: page ${page} of order ${order} holds ${found}`);
    }
  }
}

function allocate() {
  const order = [0, 0, 3, 9, 9, 10][below(6)];
  const purpose = [SPARE_PAGES, FIXED_PAGES, FREE_BLOCK][below(3)];
  const pfn = kernel.allocateFor(purpose, order);
  if (pfn < 0) {
    blocked++;
    return false;
  }
  kernel.own(pfn, owner);
  if (purpose === FIXED_PAGES) {
    for (let page = pfn; page < pfn + 2 ** order; page++) {
      for (const at of wordsOf(page)) if (memory.u32(at) !== 0) wrong.push(`page ${page} was to be zeros`);
    }
  }
  const block = { pfn, order, value: below(2 ** 32) };
  fill(block);
  blocks.push(block);
  pages += 2 ** order;
  return true;
}

function free() {
  const [block] = blocks.splice(below(blocks.length), 1);
  check(block, 'at its end');
  kernel.free(block.pfn, block.order);
  pages -= 2 ** block.order;
}

/** A stretch of work between two looks at the loop. */
function work() {
  const wanted = below((Number(memoryBytes) / 4096) * 0.7);
  for (let step = 0; step < 200; step++) {
    if (pages < wanted && allocate()) continue;
    if (blocks.length > 0) free();
  }
  if (blocks.length > 0) check(blocks[below(blocks.length)], 'in use');
}

let running = true;
process.on('message', message => {
  if (message === 'end') running = false;
  else process.send({ checked, blocked, wrong });
});
process.send('ready');
while (running && wrong.length === 0) {
  work();
  await new Promise(resolve => setImmediate(resolve));
}
for (const block of blocks) check(block, 'at the end');
while (blocks.length > 0) free();
// What the host held comes back as soon as nothing is under way on it: every page is the guest's again, or its driver's.
const allPages = Number(memoryBytes) / 4096 - kernel.frames.reservedPages;
while (kernel.frames.freePages + guest.driver.ownPages < allPages)
  await new Promise(resolve => setImmediate(resolve));
process.send(
  {
    checked,
    blocked,
    wrong: wrong.slice(0, 10),
    freePages: kernel.frames.freePages,
    interrupts: guest.driver.counters.interrupts,
  },
  async () => {
    await guest.close();
    process.disconnect();
  },
);
