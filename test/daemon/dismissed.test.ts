/** A guest that a running daemon takes in and sends away again, or cannot take in. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { StartDaemon } from '../../src/daemon/options.ts';
import type { GuestOptions } from '../../src/hosting/options.ts';
import { UnixListener } from '../../src/sys/socket.ts';
import { build } from '../cli/built.ts';

/** A guest that can be sent to no thread: what has functions in it cannot be copied. */
const unsendable = (): number => 0;

async function start(): Promise<{ daemon: Awaited<ReturnType<StartDaemon>>; directory: string }> {
  build();
  const { startDaemon }: { startDaemon: StartDaemon } = await import(
    new URL('../../dist/daemon/daemon.js', import.meta.url).href
  );
  const daemon = await startDaemon({ guests: [], log: () => {} });
  return { daemon, directory: mkdtempSync(join(tmpdir(), 'aerostat-test-')) };
}

const guestAt = (socketPath: string): GuestOptions => ({
  name: 'guest',
  socketPath,
  targetBytes: 0,
  profile: 'virtio',
  discard: 'auto',
  without: [],
  pollIntervalMs: 0,
});

test('a guest that its thread did not take leaves neither its name nor its socket behind', async () => {
  const { daemon, directory } = await start();
  const socketPath = join(directory, 'guest.sock');
  try {
    const refused = { ...guestAt(socketPath), targetBytes: unsendable as unknown as number };
    await expect(daemon.open(refused)).rejects.toThrow('could not be cloned');
    expect(await daemon.control.guests()).toEqual([]);
    await expect(daemon.control.guest('guest')).rejects.toMatchObject({ code: 'AEROSTAT_UNKNOWN_GUEST' });
    expect(existsSync(socketPath)).toBe(false);
    // Closed as well, and not only without a name.
    expect(readFileSync('/proc/net/unix', 'utf8')).not.toContain(socketPath);
    // Before, this was refused: two guests would have had one name.
    await daemon.open(guestAt(socketPath));
    expect(await daemon.control.guests()).toHaveLength(1);
  } finally {
    await daemon.close();
    rmSync(directory, { recursive: true });
  }
});

test('the socket of a guest that was sent away is free at once, and the guest that takes its place keeps it', async () => {
  const { daemon, directory } = await start();
  const socketPath = join(directory, 'guest.sock');
  try {
    await daemon.open(guestAt(socketPath));
    expect(existsSync(socketPath)).toBe(true);
    await daemon.dismiss('guest');
    expect(existsSync(socketPath)).toBe(false);
    const other = UnixListener.bind(socketPath);
    await daemon.close();
    expect(existsSync(socketPath)).toBe(true);
    other.close();
  } finally {
    await daemon.close();
    rmSync(directory, { recursive: true });
  }
});
