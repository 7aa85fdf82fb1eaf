import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MissingPeerError } from '../../../src/peers/programs.ts';
import { moduleName } from '../../../src/peers/qemu/cloud-kernel.ts';
import { findCloudKernel } from './cloud-kernel.ts';

const installed =
  existsSync('/boot') && readdirSync('/boot').some(name => /^vmlinuz-.*-cloud-amd64$/.test(name));

describe("the kernel of QEMU's guests", () => {
  let cache: string;
  beforeEach(() => {
    cache = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    vi.stubEnv('XDG_CACHE_HOME', cache);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(cache, { recursive: true, force: true });
  });

  it.skipIf(installed)(
    'is missing, with words, where apt cannot bring it, and leaves nothing half done',
    async () => {
      vi.stubEnv('PATH', '/nowhere');
      const attempt = findCloudKernel();
      await expect(attempt).rejects.toBeInstanceOf(MissingPeerError);
      await expect(attempt).rejects.toThrow(/apt could not download .*linux-image-cloud-amd64/);
      expect(readdirSync(join(cache, 'aerostat'))).toEqual([]);
    },
  );

  it('knows modules by the names that the kernel gives them', () => {
    expect(moduleName('/lib/modules/6.1.0/kernel/drivers/virtio/virtio_pci.ko')).toBe('virtio_pci');
    expect(moduleName('/x/virtio-rng.ko.xz')).toBe('virtio_rng');
  });
});
