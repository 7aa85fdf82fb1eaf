import { afterAll, beforeAll, expect, it } from 'vitest';
import { freeMemory, useMemory } from '../../../src/peers/linux/workloads.ts';
import { UmlGuest } from '../../../src/peers/uml/guest.ts';
import { describeLinux } from '../../support/peers.ts';
import { checksummedFiles, dropCaches, eatMemory, eatUntilOom, verifyFiles } from './checked-workloads.ts';

const MIB = 2 ** 20;

describeLinux('a workload in a Linux guest', kernel => {
  let guest: UmlGuest;
  const freeBytes = async (): Promise<number> => (await guest.meminfo()).MemFree!;

  beforeAll(async () => {
    guest = await UmlGuest.boot({ memoryBytes: 256 * MIB, kernel });
  });
  afterAll(() => guest.shutdown());

  it('uses memory and frees it', async () => {
    const before = await freeBytes();
    await useMemory(guest, 60 * MIB);
    await useMemory(guest, 60 * MIB);
    expect(before - (await freeBytes())).toBeGreaterThan(118 * MIB);
    await freeMemory(guest);
    expect(Math.abs(before - (await freeBytes()))).toBeLessThan(8 * MIB);
  });

  it('finds a changed byte in checksummed files', async () => {
    await checksummedFiles(guest, 40 * MIB);
    await verifyFiles(guest);
    await guest.check('printf x | dd of=/mem/kept/2 conv=notrunc bs=1 seek=100000');
    await expect(verifyFiles(guest)).rejects.toMatchObject({ output: expect.stringContaining('2: FAILED') });
    await checksummedFiles(guest, MIB);
    await verifyFiles(guest);
    await guest.check('rm -r /mem/kept');
  });

  it('drops caches', async () => {
    await dropCaches(guest);
  });

  it('takes anonymous memory all at once, and holds it as long as told', async () => {
    const before = await freeBytes();
    let done = false;
    const meal = eatMemory(guest, 100 * MIB, { holdMs: 3000 }).finally(() => {
      done = true;
    });
    await expect.poll(freeBytes, { timeout: 60_000 }).toBeLessThan(before - 98 * MIB);
    expect(done).toBe(false);
    expect((await meal).exitCode).toBe(0);
    expect(await freeBytes()).toBeGreaterThan(before - 8 * MIB);
  });

  it('makes the kernel kill for memory, which the guest survives', async () => {
    expect(await eatUntilOom(guest)).toBe(true);
    expect((await eatMemory(guest, 50 * MIB)).exitCode).toBe(0);
    expect(await guest.kernelLog()).toContain('Out of memory: Killed process');
    expect(await guest.check('ls /run')).toBe('');
  });

  it('takes whole MiB only', async () => {
    await expect(useMemory(guest, 1000)).rejects.toThrow(/whole MiB/);
  });
});
