import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BootFailure, bestGuest, booting, withFallback } from '../../src/demo/guest-choice.ts';
import { factsFrom } from '../../src/peers/processor.ts';
import { findUmlKernels, umlComplaint } from '../../src/peers/uml/kernel.ts';
import { AerostatError } from '../../src/sys/error.ts';

const AMX = { stateBytes: 11008, amx: true };
/** A person who does not interrupt. */
const NEVER = new AbortController().signal;
const AVX512 = { stateBytes: 2696, amx: false };

describe('the guest that a command takes when it is free to choose', () => {
  let cache: string;
  beforeEach(() => {
    cache = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    vi.stubEnv('XDG_CACHE_HOME', cache);
    vi.stubEnv('PATH', join(cache, 'bin'));
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(cache, { recursive: true });
  });

  /** A program that takes itself for User Mode Linux of this version, installed for ourselves. */
  function install(version: string, script = ''): void {
    const place = join(cache, 'aerostat/peers/uml');
    const modules = join(place, 'root/usr/lib/uml/modules', version, 'kernel/drivers/virtio');
    const bin = join(place, 'root/usr/bin');
    for (const directory of [modules, bin]) mkdirSync(directory, { recursive: true });
    writeFileSync(join(modules, 'virtio_balloon.ko'), '');
    const program = join(bin, 'linux.uml');
    writeFileSync(program, `#!/bin/sh\n[ "$1" = --version ] && echo ${version} && exit\n${script}`);
    chmodSync(program, 0o755);
    writeFileSync(join(place, 'peer.json'), JSON.stringify({ version, packages: {}, bytes: 1 }));
  }

  it('is the newest kernel that runs on the processor', () => {
    install('7.2.7');
    const [kernel] = findUmlKernels(AMX);
    expect(kernel).toMatchObject({ version: '7.2.7', origin: 'private', fault: undefined });
    expect(umlComplaint([kernel])).toBeUndefined();
  });

  it('is a kernel before 6.13 on processors without AMX, and the embedded guest on those with', () => {
    install('6.1.55');
    expect(umlComplaint(findUmlKernels(AVX512))).toBeUndefined();
    const kernels = findUmlKernels(AMX);
    expect(bestGuest(kernels)).toEqual({
      kind: 'embedded',
      why: 'embedded guest: Linux 6.1 of User Mode Linux does not run on this processor (AMX); `aerostat peers install uml` brings one that does',
    });
  });

  it('is the embedded guest where no kernel is, with the command that brings one', () => {
    const choice = bestGuest(findUmlKernels(AVX512));
    expect(choice.kind).toBe('embedded');
    expect(choice.why).toMatch(/^embedded guest: missing: linux\.uml .*aerostat peers install uml$/);
    expect(choice.why).not.toContain('\n');
  });

  it('is judged by this machine’s own processor', () => {
    install('6.1.55');
    const { fault } = findUmlKernels()[0];
    const { fault: expected } = findUmlKernels(factsFrom(new Uint8Array(), ''))[0];
    // A machine without AMX has nothing against it, as one that nothing is known of.
    if (fault === undefined) expect(expected).toBeUndefined();
    else expect(fault).toContain('does not run on this processor');
  });

  describe('that does not boot', () => {
    const panic = new AerostatError(
      'AEROSTAT_GUEST_BOOT',
      'the guest did not boot: its kernel panicked\nmore',
    );
    const bodies = () => {
      const kinds: string[] = [];
      return {
        kinds,
        body: async (kind: string) => {
          kinds.push(kind);
          if (kind === 'linux') await booting(Promise.reject(panic), NEVER);
          return kind;
        },
      };
    };

    it('gives way to the embedded one, in one line, when it was not asked for', async () => {
      const { kinds, body } = bodies();
      const lines: string[] = [];
      const decide = () => ({ kind: 'linux' as const, why: 'Linux guest: because' });
      expect(await withFallback(undefined, line => lines.push(line), body, decide)).toBe('embedded');
      expect(kinds).toEqual(['linux', 'embedded']);
      expect(lines).toEqual([
        'Linux guest: because',
        'embedded guest: the guest did not boot: its kernel panicked',
      ]);
    });

    it('is what is told, once, to a person who asked for it', async () => {
      const { kinds, body } = bodies();
      const attempt = withFallback(
        'linux',
        () => {},
        body,
        undefined,
        () => {},
      );
      await expect(attempt).rejects.toBe(panic);
      expect(kinds).toEqual(['linux']);
    });

    it('is not taken for a bug of ours, nor a bug or an interruption for it', async () => {
      const bug = new TypeError('x is not a function');
      await expect(booting(Promise.reject(bug), NEVER)).rejects.toBe(bug);
      await expect(booting(Promise.reject(panic), NEVER)).rejects.toBeInstanceOf(BootFailure);
      const interruption = new AerostatError('AEROSTAT_INTERRUPTED', 'interrupted by SIGINT');
      const interrupted = AbortSignal.abort(interruption);
      await expect(booting(Promise.reject(interruption), interrupted)).rejects.toBe(interruption);
    });
  });
});
