/** Machines for tests, with memory of every kind, and what shows that one lives. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, vi } from 'vitest';
import type { VmOptions } from '../../src/vm/options.ts';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import { Vm } from './built.ts';

export const MIB = 2 ** 20;
export const BALLOON = 16 * MIB;

const opened: { close(): Promise<void> }[] = [];

/** Closed by {@link closeAll}. */
export function open<T extends { close(): Promise<void> }>(machine: T): T {
  opened.push(machine);
  return machine;
}

export async function closeAll(): Promise<void> {
  for (const machine of opened.splice(0).reverse()) await machine.close();
}

/** A guest with used, freed, ballooned and untouched memory, and a workload that never rests. */
export async function busyVm(options: Partial<VmOptions> = {}): Promise<VmType> {
  const vm = open(await Vm.start({ memoryBytes: 128 * MIB, pagesPerSecondMax: 60_000, ...options }));
  await vm.command({ do: 'touch', bytes: 64 * MIB });
  await vm.command({ do: 'use', bytes: 16 * MIB });
  await vm.command({ do: 'start', workload: 'churn', bytes: 4 * MIB });
  await inflate(vm, BALLOON);
  // Hints name blocks of 4 MiB.
  await vm.command({ do: 'compact' });
  return vm;
}

const balloonOf = async (vm: VmType): Promise<number | null> =>
  (await vm.control.guest(vm.name)).balloonedBytes;

export async function inflate(vm: VmType, bytes: number): Promise<void> {
  await vm.control.change(vm.name, { targetBytes: bytes, force: true });
  await vi.waitFor(async () => expect(await balloonOf(vm)).toBe(bytes), { timeout: 60_000, interval: 5 });
  await vm.command({ do: 'settle' });
}

/** The guest works, finds what it wrote, and its balloon is what it was and still answers. */
export async function expectAlive(vm: VmType, balloonBytes = BALLOON): Promise<void> {
  expect(vm.state).toBe('running');
  const worked = async () => {
    const { pagesAllocated, minorFaults } = (await vm.command({ do: 'status' })).vmstat;
    return pagesAllocated + minorFaults;
  };
  const before = await worked();
  await expect.poll(worked, { timeout: 60_000 }).toBeGreaterThan(before);
  const status = await vm.command({ do: 'status' });
  expect(status.driver).toBe('running');
  expect(status.actualBytes).toBe(balloonBytes);
  expect(await balloonOf(vm)).toBe(balloonBytes);
  for (const bytes of [balloonBytes + 8 * MIB, balloonBytes - 8 * MIB, balloonBytes])
    await inflate(vm, bytes);
  expect((await vm.command({ do: 'verify' })).checkedBytes).toBeGreaterThan(16 * MIB);
  const { counters, lastError } = await vm.control.guest(vm.name);
  expect({ ...counters, lastError }).toMatchObject({
    badBuffers: 0,
    badPages: 0,
    brokenRings: 0,
    lastError: null,
  });
}

/** Hinted blocks are the guest's again: what is free is so in its own books. */
export async function expectNothingHeld(vm: VmType): Promise<void> {
  const heldBytes = async () => {
    const { memory, heldBytes: ballooned, ownBytes } = await vm.command({ do: 'status' });
    return memory.totalBytes - memory.freeBytes - ballooned - ownBytes;
  };
  await expect.poll(heldBytes, { timeout: 60_000 }).toBeLessThan(40 * MIB);
}

export const pause = (ms: number): Promise<void> => delay(ms);
