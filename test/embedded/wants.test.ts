/** What an embedded guest's programs want at the moment: one process that follows, files beside it, a kill that is told. */
import { expect, test } from 'vitest';
import type { Task } from '../../src/embedded/processor.ts';
import { Wants } from '../../src/embedded/wants.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import { heapMemory } from '../guest/guest.ts';

const PAGES = 8192;

function run(task: Task): void {
  for (let used = 1; !task.done && used > 0; ) used = task.step(1000);
}

test('a process grows and shrinks to what is wanted, and what is wanted anew ends what was before', () => {
  const kernel = new GuestKernel({ memory: heapMemory(PAGES / 256) });
  const wants = new Wants(kernel);
  const large = wants.want({ pages: 3000, filePages: 0, readPages: 0 });
  large.step(500);
  expect([large.done, wants.heldPages]).toEqual([false, 500]);
  const small = wants.want({ pages: 100, filePages: 1000, readPages: 400 });
  expect(large.done).toBe(true);
  run(small);
  expect([small.done, wants.heldPages, kernel.cache.pages]).toEqual([true, 100, 400]);
  kernel.checkInvariants();
});

test('files fill what programs leave, and never kill for it; programs that want more than there is are killed', () => {
  const kernel = new GuestKernel({ memory: heapMemory(PAGES / 256) });
  const wants = new Wants(kernel);
  run(wants.want({ pages: 4000, filePages: 20_000, readPages: 20_000 }));
  expect(wants.heldPages).toBe(4000);
  expect(kernel.cache.pages).toBeGreaterThan(2000);
  expect(kernel.events.oomKills).toBe(0);
  const all = wants.want({ pages: 2 * PAGES, filePages: 20_000, readPages: 0 });
  expect(() => run(all)).toThrow(/was killed: the guest is out of memory/);
  expect([kernel.events.oomKills, wants.heldPages]).toEqual([1, 0]);
  run(wants.want({ pages: 50, filePages: 0, readPages: 0 }));
  expect([wants.heldPages, kernel.cache.pages]).toEqual([50, 0]);
});
