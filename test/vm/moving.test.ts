import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import type { ChannelName } from '../../src/vm/free-page-channel.ts';
import type { VmOptions, Vm as VmType } from '../../src/vm/vm.ts';
import { Vm } from './built.ts';
import { compareMemories, Journey, MIB } from './journey.ts';

const opened: VmType[] = [];

afterEach(async () => {
  for (const vm of opened.splice(0)) await vm.close();
});

/** A guest with used, freed, ballooned and untouched memory, and a workload that never rests. */
async function busyVm(options: Partial<VmOptions> = {}): Promise<VmType> {
  const vm = await Vm.start({ memoryBytes: 128 * MIB, pagesPerSecondMax: 60_000, ...options });
  opened.push(vm);
  await vm.command({ do: 'touch', bytes: 64 * MIB });
  await vm.command({ do: 'use', bytes: 16 * MIB });
  await vm.command({ do: 'start', workload: 'churn', bytes: 4 * MIB });
  await inflate(vm, 16 * MIB);
  // Hints name blocks of 4 MiB.
  await vm.command({ do: 'compact' });
  return vm;
}

async function balloonOf(vm: VmType): Promise<number | null> {
  return (await vm.control.guest(vm.name)).balloonedBytes;
}

async function inflate(vm: VmType, bytes: number): Promise<void> {
  await vm.control.setTarget(vm.name, bytes);
  await expect.poll(() => balloonOf(vm), { timeout: 10_000 }).toBe(bytes);
  await vm.command({ do: 'settle' });
}

/** The guest works, finds what it wrote, and its balloon still answers. */
async function expectAlive(vm: VmType, balloonBytes: number): Promise<void> {
  const before = (await vm.command({ do: 'status' })).vmstat;
  await delay(50);
  const after = await vm.command({ do: 'status' });
  expect(after.driver).toBe('running');
  expect(after.vmstat.pagesAllocated + after.vmstat.minorFaults).toBeGreaterThan(
    before.pagesAllocated + before.minorFaults,
  );
  expect(after.actualBytes).toBe(balloonBytes);
  expect(await balloonOf(vm)).toBe(balloonBytes);
  for (const target of [balloonBytes + 8 * MIB, balloonBytes - 8 * MIB]) await inflate(vm, target);
  expect((await vm.command({ do: 'verify' })).checkedBytes).toBeGreaterThan(16 * MIB);
  const { counters, lastError } = await vm.control.guest(vm.name);
  expect({ ...counters, lastError }).toMatchObject({
    badBuffers: 0,
    badPages: 0,
    brokenRings: 0,
    lastError: null,
  });
}

const CHANNELS: [ChannelName, ProfileName][] = [
  ['none', 'virtio'],
  ['hint', 'virtio'],
  ['reporting', 'virtio'],
  ['hint', 'sg'],
  ['unused-bitmap', 'page-bitmap'],
  ['order', 'page-order'],
  ['range', 'page-range'],
  ['chunks', 'page-chunks'],
  ['hinting', 'hinting'],
];

describe('a machine moves', () => {
  test.each(CHANNELS)(
    'with everything that its guest uses: channel %s, profile %s',
    async (channel, profile) => {
      const vm = await busyVm({ profile, driver: { reportingDelayMs: 100 } });
      let compared = { used: 0, unused: 0, verified: 0 };
      const journey = await Journey.of(vm, {
        channel,
        connections: 2,
        atTheStop: (...memories) => {
          compared = compareMemories(...memories);
        },
      });
      expect(journey.sourceError).toBeUndefined();
      opened.push(journey.there);
      expect(vm.state).toBe('gone');
      expect(journey.there.state).toBe('running');
      expect(compared.verified).toBeGreaterThan((16 * MIB) / 4096);
      const { summary } = journey;
      // The balloon's 16 MiB are not among what was sent, and with a channel that asks neither is most of what is free.
      expect(summary?.unbackedPages).toBeGreaterThanOrEqual((16 * MIB) / 4096);
      if (channel === 'none') expect(summary?.freePages).toBe(0);
      const asks = channel !== 'none' && channel !== 'reporting' && channel !== 'hinting';
      if (asks) expect(summary?.freePages).toBeGreaterThan((16 * MIB) / 4096);
      await expectAlive(journey.there, 16 * MIB);
    },
  );
});
