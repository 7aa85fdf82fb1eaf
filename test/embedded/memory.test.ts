/** What a guest of 8 GiB costs beside its own memory, with its balloon full: the device's process and the guest's. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

beforeAll(build);

/** Resident memory of a process without what it shares with others as files in memory: the guest's. */
function ownBytes(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const bytes = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) * 1024;
  return bytes('RssAnon') + bytes('RssFile');
}

async function bareNodeBytes(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume(); console.log("up")'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  const bytes = ownBytes(child.pid);
  child.stdin.end();
  await once(child, 'exit');
  return bytes;
}

test('device and driver take less than 2 % of the memory of a guest of 8 GiB', async () => {
  const daemon = await DaemonProcess.start(['guest']);
  try {
    const guest = await startGuestProcess({ socketPath: daemon.socketOf('guest'), memoryBytes: 8 * GIB });
    try {
      // A guest without its driver is what the driver's cost is measured against: its kernel has books of its own.
      await guest.tell({ do: 'remove' });
      const without = ownBytes(guest.pid);
      await guest.tell({ do: 'probe' });
      await daemon.reach('guest', 7 * GIB);
      await daemon.reach('guest', 0);
      await daemon.reach('guest', 7 * GIB);
      const bare = await bareNodeBytes();
      const device = ownBytes(daemon.child.pid) - bare;
      const driver = ownBytes(guest.pid) - without;
      const share = (device + driver) / (8 * GIB);
      console.info(
        `beside 8 GiB of guest memory: device ${(device / MIB).toFixed(1)} MiB, driver ${(driver / MIB).toFixed(1)} MiB, ` +
          `${(share * 100).toFixed(2)} %; the guest's kernel ${((without - bare) / MIB).toFixed(1)} MiB`,
      );
      expect(share).toBeLessThan(0.02);
    } finally {
      await guest.close();
    }
  } finally {
    await daemon.stop();
  }
}, 60_000);
