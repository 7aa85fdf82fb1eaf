/** A guest that stands by: restored from what was saved while it ran, and to become what it was saved as later. */
import { expect, test } from 'vitest';
import { Guest } from '../../src/guest/guest.ts';
import { PageState } from '../../src/guest/page-state.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { heapMemory } from './guest.ts';

const SIZE = 32;
const PAGES = (SIZE * 2 ** 20) / PAGE_SIZE;
const standing = (pages = PageState.backed(PAGES)) => ({ memory: heapMemory(SIZE), pages });

function busyGuest() {
  const guest = Guest.boot({ memory: heapMemory(SIZE), seed: 5 });
  const process = guest.kernel.spawn('user');
  for (let page = 0; page < 3000; page++) process.write(page);
  for (let page = 0; page < 3000; page += 7) process.unmap(page);
  return { guest, process };
}

test('becomes a later one where only what passes by itself has changed', () => {
  const { guest } = busyGuest();
  const before = guest.save();
  guest.kernel.events.allocStalls += 3;
  guest.step(10);
  const later = guest.save();
  expect(Buffer.compare(before, later)).not.toBe(0);
  const there = Guest.restore(standing(), before);
  expect(there.becomeLater(before, later)).toBe(true);
  expect(Buffer.compare(there.save(), later)).toBe(0);
});

test('does not become one that has used its memory since, and is left as it was', () => {
  const { guest, process } = busyGuest();
  const before = guest.save();
  process.write(0);
  const later = guest.save();
  const there = Guest.restore(standing(), before);
  expect(there.becomeLater(before, later)).toBe(false);
  expect(Buffer.compare(there.save(), before)).toBe(0);
});

test('leaves page states behind that serve for another one', () => {
  const { guest, process } = busyGuest();
  const before = guest.save();
  process.exit();
  const other = guest.kernel.spawn('other', { pinned: true });
  for (let page = 0; page < 500; page++) other.write(page);
  const later = guest.save();
  const pages = PageState.backed(PAGES);
  Guest.restore(standing(pages), before);
  pages.reset();
  const there = Guest.restore(standing(pages), later);
  expect(Buffer.compare(there.save(), later)).toBe(0);
  there.kernel.checkInvariants();
  // What is free has no owner, whichever guest had it before.
  expect(pages.owner.every((owner, pfn) => owner === 0 || there.kernel.allocator.isAllocated(pfn))).toBe(
    true,
  );
});
