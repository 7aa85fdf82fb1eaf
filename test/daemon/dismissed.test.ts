/** A guest that a running daemon takes in and sends away again. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { StartDaemon } from '../../src/hosting/options.ts';
import { UnixListener } from '../../src/sys/socket.ts';
import { build } from '../cli/built.ts';

test('the socket of a guest that was sent away is free at once, and whoever takes its place keeps it', async () => {
  build();
  const { startDaemon }: { startDaemon: StartDaemon } = await import(
    new URL('../../dist/daemon/daemon.js', import.meta.url).href
  );
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  const socketPath = join(directory, 'guest.sock');
  const daemon = await startDaemon({ guests: [], log: () => {} });
  try {
    await daemon.open({
      name: 'guest',
      socketPath,
      targetBytes: 0,
      profile: 'virtio',
      discard: 'auto',
      without: [],
      pollIntervalMs: 0,
    });
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
