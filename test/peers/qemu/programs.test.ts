import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { defaultQemu, findQemus } from '../../../src/peers/qemu/programs.ts';
import { requirePrivateKernel } from './cloud-kernel.ts';
import { findQemu, missingQemu, requireQemu } from './installed.ts';

describe('the QEMUs of a machine', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    vi.stubEnv('PATH', join(directory, 'bin'));
    vi.stubEnv('XDG_CACHE_HOME', directory);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(directory, { recursive: true });
  });

  function system(version: string): void {
    mkdirSync(join(directory, 'bin'), { recursive: true });
    const script = `#!/bin/sh\necho "QEMU emulator version ${version} (Debian 1:${version}+dfsg-7)"\n`;
    writeFileSync(join(directory, 'bin/qemu-system-x86_64'), script, { mode: 0o755 });
  }
  function own(version: string): void {
    const place = join(directory, 'aerostat/peers/qemu');
    mkdirSync(join(place, 'root'), { recursive: true });
    writeFileSync(join(place, 'peer.json'), JSON.stringify({ version, packages: {}, bytes: 1 }));
  }

  it('are the system’s own and ours, the newest first, and the system’s own where no version is asked for', () => {
    system('7.2.22');
    own('11.1.3');
    expect(findQemus().map(({ version, origin }) => [version, origin])).toEqual([
      ['11.1.3', 'private'],
      ['7.2.22', 'system'],
    ]);
    expect(defaultQemu()).toMatchObject({ version: '7.2.22', args: [] });
    expect(requireQemu('10.2').version).toBe('11.1.3');
    expect(findQemu('12')).toBeUndefined();
  });

  it('are ours where the system has none: started through their own loader, with their own data', () => {
    own('11.1.3');
    const { program, args, env } = defaultQemu();
    const root = join(directory, 'aerostat/peers/qemu/root');
    expect(program).toBe(join(root, 'usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'));
    expect(args.slice(0, 3)).toEqual([
      '--library-path',
      join(root, 'usr/lib/x86_64-linux-gnu'),
      join(root, 'usr/bin/qemu-system-x86_64'),
    ]);
    expect(args.join(' ')).toContain(`-L ${join(root, 'usr/share/seabios')}`);
    expect(env.QEMU_MODULE_DIR).toBe(join(root, 'usr/lib/x86_64-linux-gnu/qemu'));
  });

  it('are missing with the command that brings one', () => {
    system('7.2.22');
    expect(missingQemu('10.2')?.message).toBe(
      'missing: QEMU 10.2 or newer (peer qemu); install with: aerostat peers install qemu',
    );
    expect(() => requirePrivateKernel('linux-7.3')).toThrow(
      /install with: aerostat peers install linux-7.3$/,
    );
  });
});
