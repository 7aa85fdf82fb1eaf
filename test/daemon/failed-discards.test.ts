/** Guest memory in a file that cannot be punched: what its guest gives away stays with the host, and that is said. */
import { spawn, spawnSync } from 'node:child_process';
import { ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { build, program } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE } from './hand-guest.ts';
import { SpokenGuest } from './spoken-guest.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 64 * MIB;
const GIVEN = 1000;

const directory = mkdtempSync(join(tmpdir(), 'aerostat-ramfs-'));
const mounted = spawnSync('mount', ['-t', 'ramfs', 'ramfs', directory]).status === 0;

beforeAll(build);

afterAll(() => {
  if (mounted) spawnSync('umount', ['--lazy', directory]);
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(0);
});

/** On ramfs, whose files are memory and cannot have holes punched into them. */
function ramfsMemory(): GuestMemory {
  const file = new OwnedFd(openSync(join(directory, 'memory'), 'w+'));
  ftruncateSync(file.number, MEMORY_BYTES);
  const region = { guestAddress: 0, userAddress: 2 ** 46, size: MEMORY_BYTES };
  const memory = new GuestMemory();
  memory.add(new MemoryRegion(region, new FileBacking(file, 0, MEMORY_BYTES)));
  return memory;
}

test.skipIf(!mounted)(
  'discards on a file that cannot be punched are told of: by the status of the guest, and by set --wait, which fails',
  async () => {
    const loop = new TestLoop();
    const daemon = await DaemonProcess.start(['a']);
    try {
      const guest = await SpokenGuest.start(daemon.socketOf('a'), { loop, memory: ramfsMemory() });
      guest.touch(FIRST_PAGE, GIVEN);
      const api = join(daemon.directory, 'api.sock');
      const words = ['set', 'a', '--balloon', String(GIVEN * PAGE_SIZE), '--wait', '--force', '--api', api];
      const set = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
      let told = '';
      set.stderr.setEncoding('utf8').on('data', piece => {
        told += piece;
      });
      const ended = new Promise<number | null>(resolve => set.once('exit', resolve));
      await daemon.untilGuest('a', ({ targetBytes }) => targetBytes === GIVEN * PAGE_SIZE);
      await guest.inflate(FIRST_PAGE, GIVEN);
      await guest.writeActual(GIVEN);
      expect(await ended).toBe(EXIT.notReached);
      expect(told).toMatch(
        /holds 3\.91M, but \d+ discards? failed .*EOPNOTSUPP.*a memfd, tmpfs or hugetlbfs/,
      );
      const status = await daemon.control.guest('a');
      expect(status.lastError).toMatch(/memory could not be given back: .*EOPNOTSUPP/);
      expect(status).toMatchObject({ balloonedBytes: GIVEN * PAGE_SIZE, discardedBytes: 0, pendingBytes: 0 });
      expect(status.counters.punchFailures).toBeGreaterThan(0);
      guest.close();
    } finally {
      loop.close();
      await daemon.stop();
    }
  },
);
