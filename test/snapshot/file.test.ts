/**
 * The file of a snapshot: what is written is what is read, and what is not that, whatever it is, is refused in words that
 * say what to do. No guest runs of it then. Machines that are written and restored are test/vm/snapshot.test.ts's.
 */
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { zstd } from '../../src/migration/stream/compression.ts';
import { SnapshotFileError } from '../../src/snapshot/errors.ts';
import { decodeHeader, encodeHeader, SNAPSHOT_HEADER_BYTES } from '../../src/snapshot/header.ts';
import { SnapshotFile } from '../../src/snapshot/snapshot-file.ts';
import { build } from '../cli/built.ts';
import { HEADER, PAGES, Place, restored, restoreInto, STATES, usedMemory, written } from './places.ts';

const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
const path = join(directory, 'vm1.aero');
let whole: Buffer;

beforeAll(async () => {
  await (await written(path)).finish();
  whole = readFileSync(path);
});

afterAll(() => rmSync(directory, { recursive: true }));

const others = () => readdirSync(directory).filter(name => name.endsWith('.part'));

/** Restores `bytes`; returns why that is refused, and sees to it that nothing of it runs. */
async function refusalOf(bytes: Uint8Array): Promise<string> {
  const damaged = join(directory, 'damaged.aero');
  writeFileSync(damaged, bytes);
  const place = new Place();
  const error = await restoreInto(place, damaged).then(
    () => undefined,
    (reason: Error) => reason,
  );
  expect(place.runs).toBe(false);
  if (!(error instanceof SnapshotFileError)) throw new Error(`it was taken, or failed with ${error}`);
  return error.message;
}

describe('what was written', () => {
  test.each([false, ...(zstd === undefined ? [] : [true])])(
    'is what is restored (compressed: %s)',
    async compress => {
      const copy = join(directory, 'copy.aero');
      await (await written(copy, { compress })).finish();
      const place = await restored(copy);
      expect(place.runs).toBe(true);
      expect(place.loaded.map(({ name, bytes }) => ({ name, bytes: Uint8Array.from(bytes) }))).toEqual(
        STATES,
      );
      const [here, there] = [new Uint8Array(PAGES * PAGE_SIZE), new Uint8Array(PAGES * PAGE_SIZE)];
      usedMemory().read(0, PAGES, here, 0);
      place.ram.read(0, PAGES, there, 0);
      expect(Buffer.compare(here, there)).toBe(0);
      if (compress) expect(statSync(copy).size).toBeLessThan(whole.length / 2);
    },
  );

  test('is read by this user alone, and only under its name when all of it is there', async () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const late = join(directory, 'late.aero');
    const file = await written(late);
    expect(readdirSync(directory)).not.toContain('late.aero');
    expect(others()).toHaveLength(1);
    await file.finish();
    expect(readdirSync(directory)).toContain('late.aero');
    expect(others()).toEqual([]);
  });

  test('replaces the snapshot of that name, or leaves it as it was', async () => {
    const before = readFileSync(path);
    const file = await written(path, { header: { ...HEADER, name: 'later' } });
    expect(file.abandon()).toBe(true);
    await expect(file.finish()).rejects.toThrow('called off');
    expect(readFileSync(path)).toEqual(before);
    expect(others()).toEqual([]);
    const next = await written(path, { header: { ...HEADER, name: 'later' } });
    await next.finish();
    expect(next.abandon()).toBe(false);
    expect(decodeHeader(readFileSync(path)).name).toBe('later');
  });

  test('removes what a writer that was killed has left of that name, and nothing else', async () => {
    const left = '.vm1.aero.0123456789ab.part';
    const empty = '.vm1.aero.ba9876543210.part';
    const notOurs = [
      '.vm1.aero.00ff00ff00ff.part', // It begins like something else.
      '.vm2.aero.0123456789ab.part',
      '.vm1.aero.part',
      'vm1.aero.0123456789ab.part',
    ];
    writeFileSync(join(directory, left), whole.subarray(0, whole.length / 2));
    writeFileSync(join(directory, empty), '');
    for (const name of notOurs) writeFileSync(join(directory, name), name.includes('00ff') ? 'diary' : whole);
    const first = await written(path);
    const [written1] = others().filter(name => !notOurs.includes(name));
    expect(others().sort()).toEqual([...notOurs, written1].sort());
    // Another writer is at work under that name: its part is its own.
    const second = await written(path);
    expect(others()).toContain(written1);
    expect(others()).toHaveLength(notOurs.length + 2);
    await second.finish();
    await first.finish();
    expect(others().sort()).toEqual(notOurs.toSorted());
    for (const name of notOurs) rmSync(join(directory, name));
  });

  test('replaces no other file, for a name may be mistyped', async () => {
    const other = join(directory, 'notes.txt');
    writeFileSync(other, 'dear diary');
    symlinkSync(path, join(directory, 'link'));
    mkdirSync(join(directory, 'folder'));
    for (const name of ['notes.txt', 'link', 'folder']) {
      await expect(SnapshotFile.create(join(directory, name), encodeHeader(HEADER))).rejects.toThrow(
        'is no snapshot; remove it, or give another name',
      );
    }
    expect(readFileSync(other, 'utf8')).toBe('dear diary');
    await expect(SnapshotFile.create(join(directory, 'nowhere', 'a'), encodeHeader(HEADER))).rejects.toThrow(
      /the guest runs on: there is no .*nowhere/,
    );
  });

  // A file system of its own, in a mount namespace of its own; not every host lets its users have one.
  const own = ['--map-root-user', '--mount', 'sh', '-c', `mount -t tmpfs none ${directory}`];
  const mounts = spawnSync('unshare', own).status === 0;

  test.runIf(mounts)('is refused on a disk that is full, and nothing of it is left there', () => {
    build();
    const script = new URL('full-disk.mjs', import.meta.url).pathname;
    const mount = `mount -t tmpfs -o size=1m none ${directory}/folder && exec "$0" ${script} ${directory}/folder`;
    const { stdout, stderr } = spawnSync(
      'unshare',
      ['--map-root-user', '--mount', 'sh', '-c', mount, process.execPath],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({
      message: expect.stringMatching(/runs on: there is no room left on the disk of .*; make room/),
      left: [],
    });
  });
});

describe('what is refused, and nothing runs:', () => {
  test('a file of which a bit is another one, wherever', async () => {
    // A prime, so that every field and every kind of section has its turn.
    for (let at = 0; at < whole.length; at += 211) {
      const damaged = Buffer.from(whole);
      damaged[at] ^= 1 << (at % 8);
      expect(await refusalOf(damaged), `byte ${at}`).toMatch(
        /it is (no snapshot|damaged|cut short|of version)|header is damaged/,
      );
    }
  });

  test('a file that is cut short, wherever', async () => {
    for (let length = 0; length < whole.length; length += 307) {
      const why = await refusalOf(whole.subarray(0, length));
      expect(why, `${length} bytes`).toMatch(length < 8 ? /no snapshot/ : /cut short; restore another copy/);
    }
    expect(await refusalOf(whole.subarray(0, whole.length - 1))).toMatch(/cut short/);
  });

  test('a file that goes on after its end', async () => {
    expect(await refusalOf(Buffer.concat([whole, whole.subarray(SNAPSHOT_HEADER_BYTES)]))).toMatch(/damaged/);
    expect(await refusalOf(Buffer.concat([whole, Buffer.alloc(7)]))).toMatch(/cut short|damaged/);
  });

  test('files of others, and what is no file', async () => {
    expect(await refusalOf(Buffer.from('QFI\xfb some disk of QEMU'))).toMatch(
      /it is no snapshot of aerostat; give a file that aerostat snapshot wrote/,
    );
    await expect(restored(join(directory, 'absent'))).rejects.toThrow(/cannot be restored: there is no/);
    await expect(restored(directory)).rejects.toThrow('it is no file');
    await expect(restored('/dev/zero')).rejects.toThrow('it is no file');
  });

  test('a version that this program does not read, whatever follows it', async () => {
    const newer = Buffer.from(whole);
    newer.writeUInt32LE(2, 8);
    expect(await refusalOf(newer)).toMatch(
      /of version 2, and this program reads 1; restore it with the release/,
    );
  });

  test('a header and a stream of two snapshots', async () => {
    const header = encodeHeader({ ...HEADER, id: new Uint8Array(16) });
    expect(await refusalOf(Buffer.concat([header, whole.subarray(SNAPSHOT_HEADER_BYTES)]))).toMatch(
      /two snapshots/,
    );
  });

  test('a name that no guest can have, and a time that cannot be', () => {
    for (const name of ['', '../../etc', 'a b', 'x'.repeat(64).replace(/^x/, '-')]) {
      expect(() => decodeHeader(encodeHeader({ ...HEADER, name }))).toThrow('name in its header');
    }
    expect(() => decodeHeader(encodeHeader({ ...HEADER, createdMs: 2 ** 53 - 1 }))).toThrow(
      'time in its header',
    );
  });

  test('more memory than this host takes, before any is made', async () => {
    const place = new Place();
    await expect(restoreInto(place, path, PAGE_SIZE)).rejects.toThrow('takes 1 MiB at most');
    expect(place.ram.slots).toBe(1);
    expect(place.abandoned).toBe(true);
  });

  test.each([
    ['that is one of several connections', { connections: 2 }],
    ['that asks what became of a guest', { purpose: 'inquire' as const }],
  ])('a stream %s', async (_, changes) => {
    const other = join(directory, 'other.aero');
    const messages: NonNullable<Parameters<typeof written>[1]>['messages'] = said =>
      said.map(one => (one !== 'pages' && one.kind === 'hello' ? { ...one, ...changes } : one));
    await (await written(other, { messages })).finish();
    expect(await refusalOf(readFileSync(other))).toMatch(/its stream is not that of a snapshot/);
  });

  test('a stream without its end, its memory or its states', async () => {
    const other = join(directory, 'other.aero');
    for (const missing of ['end', 'memory', 'hello']) {
      const messages: NonNullable<Parameters<typeof written>[1]>['messages'] = said =>
        said.filter(one => one === 'pages' || one.kind !== missing);
      await (await written(other, { messages })).finish();
      expect(await refusalOf(readFileSync(other)), missing).toMatch(/cut short|damaged/);
    }
  });
});

test('a restore that is interrupted ends, and leaves no machine', async () => {
  const place = new Place();
  const stop = AbortSignal.abort(new Error('enough'));
  await expect(restoreInto(place, path, PAGES * PAGE_SIZE, stop)).rejects.toThrow('enough');
  expect(place.runs).toBe(false);
  expect(place.abandoned).toBe(true);
});
