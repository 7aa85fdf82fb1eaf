import { afterEach, describe, expect, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { KernelDirtyLog } from '../../src/migration/kernel-dirty-log.ts';
import { zstd } from '../../src/migration/stream/compression.ts';
import type { ChannelName } from '../../src/vm/free-page-channel.ts';
import type { VmOptions } from '../../src/vm/options.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { compareMemories, Journey, type JourneyOptions } from './journey.ts';
import { BALLOON, busyVm, closeAll, expectAlive, MIB, open } from './machines.ts';

afterEach(closeAll);

const PAGES_16_MIB = (16 * MIB) / PAGE_SIZE;

/** Moves a busy machine, and sees to it that nothing is lost on the way and that it goes on. */
async function move(options: Partial<VmOptions>, route: JourneyOptions) {
  const vm = await busyVm({ driver: { reportingDelayMs: 100 }, ...options });
  let compared = { used: 0, unused: 0, verified: 0 };
  const journey = await Journey.of(vm, {
    connections: 2,
    ...route,
    atTheStop: (...memories) => {
      compared = compareMemories(...memories);
    },
  });
  expect(journey.sourceError).toBeUndefined();
  open(journey.there);
  expect(vm.state).toBe('gone');
  expect(compared.verified).toBeGreaterThan(PAGES_16_MIB);
  await expectAlive(journey.there);
  return { vm, journey, compared };
}

/** Two of those that are asked, and none; digest.test.ts moves by all there are. */
const CHANNELS: [ChannelName, ProfileName][] = [
  ['none', 'virtio'],
  ['hint', 'virtio'],
  ['order', 'page-order'],
];

const kernelLogs = ((): string | undefined => {
  try {
    new KernelDirtyLog([]).close();
    return undefined;
  } catch (error) {
    return String(error);
  }
})();

describe('a machine moves with everything that its guest uses', () => {
  test.each(CHANNELS)('over channel %s of profile %s', async (channel, profile) => {
    const { journey } = await move({ profile }, { channel });
    const { summary } = journey;
    // What was given away is not sent, and where the guest is asked neither is most of what is free.
    expect(summary?.unbackedPages).toBeGreaterThanOrEqual(BALLOON / PAGE_SIZE);
    if (channel === 'none') expect(summary?.freePages).toBe(0);
    else expect(summary?.freePages).toBeGreaterThan(PAGES_16_MIB);
  });

  test.runIf(zstd !== undefined)('compressed, in fewer bytes than its pages have', async () => {
    const { journey } = await move({}, { channel: 'hint', compress: true });
    const { bytes = 0, pages = 0 } = journey.summary ?? {};
    expect(bytes).toBeLessThan((pages * PAGE_SIZE) / 2);
  });

  test('with packed rings', async () => {
    await move({ rings: 'packed' }, { channel: 'hint' });
  });

  test.skipIf(kernelLogs)(`with the log that the kernel keeps${kernelLogs ?? ''}`, async () => {
    await move({ dirtyLog: 'kernel' }, { channel: 'hint' });
  });

  test('with a device that discards before it acknowledges', async () => {
    await move({ without: ['must-tell-host'] }, { channel: 'hint' });
  });

  test('with free pages too, where the guest counts on what they hold', async () => {
    // Its driver names none, and `auto` goes without.
    const { journey } = await move({ poison: 0xaa }, { channel: 'auto' });
    expect(journey.summary?.freePages).toBe(0);
    expect((await journey.there.command({ do: 'status' })).vmstat.poisonFaults).toBe(0);
  });

  test('again and again, and takes along what its guest is to keep', async () => {
    let { journey } = await move({}, {});
    for (let hop = 0; hop < 2; hop++) {
      const { control, name } = journey.there;
      const wish = { memoryBytes: 128 * MIB - BALLOON, force: true };
      expect(await control.change(name, wish)).toMatchObject({ targetBytes: BALLOON });
      journey = await Journey.of(journey.there, { channel: 'hint' });
      expect(journey.sourceError).toBeUndefined();
      expect(await journey.there.control.guest(journey.there.name)).toMatchObject({
        targetBytes: BALLOON,
        wishedMemoryBytes: wish.memoryBytes,
      });
      await expectAlive(open(journey.there));
    }
  });

  test('although it writes faster than it can be sent, for it is slowed down', async () => {
    const { journey } = await move(
      { pagesPerSecondMax: 60_000 },
      { channel: 'hint', bytesPerSecond: 24 * MIB, downtimeMsMax: 2, roundsMax: 12 },
    );
    expect(journey.summary?.guestShareMin).toBeLessThan(1);
  });

  test('and its free memory is reported anew where it arrives', async () => {
    const { journey } = await move({}, { channel: 'reporting' });
    const reported = async () => (await journey.there.control.guest('there')).reportedBytes;
    await expect.poll(reported, { timeout: 60_000 }).toBeGreaterThan(16 * MIB);
  });

  test('over the channel that its driver uses, when none was chosen', async () => {
    await move({ without: ['free-page-hint'] }, { channel: 'auto' });
    const vm = await busyVm({ without: ['free-page-hint'] });
    await expect(Journey.of(vm, { channel: 'hint' })).rejects.toThrow(/did not take the feature/);
    await expectAlive(vm);
  });

  test('and leaves no descriptor behind, at either end', async () => {
    const { process: before } = openDescriptors();
    await move({}, {});
    await closeAll();
    await expect.poll(() => openDescriptors().process, { timeout: 60_000 }).toBe(before);
  });

  test('but not over a channel that its ABI has not', async () => {
    const vm = await busyVm({ profile: 'page-order' });
    await expect(Journey.of(vm, { channel: 'hint' })).rejects.toThrow(
      /no free page channel hint; it has order/,
    );
    await expectAlive(vm);
  });
});
