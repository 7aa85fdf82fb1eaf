/** What a machine says of how fast its guest writes: counted, bounded, and unknown where it is unknown. */
import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { SoftwareDirtyLog } from '../../src/migration/dirty-log.ts';
import { monotonicMs } from '../../src/sys/poll.ts';
import { vmControl } from '../../src/vm/vm-control.ts';
import { WriteRate } from '../../src/vm/write-rate.ts';
import { Vm } from './built.ts';
import { closeAll, MIB, open } from './machines.ts';

afterEach(closeAll);

describe('the rate at which a guest writes', () => {
  test('is unknown at first, then what was written between two looks, each page once', () => {
    let nowMs = 0;
    const log = new SoftwareDirtyLog(10_000);
    const rate = new WriteRate(log, () => nowMs);
    log.add(0, 10_000);
    expect(rate.look()).toBeNull();
    log.add(100, 500);
    log.add(100, 500);
    nowMs += 2000;
    expect(rate.look()).toBe((500 * PAGE_SIZE) / 2);
    // A look that comes too soon neither says nor forgets anything.
    log.add(0, 1000);
    nowMs += 100;
    expect(rate.look()).toBe((500 * PAGE_SIZE) / 2);
    nowMs += 900;
    expect(rate.look()).toBe(1000 * PAGE_SIZE);
    nowMs += 1000;
    expect(rate.look()).toBe(0);
  });

  test('is unknown after a long silence, and after a migration had the log', () => {
    let nowMs = 0;
    const log = new SoftwareDirtyLog(1000);
    const rate = new WriteRate(log, () => nowMs);
    rate.look();
    nowMs += 3_600_000;
    expect(rate.look()).toBeNull();
    nowMs += 1000;
    expect(rate.look()).toBe(0);
    rate.forget();
    nowMs += 1000;
    expect(rate.look()).toBeNull();
  });

  test('of much memory is estimated by looking at a part of it, another one each time', () => {
    let nowMs = 0;
    /** 64 GiB. */
    const slots = 2 ** 24;
    class Counting extends SoftwareDirtyLog {
      looked = 0;
      override forget(start: number, count: number): number {
        this.looked += count;
        return super.forget(start, count);
      }
    }
    const log = new Counting(slots);
    const rate = new WriteRate(log, () => nowMs);
    rate.look();
    const rates: number[] = [];
    for (let window = 0; window < 8; window++) {
      for (let write = 0; write < 20_000; write++)
        log.add(((window * 20_000 + write) * 10_368_889) % slots, 1);
      nowMs += 1000;
      log.looked = 0;
      rates.push(rate.look() ?? Number.NaN);
      // Of the part that is counted, and of the one that is begun with.
      expect(log.looked).toBeLessThanOrEqual(2 ** 21);
    }
    const mean = rates.reduce((sum, each) => sum + each, 0) / rates.length;
    expect(mean / (20_000 * PAGE_SIZE)).toBeGreaterThan(0.9);
    expect(mean / (20_000 * PAGE_SIZE)).toBeLessThan(1.1);
  });

  test('is told of a machine by its control, and is what its guest wrote', async () => {
    const vm = open(await Vm.start({ memoryBytes: 64 * MIB }));
    const control = vmControl(vm);
    const beganMs = monotonicMs();
    expect((await control.migration(vm.name)).dirtyBytesPerSecond).toBeNull();
    await vm.command({ do: 'use', bytes: 16 * MIB });
    const told = async () => (await control.migration(vm.name)).dirtyBytesPerSecond;
    await expect.poll(told, { timeout: 20_000, interval: 50 }).not.toBeNull();
    // What is counted lies between the two questions, and they no further apart than this.
    const bytes = ((await told()) ?? 0) * ((monotonicMs() - beganMs) / 1000);
    expect(bytes).toBeGreaterThan(15 * MIB);
  });
});
