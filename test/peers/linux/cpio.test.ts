import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CpioEntry, cpioArchive } from '../../../src/peers/linux/cpio.ts';
import { missingPrograms, requireProgram } from '../../../src/peers/programs.ts';
import { describePeer } from '../../support/peers.ts';

interface Member {
  readonly path: string;
  readonly mode: number;
  readonly body: Buffer;
  readonly device: readonly [number, number];
}

/** Reads an archive as the format's description says, in code that shares nothing with the writer. */
function readArchive(archive: Buffer): Member[] {
  const members: Member[] = [];
  let at = 0;
  const align = () => {
    at = Math.ceil(at / 4) * 4;
  };
  for (;;) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, major, minor, nameSize] = [
      field(1),
      field(6),
      field(9),
      field(10),
      field(11),
    ] as const;
    const [nameAt] = [at + 110];
    at = nameAt + nameSize!;
    const path = archive.toString('utf8', nameAt, at - 1);
    expect(archive[at - 1]).toBe(0);
    align();
    const body = archive.subarray(at, at + size!);
    at += size!;
    align();
    if (path === 'TRAILER!!!') return members;
    members.push({ path, mode: mode!, body, device: [major!, minor!] });
  }
}

const name = fc.stringMatching(/^[a-z][a-z0-9é_-]{0,20}$/);
const entry: fc.Arbitrary<CpioEntry> = fc.oneof(
  fc.record({
    kind: fc.constant('file' as const),
    path: name,
    mode: fc.integer({ min: 0, max: 0o7777 }),
    data: fc.uint8Array({ maxLength: 40 }),
  }),
  fc.record({
    kind: fc.constant('directory' as const),
    path: name,
    mode: fc.integer({ min: 0, max: 0o777 }),
  }),
  fc.record({ kind: fc.constant('symlink' as const), path: name, target: name }),
  fc.record({
    kind: fc.constant('character-device' as const),
    path: name,
    mode: fc.integer({ min: 0, max: 0o777 }),
    major: fc.nat(255),
    minor: fc.nat(255),
  }),
);

function expected(item: CpioEntry): Member {
  const body = item.kind === 'file' ? item.data : item.kind === 'symlink' ? Buffer.from(item.target) : [];
  const type = { file: 0o100000, directory: 0o040000, symlink: 0o120000, 'character-device': 0o020000 }[
    item.kind
  ];
  const device = item.kind === 'character-device' ? ([item.major, item.minor] as const) : ([0, 0] as const);
  const permissions = item.kind === 'symlink' ? 0o777 : item.mode;
  return { path: item.path, mode: type | permissions, body: Buffer.from(body), device };
}

describe('a cpio archive', () => {
  it('holds the entries that went in, in their order', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 8 }), entries => {
        const archive = cpioArchive(entries);
        expect(archive.length % 512).toBe(0);
        expect(readArchive(archive)).toEqual(entries.map(expected));
      }),
    );
  });

  it('is the same for the same entries', () => {
    const entries: CpioEntry[] = [{ kind: 'file', path: 'a', mode: 0o644, data: Buffer.from('x') }];
    expect(cpioArchive(entries).equals(cpioArchive(entries))).toBe(true);
  });

  it('refuses paths that the kernel would not unpack where they say', () => {
    for (const path of ['', '/etc', 'a\0b', 'x'.repeat(4096)]) {
      expect(() => cpioArchive([{ kind: 'directory', path, mode: 0o755 }])).toThrow(
        /no path for a cpio archive/,
      );
    }
  });
});

describePeer('busybox', missingPrograms('busybox'), () => {
  it('unpacks an archive of ours', () => {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-cpio-'));
    try {
      const archive = cpioArchive([
        { kind: 'directory', path: 'bin', mode: 0o755 },
        { kind: 'file', path: 'bin/tool', mode: 0o755, data: Buffer.from('#!/bin/sh\necho hi\n') },
        { kind: 'symlink', path: 'sbin', target: 'bin' },
      ]);
      execFileSync(requireProgram('busybox'), ['cpio', '-i'], {
        cwd: directory,
        input: archive,
        stdio: 'pipe',
      });
      expect(readFileSync(join(directory, 'sbin/tool'), 'utf8')).toContain('echo hi');
      expect(execFileSync(join(directory, 'bin/tool'), { encoding: 'utf8' })).toBe('hi\n');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
