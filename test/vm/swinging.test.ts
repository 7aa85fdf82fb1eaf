/** An embedded guest that is asked for more than it can do without, and takes it back again and again (DEFLATE_ON_OOM). */
import { afterEach, expect, test, vi } from 'vitest';
import { Vm } from './built.ts';
import { closeAll, MIB, open } from './machines.ts';

afterEach(closeAll);

const PATIENCE = { timeout: 60_000, interval: 20 } as const;

test('a guest that gives and takes back is found to swing, is shown what it can hold, and comes to rest there', async () => {
  // A driver that finds no page tries again at once, where Linux waits for 0.2 s: so it swings as a busy guest does.
  const vm = open(await Vm.start({ memoryBytes: 64 * MIB, driver: { retryMs: 1 } }));
  const look = () => vm.control.guest(vm.name);
  await vm.command({ do: 'start', workload: 'churn', bytes: 24 * MIB });
  const targetBytes = 60 * MIB;
  await vm.control.change(vm.name, { targetBytes, force: true });
  await vi.waitFor(async () => expect((await look()).stuck?.swings).toBe(true), PATIENCE);
  const swings = await look();
  expect(swings.targetBytes).toBe(targetBytes);
  expect(swings.shownTargetBytes).toBeLessThan(targetBytes);
  const atRest = async () => {
    const { actualBytes, shownTargetBytes } = await look();
    expect(actualBytes).toBe(shownTargetBytes);
  };
  await vi.waitFor(atRest, PATIENCE);
  // At rest, work costs the balloon nothing. What it can hold may be found in more than one step.
  const worked = async () => (await vm.command({ do: 'status' })).vmstat.pagesAllocated;
  const deflatedMeanwhile = async (): Promise<number> => {
    const before = (await look()).counters.deflateBuffers;
    const begun = await worked();
    await vi.waitFor(async () => expect(await worked()).toBeGreaterThan(begun + 10_000), PATIENCE);
    return (await look()).counters.deflateBuffers - before;
  };
  await vi.waitFor(async () => expect(await deflatedMeanwhile()).toBe(0), PATIENCE);
  expect((await vm.command({ do: 'verify' })).checkedBytes).toBeGreaterThan(0);
  // What it can hold is a target like any other.
  await vm.control.change(vm.name, { targetBytes: 8 * MIB, force: true });
  await vi.waitFor(
    async () => expect(await look()).toMatchObject({ actualBytes: 8 * MIB, stuck: null }),
    PATIENCE,
  );
});
