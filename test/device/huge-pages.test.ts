/** Memory that the host can take back in whole huge pages only: it is collected until one is complete. */
import { afterAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { FIRST_PAGE, openRig, withoutMustTellHost } from '../support/device-rig.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';

const P = FIRST_PAGE;
/** Pages in a huge page of 2 MiB. */
const H = 512;
const MEMORY_BYTES = 8 * HUGE_PAGE_SIZE;

afterAll(() => expect(openDescriptorCount()).toBe(0));

describe('memory in units of 2 MiB', () => {
  const open = () => openRig({ discardUnit: HUGE_PAGE_SIZE, memoryBytes: MEMORY_BYTES });

  test('a huge page is pending when its last small page was given, and not before', () => {
    const rig = open();
    rig.inflate([P, H - 1]);
    expect(rig.pendingPages).toBe(0);
    rig.inflate([P + H - 1, 1]);
    expect(rig.pendingPages).toBe(H);
    expect(rig.balloonedPages).toBe(H);
  });

  test('what waits for whole huge pages is counted as pages are given, taken back and forgotten', () => {
    const rig = open();
    const { accounts } = rig.device;
    const waitingAfter = (step: () => void) => {
      step();
      return accounts.incompletePages;
    };
    // 1 1/2 huge pages and a single page of another.
    expect(waitingAfter(() => rig.inflate([P, H + H / 2], [P + 3 * H + 7, 1]))).toBe(H / 2 + 1);
    // Given twice, it counts once; a whole one that is given again stays whole.
    expect(waitingAfter(() => rig.inflate([P + 3 * H + 7, 1], [P, H]))).toBe(H / 2 + 1);
    expect(waitingAfter(() => rig.inflate([P + H + H / 2, H / 2]))).toBe(1);
    // One page of a whole one that is taken back leaves the others waiting; taken twice, nothing changes.
    expect(waitingAfter(() => rig.deflate([P, 1]))).toBe(H);
    expect(waitingAfter(() => rig.deflate([P, 1], [P + 5 * H, 3]))).toBe(H);
    expect(waitingAfter(() => rig.device.drain())).toBe(H);
    expect(waitingAfter(() => rig.inflate([P, 1]))).toBe(1);
    expect(waitingAfter(() => rig.device.reset())).toBe(0);
  });

  test('of memory that can be given back page by page, nothing waits for huge pages', () => {
    const rig = openRig({ memoryBytes: MEMORY_BYTES });
    rig.inflate([P, H + 3]);
    expect(rig.device.accounts.incompletePages).toBe(0);
  });

  test('is never rounded outwards', () => {
    const rig = open();
    rig.touch(P, 3 * H, 0x42);
    rig.inflate([P + 1, 3 * H - 2]);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x42);
    expect(rig.contentOf(P + H - 1)).toBe(0x42);
    expect(rig.contentOf(P + H)).toBe(0);
    expect(rig.contentOf(P + 2 * H - 1)).toBe(0);
    expect(rig.contentOf(P + 2 * H)).toBe(0x42);
    expect(rig.contentOf(P + 3 * H - 1)).toBe(0x42);
    expect(rig.device.inflation.discards).toMatchObject({ bytes: HUGE_PAGE_SIZE, punches: 1 });
  });

  test('pages in any order make up a huge page, and those given twice count once', () => {
    const rig = open();
    const order = Array.from({ length: H }, (_, index) => P + ((index * 37) % H));
    for (const pfn of order) rig.inflate([pfn, 1]);
    expect(rig.pendingPages).toBe(H);
    const other = open();
    for (let time = 0; time < H; time++) other.inflate([P, 1]);
    expect(other.pendingPages).toBe(0);
    expect(other.balloonedPages).toBe(1);
  });

  test('one page that is taken back keeps its whole huge page', () => {
    const rig = open();
    rig.touch(P, H, 0x24);
    rig.inflate([P, H]);
    rig.deflate([P + 100, 1]);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x24);
    expect(rig.contentOf(P + 100)).toBe(0x24);
    expect(rig.device.accounts.keptPages).toBe(H);
    // Given again, it is complete again.
    rig.inflate([P + 100, 1]);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0);
  });

  test('a huge page that was discarded is discarded again only when it was completed again', () => {
    const rig = open();
    rig.inflate([P, H]);
    rig.device.drain();
    rig.deflate([P, 8]);
    rig.touch(P, 8, 0x99);
    rig.inflate([P, 4]);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x99);
    rig.inflate([P + 4, 4]);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0);
    expect(rig.balloonedPages).toBe(H);
  });

  test('a reset forgets how far a huge page was filled', () => {
    const rig = open();
    rig.inflate([P, H - 1]);
    rig.device.reset();
    rig.device.setFeatures(rig.features);
    for (const queue of rig.queues) queue.start();
    rig.inflate([P + H - 1, 1]);
    expect(rig.pendingPages).toBe(0);
  });

  test('of a report, whole huge pages are discarded and the rest is left as it is', () => {
    const rig = open();
    rig.touch(P, 3 * H, 0x51);
    rig.queue('reporting').exchange({ in: [[(P + 8) * PAGE_SIZE, 2 * HUGE_PAGE_SIZE]] });
    expect(rig.contentOf(P + 8)).toBe(0x51);
    expect(rig.contentOf(P + H)).toBe(0);
    expect(rig.contentOf(P + 2 * H - 1)).toBe(0);
    expect(rig.contentOf(P + 2 * H)).toBe(0x51);
    expect(rig.device.reporting.totals.bytes).toBe(HUGE_PAGE_SIZE);
  });

  test('per-page discards nothing, for no page can be discarded alone', () => {
    const rig = open();
    rig.device.inflation.mode = 'per-page';
    rig.touch(P, H, 0x52);
    rig.inflate([P, H]);
    expect(rig.contentOf(P)).toBe(0x52);
    expect(rig.balloonedPages).toBe(H);
  });
});

const pool = reserveHugePages(MEMORY_BYTES / HUGE_PAGE_SIZE);
afterAll(() => pool.release());

describe.skipIf(pool.missing !== undefined)('huge pages of the host', () => {
  const open = (options = {}) =>
    openRig({ memory: { hugePageSize: HUGE_PAGE_SIZE }, memoryBytes: MEMORY_BYTES, ...options });

  test('come back to the host complete, one by one, before their last buffer is returned', () => {
    const rig = open(withoutMustTellHost);
    expect(rig.region.backing.kind).toBe('hugetlb');
    expect(rig.region.backing.discardUnit).toBe(HUGE_PAGE_SIZE);
    rig.touch(P, 2 * H);
    expect(rig.residentBytes).toBe(3 * HUGE_PAGE_SIZE);
    rig.inflate([P, H - 1]);
    expect(rig.residentBytes).toBe(3 * HUGE_PAGE_SIZE);
    rig.inflate([P + H - 1, 2]);
    expect(rig.residentBytes).toBe(2 * HUGE_PAGE_SIZE);
    expect(rig.contentOf(P + H)).toBe(0xa5);
    rig.inflate([P + H + 1, H - 1]);
    expect(rig.residentBytes).toBe(HUGE_PAGE_SIZE);
    expect(rig.host.failures).toEqual([]);
  });

  test('keep what they hold when a part of them is taken back in time', () => {
    const rig = open();
    rig.touch(P, H, 0x61);
    rig.inflate([P, H]);
    rig.deflate([P + 5, 1]);
    rig.device.drain();
    expect(rig.residentBytes).toBe(2 * HUGE_PAGE_SIZE);
    expect(rig.contentOf(P)).toBe(0x61);
  });

  test('are discarded when they are reported whole', () => {
    const rig = open();
    rig.touch(P, H);
    rig.queue('reporting').exchange({ in: [[P * PAGE_SIZE, HUGE_PAGE_SIZE]] });
    expect(rig.residentBytes).toBe(HUGE_PAGE_SIZE);
    expect(rig.contentOf(P)).toBe(0);
  });
});
