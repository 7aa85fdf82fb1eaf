import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import { vmControl } from './built.ts';
import { BALLOON, busyVm, closeAll, expectAlive, pause } from './machines.ts';

afterEach(closeAll);

function digestOf({ ram }: VmType): string {
  const bytes = Buffer.alloc(ram.memory.size);
  ram.read(0, ram.slots, bytes, 0);
  return createHash('sha256').update(bytes).digest('hex');
}

describe('a machine that stands still, to be saved and sent,', () => {
  test('does what it is told when it goes on, and stays as it is until then', async () => {
    const vm = await busyVm();
    await vm.stop();
    const memory = digestOf(vm);
    const told = [
      vm.command({ do: 'age', degree: 0.5, touch: true }),
      vm.command({ do: 'compact' }),
      vm.command({ do: 'start', workload: 'churn', bytes: 2 ** 20 }),
    ];
    for (const one of told) one.catch(() => {});
    await pause(50);
    expect(digestOf(vm)).toBe(memory);
    // To look at it changes nothing.
    expect((await vm.command({ do: 'verify' })).checkedBytes).toBeGreaterThan(0);
    await vm.resume();
    await Promise.all(told);
    expect(digestOf(vm)).not.toBe(memory);
    await expectAlive(vm);
  });

  test('takes its target with it, or learns of it when it goes on', async () => {
    const vm = await busyVm();
    const control = vmControl(vm);
    await vm.stop();
    const set = control.change(vm.name, { targetBytes: BALLOON / 2 });
    await pause(20);
    expect((await control.guest(vm.name)).targetBytes).toBe(BALLOON);
    await vm.resume();
    expect((await set).targetBytes).toBe(BALLOON / 2);
  });

  test('is connected to nothing here once it was let go', async () => {
    const vm = await busyVm();
    const control = vmControl(vm);
    await vm.stop();
    expect((await control.guest(vm.name)).connected).toBe(true);
    await vm.handOver();
    expect((await control.guests()).map(({ connected }) => connected)).toEqual([false]);
    await expect(control.change(vm.name, { targetBytes: 0 })).rejects.toThrow('vm is gone');
  });

  test('does none of it once it has left, and says so', async () => {
    const vm = await busyVm();
    await vm.stop();
    const told = expect(vm.command({ do: 'compact' })).rejects.toThrow('is gone');
    await vm.handOver();
    await told;
  });
});
