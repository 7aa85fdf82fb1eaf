/**
 * A machine of another process arrives here over TCP, by every free page channel and by none, and at the stop, when
 * everything has come and nothing runs, both memories are compared page by page: what the guest uses is the same in both,
 * by the guest's own books and by no log. Then the guest goes on here, and its balloon is steered from here.
 */
import { openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import type { MigrationStatus } from '../../src/control/migrations.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Ram } from '../../src/migration/ram.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { formatTransferAddress } from '../../src/transfer/address.ts';
import { systemClock } from '../../src/transfer/clock.ts';
import { TransferListener } from '../../src/transfer/listener.ts';
import { FREE_PAGE_CHANNELS } from '../../src/vm/free-page-channel.ts';
import { IncomingVm, MigrationDestination } from './built.ts';
import { compareMemories } from './journey.ts';
import { expectAlive } from './machines.ts';
import { MachineProcess } from './processes.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 128 * MIB;
const BALLOON_BYTES = 16 * MIB;

const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** The memory of a machine in another process, by its file. */
function memoryOf(pid: number): Ram {
  const directory = `/proc/${pid}/fd`;
  const path = readdirSync(directory)
    .map(name => `${directory}/${name}`)
    .find(name => {
      try {
        return readlinkSync(name).startsWith('/memfd:') && statSync(name).size === MEMORY_BYTES;
      } catch {
        // It was closed meanwhile.
        return false;
      }
    });
  if (path === undefined) throw new Error('the machine has no memory');
  const memory = new GuestMemory();
  const backing = new FileBacking(new OwnedFd(openSync(path, 'r+')), 0, MEMORY_BYTES);
  memory.add(new MemoryRegion({ guestAddress: 0, size: MEMORY_BYTES, userAddress: 0 }, backing));
  closing.push(async () => memory.close());
  return new Ram(memory);
}

const CASES = [
  ['none', 'virtio'],
  ...Object.entries(FREE_PAGE_CHANNELS).flatMap(([name, { profiles }]) =>
    profiles.map(profile => [name, profile] as const),
  ),
] as const;

test.each(CASES)('by channel %s (%s) both memories are alike at the stop', async (channel, profile) => {
  const source = await MachineProcess.vm(
    ...['--memory', '128M', '--whole', '--target', '16M', '--profile', profile],
  );
  closing.push(() => source.close());
  await source.tell({ do: 'use', bytes: 16 * MIB });
  await source.tell({ do: 'settle' });
  await source.tell({ do: 'touch' });
  await source.tell({ do: 'start', workload: 'churn', bytes: 24 * MIB });
  const here = memoryOf(source.pid);
  const place = await IncomingVm.open({ name: 'vm', warmUp: 'brief' });
  closing.push(() => place.close());
  let compared: ReturnType<typeof compareMemories> | undefined;
  const destination = new MigrationDestination({
    machine: {
      createMemory: regions => place.createMemory(regions),
      load: async states => {
        compared = compareMemories(states, here, place.ram);
        await place.load(states);
      },
      run: () => place.run(),
      abandon: () => place.abandon(),
    },
    ramOf: () => place.ram,
    memoryBytesMax: MEMORY_BYTES,
    clock: systemClock,
  });
  const listener = await TransferListener.open({
    address: { host: '127.0.0.1', port: 0 },
    accept: inlet => destination.accept(inlet),
  });
  closing.push(() => listener.close());
  const to = `tcp:${formatTransferAddress(listener.address)}`;
  await source.control.migrate('vm', { to, channel, connections: 2 });
  let status: MigrationStatus | null = null;
  const isOver = async () => {
    status = (await source.control.migration('vm')).migration;
    return status?.report != null || status?.error != null;
  };
  await expect.poll(isOver, { timeout: 60_000 }).toBe(true);
  const { report, error } = status as unknown as MigrationStatus;
  expect(error).toBeNull();
  await destination.outcome;
  // What it was told to use, and its own kernel.
  expect((compared?.used ?? 0) * 4096).toBeGreaterThan(16 * MIB);
  expect(compared?.unused).toBeGreaterThan(0);
  expect(report?.balloonPages).toBe(BALLOON_BYTES / PAGE_SIZE);
  if (channel === 'none') expect(report?.freePages).toBe(0);
  // Reports come when they come; and what is reported is often with the host no more, and so not there to be skipped.
  else if (channel !== 'reporting' && channel !== 'hinting') expect(report?.freePages).toBeGreaterThan(0);
  // Its driver asks for the target anew when it goes on.
  await expect
    .poll(() => place.vm.command({ do: 'status' }))
    .toMatchObject({ profile, targetBytes: BALLOON_BYTES, workloads: ['churn'] });
  await expectAlive(place.vm, BALLOON_BYTES);
  expect(await source.ended).toBe(0);
});
