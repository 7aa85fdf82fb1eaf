/**
 * The Debian package: built, unpacked, and its daemon started from there; and installed by dpkg into a root of its own, where
 * its service runs as the unit says, serves a guest, and goes without a trace when the package does.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { MIB } from '../server/fake-control.ts';
import { describePeer } from '../support/peers.ts';
import { type Answered, TestRoot, whyNoTestRoot } from './test-root.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8', cwd: root });
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** The page that a daemon serves at its API's address. */
function pageAt(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    httpRequest({ socketPath, path: '/' }, response => {
      let text = String(response.statusCode);
      response.setEncoding('utf8').on('data', piece => {
        text += piece;
      });
      response.once('end', () => resolve(text));
    })
      .once('error', reject)
      .end();
  });
}

describePeer('the Debian package', missingPrograms('dpkg-deb'), () => {
  let directory: string;
  let installed: string;
  let file: string;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    installed = join(directory, 'root');
    file = run(process.execPath, 'scripts/package-deb.mjs', directory).trim().split('\n').at(-1) ?? '';
    run('dpkg-deb', '--extract', file, installed);
  }, 180_000);

  afterAll(() => rmSync(directory, { recursive: true }));

  const read = (path: string) => readFileSync(join(installed, path));

  test('says what it is and what it needs', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(run('dpkg-deb', '--field', file, 'Package', 'Version', 'Depends')).toBe(
      `Package: aerostat\nVersion: ${version}\nDepends: nodejs (>= 20.19), libc6\n`,
    );
  });

  test('says where to get the Node that it needs, on systems whose own is too old', () => {
    expect(run('dpkg-deb', '--field', file, 'Description')).toMatch(
      /Node\.js 20\.19, 22\.13 or 24 and newer.*Debian 12 has version 18.*https:\/\/nodejs\.org/s,
    );
  });

  test('has the manual pages that its units point at', () => {
    const units = join(installed, 'usr/lib/systemd/system');
    for (const unit of readdirSync(units)) {
      const pages = [...readFileSync(join(units, unit), 'utf8').matchAll(/man:([\w-]+)\((\d)\)/g)];
      expect([unit, pages.length > 0]).toEqual([unit, true]);
      for (const [, name, section] of pages) {
        const path = `usr/share/man/man${section}/${name}.${section}.gz`;
        expect([unit, path, existsSync(join(installed, path))]).toEqual([unit, path, true]);
      }
    }
  });

  test('has everything at its place', () => {
    for (const path of [
      'usr/lib/systemd/system/aerostat@.service',
      'usr/lib/systemd/system/aerostat.service',
      'usr/lib/systemd/system/aerostat-pair@.service',
      'usr/lib/systemd/system/aerostat-keeper.service',
      'usr/lib/systemd/system/aerostat-exporter.service',
      'usr/share/aerostat/prometheus/scrape.yml',
      'usr/lib/sysusers.d/aerostat.conf',
      'usr/share/qemu/vhost-user/50-aerostat.json',
      'usr/share/aerostat/prometheus/aerostat.rules.yml',
      'usr/share/aerostat/grafana/aerostat.json',
      'usr/share/doc/aerostat/copyright',
      'usr/lib/aerostat/dist/web/index.html',
    ]) {
      expect(existsSync(join(installed, path)), path).toBe(true);
    }
    expect(read('usr/share/bash-completion/completions/aerostat').toString()).toContain(
      'complete -F _aerostat',
    );
    expect(read('usr/share/zsh/vendor-completions/_aerostat').toString()).toMatch(/^#compdef aerostat/);
    expect(read('usr/share/fish/vendor_completions.d/aerostat.fish').toString()).toContain(
      'complete -c aerostat',
    );
    expect(gunzipSync(read('usr/share/man/man1/aerostat.1.gz')).toString()).toMatch(/^\.TH AEROSTAT 1/);
    // Before, there was the one of the program alone.
    for (const page of ['man1/aerostat-set.1', 'man1/aerostat-bench-inflate.1', 'man5/aerostat-files.5']) {
      expect(existsSync(join(installed, `usr/share/man/${page}.gz`)), page).toBe(true);
    }
  });

  test('brings what the program runs with, and nothing that only builds or tests it', () => {
    const packages = readdirSync(join(installed, 'usr/lib/aerostat/node_modules'));
    expect(packages).toEqual(expect.arrayContaining(['hono', 'koffi', 'commander', 'pino', 'zod']));
    expect(packages).not.toEqual(expect.arrayContaining(['vitest']));
    expect(packages.filter(name => /^(vite|typescript|preact|uplot|playwright-core)$/.test(name))).toEqual(
      [],
    );
    expect(lstatSync(join(installed, 'usr/bin/aerostat')).isSymbolicLink()).toBe(true);
  });

  test('starts a daemon that serves its API and its page', async () => {
    const api = join(directory, 'api.sock');
    const daemon = spawn(
      join(installed, 'usr/bin/aerostat'),
      ['device', '--socket-path', join(directory, 'vm1'), '--api', api],
      // No node_modules but the package's own is in reach from there.
      { cwd: '/', stdio: ['ignore', 'ignore', 'inherit'] },
    );
    try {
      const control = remoteControl(parseAddress(api));
      await expect
        .poll(async () => (await control.guests().catch(() => [])).map(({ name }) => name), {
          timeout: 60_000,
        })
        .toEqual(['vm1']);
      expect(await pageAt(api)).toMatch(/^200<!doctype html>/i);
    } finally {
      const ended = once(daemon, 'exit');
      daemon.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
    }
  });

  const why = whyNoTestRoot();
  describe.skipIf(why !== undefined)(
    `installed into a root${why === undefined ? '' : ` (skipped; ${why})`}`,
    () => {
      const UNIT = 'aerostat@.service';
      const FURTHER_UNITS = [
        'aerostat.service',
        'aerostat-pair@.service',
        'aerostat-keeper.service',
        'aerostat-exporter.service',
      ];
      let target: TestRoot;

      const expectDone = ({ status, stderr }: Answered) =>
        expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
      const state = () => target.dpkg('--status', 'aerostat').stdout.match(/^Status: (.*)$/m)?.[1];

      beforeAll(() => {
        target = new TestRoot();
      });

      afterAll(() => target.remove());

      test('is refused by dpkg where what it depends on is missing, or too old', () => {
        target.pretend('libc6', '2.36-9');
        target.pretend('nodejs', '20.18.3');
        const refused = target.dpkg('--install', file);
        expect(refused.status).not.toBe(0);
        expect(refused.stderr).toMatch(/depends on nodejs \(>= 20\.19\)/);
        expectDone(target.dpkg('--purge', 'aerostat'));
      });

      test('is taken and configured by dpkg where it is there, and every file is as it was built', () => {
        target.pretend('nodejs', process.version.slice(1));
        expectDone(target.dpkg('--install', file));
        expect(state()).toBe('install ok installed');
        expect(target.dpkg('--verify', 'aerostat')).toMatchObject({ status: 0, stdout: '' });
        for (const path of target.dpkg('--listfiles', 'aerostat').stdout.trim().split('\n')) {
          const { uid, gid, mode } = statSync(target.at(path));
          expect([path, uid, gid, mode & 0o022]).toEqual([path, 0, 0, 0]);
        }
      });

      test.skipIf(!existsSync('/usr/bin/systemd-sysusers'))('has made the user of its service', () => {
        expect(target.read('etc/passwd')).toMatch(/^aerostat:[^:]*:\d+:\d+:.*:.*nologin$/m);
        expect(target.read('etc/group')).toMatch(/^aerostat:/m);
      });

      test('is configured a second time without complaint', () => {
        expectDone(target.dpkg('--install', file));
        expect(target.read('etc/passwd').match(/^aerostat:/gm)?.length ?? 0).toBeLessThanOrEqual(1);
      });

      test.skipIf(spawnSync('systemd-analyze', ['--version']).error !== undefined)(
        'has a unit that systemd takes there, program and all',
        () => {
          const { stdout, stderr } = spawnSync(
            'systemd-analyze',
            // Manual pages are looked for where this runs, not in the root.
            ['--man=no', `--root=${target.path}`, 'verify', UNIT.replace('@', '@vm1'), ...FURTHER_UNITS],
            { encoding: 'utf8' },
          );
          expect(stdout + stderr).toBe('');
        },
      );

      test('is found by launchers that look for vhost-user programs, and says there what it can do', () => {
        const directory = 'usr/share/qemu/vhost-user';
        const [name, ...more] = readdirSync(target.at(directory));
        expect([name, more]).toEqual([expect.stringMatching(/^\d\d-.*\.json$/), []]);
        const { binary, type } = JSON.parse(target.read(join(directory, name)));
        const answered = target.run(binary, '--print-capabilities');
        expectDone(answered);
        expect(JSON.parse(answered.stdout).type).toBe(type);
      });

      test.each([
        [
          'bash',
          ['-c', 'source "$0" && complete -p aerostat'],
          'usr/share/bash-completion/completions/aerostat',
        ],
        ['zsh', ['-n'], 'usr/share/zsh/vendor-completions/_aerostat'],
        ['fish', ['--no-execute'], 'usr/share/fish/vendor_completions.d/aerostat.fish'],
        ['man', ['--warnings', '-E', 'UTF-8', '-l'], 'usr/share/man/man1/aerostat.1.gz'],
        ['man', ['--warnings', '-E', 'UTF-8', '-l'], 'usr/share/man/man1/aerostat-device.1.gz'],
        ['man', ['--warnings', '-E', 'UTF-8', '-l'], 'usr/share/man/man5/aerostat-files.5.gz'],
      ])('%s takes what is meant for it', (program, words, path) => {
        const { error, status, stdout, stderr } = spawnSync(program, [...words, target.at(path)], {
          encoding: 'utf8',
          env: { ...process.env, MANWIDTH: '80', MANPAGER: 'cat' },
        });
        // Not installed here.
        if (error !== undefined) return;
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
        if (program === 'man') expect(stdout.toLowerCase()).toMatch(/aerostat.*device/s);
      });

      test('runs as its unit says, serves its API, its page and a guest, and ends when it is told to', async () => {
        const service = target.start(UNIT, 'vm1');
        let log = '';
        service.stderr?.setEncoding('utf8').on('data', piece => {
          log += piece;
        });
        const at = (name: string) => target.at(`run/aerostat/vm1/${name}`);
        try {
          const control = remoteControl(parseAddress(at('api.sock')));
          await expect
            .poll(async () => (await control.guests().catch(() => [])).map(({ name }) => name), {
              timeout: 60_000,
              message: log,
            })
            .toEqual(['vm1']);
          const owner = statSync(target.at('run/aerostat/vm1')).uid;
          expect(statSync(at('api.sock'))).toMatchObject({
            uid: owner,
            mode: expect.toSatisfy(mode => (mode & 0o777) === 0o600),
          });
          expect(statSync(at('vhost-user.sock')).mode & 0o777).toBe(0o770);
          expect((await control.daemon()).version).toBe(
            JSON.parse(target.read('usr/lib/aerostat/package.json')).version,
          );

          expect(await pageAt(at('api.sock'))).toMatch(/^200<!doctype html>/i);

          const guest = await startGuestProcess({ socketPath: at('vhost-user.sock'), memoryBytes: 64 * MIB });
          await guest.tell({ do: 'touch' });
          await control.change('vm1', { targetBytes: 16 * MIB });
          await expect
            .poll(async () => control.guest('vm1'), { timeout: 60_000, message: log })
            .toMatchObject({ actualBytes: 16 * MIB, pendingBytes: 0 });
          expect((await control.guest('vm1')).discardedBytes).toBeGreaterThan(0);
          await guest.close();
        } finally {
          const ended = service.exitCode === null ? once(service, 'exit') : [service.exitCode, null];
          service.kill('SIGTERM');
          expect(await ended, log).toEqual([0, null]);
        }
        expect(readdirSync(target.at('run/aerostat/vm1'))).toEqual([]);
      });

      test('leaves nothing behind but the user when it is removed and forgotten', () => {
        expectDone(target.dpkg('--remove', 'aerostat'));
        expect(target.has('usr/bin/aerostat')).toBe(false);
        expectDone(target.dpkg('--purge', 'aerostat'));
        expect(state()).toBeUndefined();
        const left = readdirSync(target.path, { recursive: true, encoding: 'utf8' });
        expect(left.filter(path => path.includes('aerostat'))).toEqual(['run/aerostat', 'run/aerostat/vm1']);
      });
    },
  );
});
