/** What the host holds for a guest of QEMU's, by the account of its process. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { QemuProcess } from '../../src/peers/qemu/process.ts';
import { areasOf, residentOf } from '../../src/qemu/process-memory.ts';
import { QemuControl } from '../../src/qemu/qemu-control.ts';
import { cleanUp, describeWithQemu } from '../peers/qemu/peer.ts';

const MIB = 2 ** 20;

const SMAPS = `7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:                1000 kB
Pss:                1000 kB
Shared_Hugetlb:        0 kB
7f0020000000-7f0030000000 rw-s 00000000 00:0f 12 /dev/hugepages/x (deleted)
Size:             262144 kB
Rss:                   0 kB
Private_Hugetlb:    4096 kB
55d000000000-55d000001000 r-xp 00000000 fe:00 12 /usr/bin/qemu-system-x86_64
Rss:                   4 kB
`;

describe('the account of a process', () => {
  it('has what is resident of each area, huge pages included', () => {
    expect(areasOf(SMAPS)).toEqual([
      { bytes: 256 * MIB, residentBytes: 1000 * 1024 },
      { bytes: 256 * MIB, residentBytes: 4 * MIB },
      { bytes: 4096, residentBytes: 4096 },
    ]);
  });

  it('is of a guest only where each of its backends is found', () => {
    const areas = areasOf(SMAPS);
    expect(residentOf(areas, [256 * MIB])).toBe(1000 * 1024);
    expect(residentOf(areas, [256 * MIB, 256 * MIB])).toBe(1000 * 1024 + 4 * MIB);
    expect(residentOf(areas, [256 * MIB, 512 * MIB])).toBeNull();
    expect(residentOf(areas, [])).toBeNull();
    expect(areasOf('nonsense\n')).toEqual([]);
  });
});

describeWithQemu("a guest of QEMU's", () => {
  const finally_ = cleanUp();

  async function residentBytesOf(...args: string[]): Promise<number | null> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    finally_(async () => rmSync(directory, { recursive: true }));
    const path = join(directory, 'web.qmp');
    const monitor = ['-qmp', `unix:${path},server=on,wait=off`];
    const qemu = await QemuProcess.start({
      machine: 'q35',
      memoryBytes: 64 * MIB,
      args: ['-S', ...monitor, '-device', 'virtio-balloon-pci', ...args],
    });
    finally_(() => qemu.kill());
    const control = new QemuControl([{ name: 'web', qmpPath: path }]);
    finally_(async () => control.close());
    return (await control.guest('web')).residentBytes;
  }

  it('has all of its memory resident where it was allocated beforehand, and next to none where it never ran', async () => {
    expect(await residentBytesOf('-mem-prealloc')).toBe(64 * MIB);
    const resident = (await residentBytesOf()) ?? Number.NaN;
    expect(resident).toBeGreaterThanOrEqual(0);
    expect(resident).toBeLessThan(16 * MIB);
  });
});
