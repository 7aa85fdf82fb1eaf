import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { findProgram, MissingPeerError, missingPrograms, requireProgram } from '../../src/peers/programs.ts';

describe('a peer’s program', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-path-'));
    vi.stubEnv('PATH', `/nowhere:${directory}`);
    // Peers that were installed for ourselves are none of these tests.
    vi.stubEnv('XDG_CACHE_HOME', directory);
  });

  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(directory, { recursive: true });
  });

  it('is found on PATH', () => {
    writeFileSync(join(directory, 'linux.uml'), '', { mode: 0o755 });
    expect(requireProgram('linux.uml')).toBe(join(directory, 'linux.uml'));
  });

  it('is no directory and no file that cannot be run', () => {
    mkdirSync(join(directory, 'linux.uml'));
    writeFileSync(join(directory, 'qemu-img'), '');
    chmodSync(join(directory, 'qemu-img'), 0o644);
    expect(findProgram('linux.uml')).toBeUndefined();
    expect(findProgram('qemu-img')).toBeUndefined();
  });

  it('is named with its package and the command that installs it when it is missing', () => {
    const error = missingPrograms('linux.uml', 'busybox', 'qemu-img')!;
    expect(error).toBeInstanceOf(MissingPeerError);
    expect(error.code).toBe('AEROSTAT_MISSING_PEER');
    expect(error.message).toContain('linux.uml (Debian package user-mode-linux)');
    expect(error.message).toContain('a statically linked busybox (Debian package busybox-static)');
    expect(error.installCommand).toMatch(/apt-get install --yes user-mode-linux busybox-static qemu-utils$/);
    expect(() => requireProgram('qemu-storage-daemon')).toThrow(/Debian package qemu-system-common/);
  });

  it('asks for each package once', () => {
    const piece = { what: 'x', debianPackage: 'user-mode-linux' };
    expect(new MissingPeerError([piece, piece]).installCommand).toMatch(/--yes user-mode-linux$/);
  });

  it('is not a busybox that needs a dynamic loader', () => {
    writeFileSync(join(directory, 'busybox'), '#!/bin/sh\n', { mode: 0o755 });
    expect(findProgram('busybox')).toBeUndefined();
  });
});
