/**
 * The domains of a real libvirtd: one runs Linux with a whole balloon, one has a bare balloon, one has none. libvirtd is
 * killed and started again in the middle.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { EXIT } from '../../../src/cli/usage.ts';
import type { GuestStatus } from '../../../src/control/contract.ts';
import { build } from '../../cli/built.ts';
import { run, start } from '../../cli/terminal.ts';
import { DaemonProcess } from '../../support/daemon.ts';
import { describePeer } from '../../support/peers.ts';
import { FakeMonitor } from '../qemu/fake-monitor.ts';
import { FakeQemu } from '../qemu/fake-qemu.ts';
import { Libvirtd } from './libvirtd.ts';
import { domain, linux, missingForLinux, WHOLE_BALLOON } from './linux-domain.ts';

// A machine under TCG boots, beside whatever else runs.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const MIB = 2 ** 20;
const NAMES = ['linux', 'bare', 'none'] as const;

describePeer('domains of libvirt', await missingForLinux(), () => {
  const libvirtd = new Libvirtd();
  const aerostat = (words: string) => run([...words.split(' '), '--libvirt', libvirtd.uri], { env: {} });
  const guests = async () => JSON.parse((await aerostat('status --json')).out).guests;

  beforeAll(async () => {
    build();
    await libvirtd.start();
    libvirtd.create(domain('linux', WHOLE_BALLOON, await linux(libvirtd.directory)));
    libvirtd.create(domain('bare', "<memballoon model='virtio'/>"));
    libvirtd.create(domain('none', "<memballoon model='none'/>"));
  });

  afterAll(() => libvirtd.end());

  test('are seen, statistics and all, and take targets that the guest follows', async () => {
    expect((await guests()).map(({ name }: { name: string }) => name).toSorted()).toEqual(
      [...NAMES].toSorted(),
    );
    // Its driver is at work when its first statistics have come.
    const stats = async () => JSON.parse((await aerostat('stats linux --json')).out).statistics.totalBytes;
    await expect.poll(stats, { timeout: 120_000, interval: 500 }).toBeGreaterThan(128 * MIB);
    const { code, out } = await aerostat('set linux --balloon 64M --wait --timeout 60s');
    expect(out).toMatch(/^linux: balloon 64M reached in /);
    expect(code).toBe(EXIT.ok);
    expect(libvirtd.virsh('dommemstat', 'linux')).toMatch(/^actual 196608$/m);
    expect((await aerostat('stats linux --fresh')).code).toBe(EXIT.ok);
    expect((await aerostat('set none --balloon 64M')).err).toMatch(
      /none has no balloon.*memballoon model='virtio'/,
    );
  });

  test('are examined by doctor, which finds what their definitions lack', async () => {
    const { out } = await aerostat('doctor --json --fail-on danger');
    const found = JSON.parse(out).findings.map(
      ({ guest, id }: { guest: string; id: string }) => `${guest} ${id}`,
    );
    expect(found).toEqual(
      expect.arrayContaining(['bare no-reporting', 'bare old-statistics', 'none no-balloon']),
    );
    expect(found.filter((finding: string) => finding.startsWith('linux'))).toEqual([]);
  });

  test('are watched while libvirtd is killed and started again, and keep their balloons', async () => {
    const session = start(['watch', '--json', '--interval', '200ms', '--libvirt', libvirtd.uri], { env: {} });
    const isConnected = () => {
      const line = session.stdout.text.trimEnd().split('\n').at(-1) ?? '';
      return line === ''
        ? undefined
        : JSON.parse(line).guests.every(
            (guest: GuestStatus) => guest.lastError === null || guest.name === 'none',
          );
    };
    await expect.poll(isConnected, { timeout: 60_000 }).toBe(true);
    await libvirtd.kill();
    await expect.poll(isConnected, { timeout: 60_000 }).toBe(false);
    expect((await aerostat('status')).code).toBe(EXIT.unreachable);
    await libvirtd.start();
    await expect.poll(isConnected, { timeout: 60_000 }).toBe(true);
    session.interrupt();
    await session.ended;
    expect((await guests()).find(({ name }: { name: string }) => name === 'linux').actualBytes).toBe(
      64 * MIB,
    );
  });

  test('are steered by a policy, which goes on when libvirtd was killed and its settings are read anew', async () => {
    const config = join(libvirtd.directory, 'aerostat.toml');
    const mostIs = (most: string) =>
      writeFileSync(
        config,
        `[policy]\nperiod = "500ms"\n[guests.linux]\nmax = "${most}"\n[guests.bare]\nmode = "off"\n`,
      );
    const hasKiB = () => Number(/^actual (\d+)$/m.exec(libvirtd.virsh('dommemstat', 'linux'))?.[1]);
    mostIs('160M');
    const own = ['--state-dir', libvirtd.directory, '--api', join(libvirtd.directory, 'policy.sock')];
    const session = start(['policy', 'run', '--libvirt', libvirtd.uri, '--config', config, ...own], {
      env: { XDG_RUNTIME_DIR: libvirtd.directory },
    });
    await expect.poll(hasKiB, { timeout: 60_000, interval: 200 }).toBe(160 * 1024);
    await libvirtd.kill();
    await libvirtd.start();
    mostIs('208M');
    session.hangUp();
    await expect.poll(hasKiB, { timeout: 60_000, interval: 200 }).toBe(208 * 1024);
    session.interrupt();
    expect(await session.ended).toBe(EXIT.ok);
  });

  test('are in one page, one top and one list of figures with guests of every other kind of source', async () => {
    const directory = join(libvirtd.directory, 'all');
    const monitors = join(directory, 'monitors');
    mkdirSync(monitors, { recursive: true });
    const qemu = new FakeQemu();
    const monitor = await FakeMonitor.start({
      path: join(monitors, '100.qmp'),
      respond: (request, from) => qemu.answer(request, from),
    });
    const config = join(directory, 'aerostat.toml');
    const other = await DaemonProcess.start(['other']);
    writeFileSync(
      config,
      `[sources]
daemons = [${JSON.stringify(join(other.directory, 'api.sock'))}]
qmp-dirs = ["monitors"]
libvirt = [${JSON.stringify(libvirtd.uri)}]
[api]
listen = "api.sock"
[guests.own]
socket = "own.sock"
`,
    );
    const own = await DaemonProcess.start([], ['--config', config], { directory });
    const all = ['100', ...NAMES, 'other', 'own'].toSorted();
    const page = start(['dashboard', '--no-open', '--config', config], { env: {} });
    try {
      const top = await run(['top', '--config', config], { env: {} });
      const rows = top.out.split('\n').map(line => /^[ ›]?(\S+)/.exec(line)?.[1] ?? '');
      expect(rows.filter(name => all.includes(name)).toSorted()).toEqual(all);

      await expect.poll(() => page.stdout.text).toMatch(/#token=\S+\n/);
      const address = new URL(page.stdout.text.trim());
      const headers = { Authorization: `Bearer ${address.hash.slice('#token='.length)}` };
      const answer = async (path: string) => (await fetch(new URL(path, address), { headers })).text();
      expect(await answer('/')).toMatch(/<script/);
      const { guests: shown } = JSON.parse(await answer('/v1/guests'));
      expect(shown.map(({ name }: GuestStatus) => name).toSorted()).toEqual(all);
      const figures = await answer('/metrics');
      for (const name of all) expect(figures).toMatch(new RegExp(`guest="${name}"`));
      expect(Number(/aerostat_guest_memory_bytes{guest="linux"} (\d+)/.exec(figures)?.[1])).toBe(256 * MIB);
    } finally {
      page.interrupt();
      await page.ended;
      await own.end();
      await other.stop();
      await monitor.close();
    }
  });

  test('cost a deadline while libvirtd is stopped, and the command ends', async () => {
    process.kill(libvirtd.pid, 'SIGSTOP');
    try {
      const { code, err } = await aerostat('status');
      expect(code).toBe(EXIT.unreachable);
      expect(err).toMatch(/has not answered within 5 s; is libvirtd stopped/);
    } finally {
      process.kill(libvirtd.pid, 'SIGCONT');
    }
  });
});
