/** The Debian package: built, unpacked into a root of its own, and its daemon started from there. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { missingPrograms } from '../../src/peers/programs.ts';
import { parseAddress } from '../../src/server/address.ts';
import { RemoteControl } from '../../src/server/client.ts';
import { describePeer } from '../support/peers.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8', cwd: root });
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
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
      `Package: aerostat\nVersion: ${version}\nDepends: nodejs (>= 20), libc6\n`,
    );
  });

  test('has everything at its place', () => {
    for (const path of [
      'usr/lib/systemd/system/aerostat@.service',
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
  });

  test('brings what the program runs with, and nothing that only builds or tests it', () => {
    const packages = readdirSync(join(installed, 'usr/lib/aerostat/node_modules'));
    expect(packages).toEqual(expect.arrayContaining(['hono', 'koffi', 'commander', 'pino', 'zod']));
    expect(packages).not.toEqual(expect.arrayContaining(['vitest']));
    expect(
      packages.filter(name => /^(vite|typescript|preact|uplot|playwright-core|echarts)$/.test(name)),
    ).toEqual([]);
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
      const control = new RemoteControl(parseAddress(api));
      await expect
        .poll(async () => (await control.guests().catch(() => [])).map(({ name }) => name), {
          timeout: 20_000,
        })
        .toEqual(['vm1']);
    } finally {
      const ended = once(daemon, 'exit');
      daemon.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
    }
  });
});
