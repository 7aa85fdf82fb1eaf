import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { DirtyLog } from '../../src/migration/dirty-log.ts';
import { KernelDirtyLog } from '../../src/migration/kernel-dirty-log.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import { BALLOON, busyVm, closeAll, inflate, MIB, pause } from './machines.ts';

afterEach(closeAll);

const kernelLogs = ((): string | undefined => {
  try {
    new KernelDirtyLog([]).close();
    return undefined;
  } catch (error) {
    return String(error);
  }
})();

function taken(log: DirtyLog, slots: number): SlotBitmap {
  const into = new SlotBitmap(slots);
  log.collect(0, slots, into);
  return into;
}

function contentsOf({ ram }: VmType): Uint8Array {
  const bytes = new Uint8Array(ram.slots * PAGE_SIZE);
  ram.read(0, ram.slots, bytes, 0);
  return bytes;
}

const pagesWhere = (slots: number, holds: (slot: number) => boolean): number[] =>
  Array.from({ length: slots }, (_, slot) => slot).filter(holds);

/** Lets a guest, its driver and its device work for a while; nothing is discarded meanwhile. */
async function work(vm: VmType): Promise<void> {
  await vm.resume();
  for (let sample = 0; sample < 10; sample++) {
    await vm.control.statistics(vm.name, { freshMs: 0 });
    await vm.control.hint(vm.name, { action: sample % 2 === 0 ? 'start' : 'done' });
    await pause(10);
  }
  await inflate(vm, BALLOON / 2);
  await vm.stop();
}

describe('the write log of a machine', () => {
  test('has every page that guest, driver or device changed', async () => {
    const vm = await busyVm({ memoryBytes: 64 * MIB, without: ['page-reporting'] });
    await vm.stop();
    taken(vm.log, vm.ram.slots);
    const before = contentsOf(vm);
    await work(vm);
    const log = taken(vm.log, vm.ram.slots);
    const after = contentsOf(vm);
    const changed = pagesWhere(vm.ram.slots, slot => {
      const [from, to] = [slot * PAGE_SIZE, (slot + 1) * PAGE_SIZE];
      return Buffer.compare(before.subarray(from, to), after.subarray(from, to)) !== 0;
    });
    expect(changed.length).toBeGreaterThan(100);
    expect(changed.filter(slot => !log.has(slot))).toEqual([]);
    // And it is a log, not all of memory.
    expect(log.countIn()).toBeLessThan(vm.ram.slots / 2);
  });

  test.skipIf(kernelLogs)('has what the kernel saw, and the kernel saw what it has', async () => {
    const vm = await busyVm({ memoryBytes: 64 * MIB, without: ['page-reporting'] });
    await vm.stop();
    const kernel = new KernelDirtyLog(await vm.mappings());
    try {
      taken(kernel, vm.ram.slots);
      taken(vm.log, vm.ram.slots);
      await work(vm);
      const [seen, kept] = [taken(kernel, vm.ram.slots), taken(vm.log, vm.ram.slots)];
      expect(seen.countIn()).toBeGreaterThan(100);
      expect(pagesWhere(vm.ram.slots, slot => seen.has(slot) && !kept.has(slot))).toEqual([]);
      // The driver's own pages are marked at every stop, for the device may have written to them.
      const unseen = pagesWhere(vm.ram.slots, slot => kept.has(slot) && !seen.has(slot));
      expect(unseen.length * PAGE_SIZE).toBeLessThan((await vm.command({ do: 'status' })).ownBytes);
    } finally {
      kernel.close();
    }
  });
});
