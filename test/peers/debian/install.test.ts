/**
 * Installing peers, with an apt-get that plays what a mirror has and real packages: what is downloaded, unpacked,
 * interrupted, locked and removed. The real apt-get and a real mirror are CI's own first step.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { exitCodeOf } from '../../../src/cli/usage.ts';
import { machineMirror } from '../../../src/peers/debian/apt.ts';
import {
  type InstallEvent,
  installPeers,
  leftoverBytes,
  removePeers,
} from '../../../src/peers/debian/install.ts';
import { installedPeer, LOADER } from '../../../src/peers/private/roots.ts';
import { missingPrograms } from '../../../src/peers/programs.ts';
import { findUmlKernels } from '../../../src/peers/uml/kernel.ts';
import { describePeer } from '../../support/peers.ts';

const MIRROR = {
  uri: 'http://mirror.example/debian',
  keyring: '/usr/share/keyrings/debian-archive-keyring.gpg',
};
const ARCHIVE = 'user-mode-linux_9.9um1_amd64.deb';

/**
 * Speaks as apt-get does. `$PLAY/fault` makes it fail with these words; while `$PLAY/hold` is there it writes half of
 * the package and waits, as on a slow line.
 */
const APT_GET = `#!/bin/sh
echo "$*" >>"$PLAY/asked"
archives=$(sed -n 's/^Dir::Cache::archives "\\(.*\\)";$/\\1/p' "$APT_CONFIG")
size=$(stat -c %s "$PLAY/${ARCHIVE}")
case "$*" in
  update*)
    if [ -e "$PLAY/expired" ] && ! grep -q check-valid-until=no "$(dirname "$APT_CONFIG")/sources.list"; then
      echo 'E: Release file for http://mirror.example/debian/dists/sid/InRelease is expired (invalid since 3d).' >&2
      exit 100
    fi
    if [ -e "$PLAY/fault" ]; then cat "$PLAY/fault" >&2; exit 100; fi ;;
  *--print-uris*) echo "'http://mirror.example/${ARCHIVE}' ${ARCHIVE} $size MD5Sum:0" ;;
  *--download-only*)
    echo 'dlstatus:1:50.0:Retrieving file 1 of 1' >&3
    if [ -e "$PLAY/hold" ]; then
      head -c 100 "$PLAY/${ARCHIVE}" >"$archives/partial/${ARCHIVE}"
      touch "$PLAY/held"
      sleep 1000
    fi
    if [ -e "$archives/partial/${ARCHIVE}" ]; then echo went-on >>"$PLAY/asked"; fi
    cp "$PLAY/${ARCHIVE}" "$archives/" && rm -f "$archives/partial/${ARCHIVE}" ;;
esac
`;

describePeer('installing a peer', missingPrograms('dpkg-deb'), () => {
  let play: string;
  let cache: string;
  let events: InstallEvent[];
  const NEVER = new AbortController().signal;

  /** A package whose programs are scripts: its loader starts them, its patchelf notes what it was asked. */
  function pack(program = '#!/bin/sh\necho 9.9.9\n'): void {
    const tree = join(play, 'tree');
    const file = (path: string, text: string) => {
      mkdirSync(join(tree, path, '..'), { recursive: true });
      writeFileSync(join(tree, path), text, { mode: 0o755 });
    };
    file(
      'DEBIAN/control',
      'Package: user-mode-linux\nVersion: 9.9um1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n',
    );
    file(LOADER, '#!/bin/sh\nshift 2\nexec "$@"\n');
    file('usr/bin/patchelf', '#!/bin/sh\necho "$*" >>"$PLAY/patched"\n');
    file('usr/bin/linux.uml', program);
    file('usr/lib/uml/modules/9.9.9/kernel/drivers/virtio/virtio_balloon.ko', 'module');
    file('usr/share/doc/user-mode-linux/copyright', 'text');
    execFileSync('dpkg-deb', ['--root-owner-group', '--build', tree, join(play, ARCHIVE)], { stdio: 'pipe' });
  }

  beforeEach(() => {
    play = mkdtempSync(join(tmpdir(), 'aerostat-play-'));
    cache = mkdtempSync(join(tmpdir(), 'aerostat-cache-'));
    events = [];
    vi.stubEnv('PLAY', play);
    vi.stubEnv('XDG_CACHE_HOME', cache);
    mkdirSync(join(play, 'bin'));
    writeFileSync(join(play, 'bin/apt-get'), APT_GET, { mode: 0o755 });
    vi.stubEnv('PATH', `${join(play, 'bin')}:${process.env.PATH}`);
    pack();
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    for (const directory of [play, cache]) rmSync(directory, { recursive: true });
  });

  const install = (signal = NEVER) =>
    installPeers(['uml'], { signal, mirror: MIRROR, tell: event => events.push(event) });
  const peers = (): string[] => {
    const directory = join(cache, 'aerostat/peers');
    return existsSync(directory) ? readdirSync(directory) : [];
  };
  const asked = () => readFileSync(join(play, 'asked'), 'utf8');
  const types = () => [...new Set(events.map(({ type }) => type))];

  it('unpacks what its suite has, binds it to its own loader, and keeps no more than it needs', async () => {
    const [peer] = await install();
    expect(peer).toMatchObject({
      name: 'uml',
      version: '9.9.9',
      packages: { 'user-mode-linux': '9.9um1' },
      mirror: MIRROR.uri,
    });
    expect(peers()).toEqual(['uml']);
    expect(existsSync(join(peer.root, 'usr/share/doc'))).toBe(false);
    // The last word that is written into the program is the place where it stays.
    const patched = readFileSync(join(play, 'patched'), 'utf8').trim().split('\n').at(-1);
    expect(patched).toContain(
      `--set-interpreter ${join(cache, 'aerostat/peers/uml/root', LOADER)} --set-rpath`,
    );
    expect(findUmlKernels()[0]).toMatchObject({ version: '9.9.9', origin: 'private', fault: undefined });
    expect(types()).toEqual(['index', 'download', 'unpack']);
    const downloads = events.filter(event => event.type === 'download');
    const { size } = statSync(join(play, ARCHIVE));
    expect(downloads[0]).toMatchObject({ packages: 1, bytes: size, doneBytes: 0 });
    expect(downloads.map(({ doneBytes }) => doneBytes)).toContain(size / 2);
    expect(downloads.at(-1)).toMatchObject({ doneBytes: size });
    // Other users may not write what is booted.
    expect(statSync(join(cache, 'aerostat')).mode & 0o077).toBe(0);
  });

  it('asks a mirror for nothing when the peer is there', async () => {
    await install();
    rmSync(join(play, 'asked'));
    const [peer] = await install();
    expect(peer.version).toBe('9.9.9');
    expect(existsSync(join(play, 'asked'))).toBe(false);
  });

  it('goes on with what an interrupted download left, and leaves no half peer', async () => {
    writeFileSync(join(play, 'hold'), '');
    const interrupt = new AbortController();
    const attempt = install(interrupt.signal);
    await expect.poll(() => existsSync(join(play, 'held'))).toBe(true);
    const reason = new Error('interrupted');
    interrupt.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    expect(installedPeer('uml')).toBeUndefined();
    expect(leftoverBytes()).toBeGreaterThan(0);
    rmSync(join(play, 'hold'));
    await install();
    expect(events.some(event => event.type === 'download' && event.doneBytes === 100)).toBe(true);
    expect(asked()).toContain('went-on');
    expect(peers()).toEqual(['uml']);
    expect(leftoverBytes()).toBe(0);
  });

  it('waits for another installation, says for whose, and uses what that brought', async () => {
    mkdirSync(join(cache, 'aerostat'), { mode: 0o700 });
    const lock = join(cache, 'aerostat/peers.lock');
    const holder = spawn('flock', [lock, 'sh', '-c', 'echo held; cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    writeFileSync(lock, `${holder.pid}\n`);
    const attempt = install();
    await expect.poll(() => events).toEqual([{ type: 'waiting', holder: holder.pid }]);
    expect(existsSync(join(play, 'asked'))).toBe(false);
    holder.stdin.end();
    expect((await attempt)[0].version).toBe('9.9.9');
    const both = await Promise.all([install(), install()]);
    expect(both.map(([{ version }]) => version)).toEqual(['9.9.9', '9.9.9']);
  });

  it('can be interrupted while it waits', async () => {
    mkdirSync(join(cache, 'aerostat'), { mode: 0o700 });
    const lock = join(cache, 'aerostat/peers.lock');
    const holder = spawn('flock', [lock, 'sh', '-c', 'echo held; cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    const interrupt = new AbortController();
    const attempt = install(interrupt.signal);
    await expect.poll(types).toEqual(['waiting']);
    interrupt.abort(new Error('interrupted'));
    await expect(attempt).rejects.toThrow();
    holder.stdin.end();
    await once(holder, 'exit');
  });

  it('says in a sentence that a mirror cannot be reached', async () => {
    const words =
      "Err:1 http://mirror.example/debian sid InRelease\nE: Failed to fetch http://mirror.example/x  Could not resolve 'mirror.example'\nE: Some index files failed to download.\n";
    writeFileSync(join(play, 'fault'), words);
    const error = await install().catch((thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ code: 'AEROSTAT_ARCHIVE' });
    expect((error as Error).message).toBe(
      "cannot install from http://mirror.example/debian: Failed to fetch http://mirror.example/x Could not resolve 'mirror.example'",
    );
    expect(exitCodeOf(error)).toBe(3);
    expect(installedPeer('uml')).toBeUndefined();
  });

  it('uses a mirror that is past its date, with a remark', async () => {
    writeFileSync(join(play, 'expired'), '');
    await install();
    expect(events).toContainEqual({ type: 'remark', text: expect.stringMatching(/not brought up to date/) });
  });

  it('says of a program that does not start what was wrong', async () => {
    pack('#!/bin/sh\necho no such register >&2\nexit 1\n');
    await expect(install()).rejects.toMatchObject({
      code: 'AEROSTAT_PEER_INSTALL',
      message: 'what was installed does not start: no such register',
    });
    expect(peers()).toEqual(['.downloads']);
  });

  it('says which package cannot be unpacked', async () => {
    writeFileSync(join(play, ARCHIVE), 'no package');
    await expect(install()).rejects.toMatchObject({
      code: 'AEROSTAT_PEER_INSTALL',
      message: expect.stringMatching(new RegExp(`^cannot unpack ${ARCHIVE}: [^\n]*$`)),
    });
    expect(installedPeer('uml')).toBeUndefined();
    expect(peers()).toEqual(['.downloads']);
  });

  it('is undone completely', async () => {
    await install();
    writeFileSync(join(play, 'fault'), 'E: no\n');
    await expect(installPeers(['qemu'], { signal: NEVER, mirror: MIRROR, tell: () => {} })).rejects.toThrow();
    expect(peers()).toEqual(['.downloads', 'uml']);
    await removePeers(['uml', 'qemu'], { signal: NEVER, tell: () => {} });
    expect(readdirSync(join(cache, 'aerostat'))).toEqual([]);
  });

  it('is for machines that install from Debian', () => {
    const error = (() => {
      try {
        return machineMirror(play);
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toMatchObject({
      code: 'AEROSTAT_NOT_DEBIAN',
      message: `peers are installed from Debian's archive, and ${play} of this machine names none`,
    });
  });
});
