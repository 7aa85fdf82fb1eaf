/**
 * Domains of a libvirtd that is reached over TCP, as one of another host is: every verb, and what becomes of them where it
 * refuses, hangs, breaks connections off, or was never there. Guests of other sources are not held up by any of it.
 */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { LIBVIRT_COMMAND_LINE } from '../../../src/cli/processes.ts';
import { EXIT } from '../../../src/cli/usage.ts';
import { LibvirtConnection } from '../../../src/libvirt/connection.ts';
import { build } from '../../cli/built.ts';
import { run, start } from '../../cli/terminal.ts';
import { describePeer } from '../../support/peers.ts';
import { FakeMonitor } from '../qemu/fake-monitor.ts';
import { FakeQemu } from '../qemu/fake-qemu.ts';
import { Libvirtd } from './libvirtd.ts';
import { domain, linux, missingForLinux, WHOLE_BALLOON } from './linux-domain.ts';

// A machine under TCG boots, beside whatever else runs.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const MIB = 2 ** 20;
const PATIENCE = { timeout: 60_000 } as const;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

describePeer('a libvirt of another host', await missingForLinux(), async () => {
  const [here, there] = [
    new Libvirtd({ tcpPort: await freePort() }),
    new Libvirtd({ tcpPort: await freePort() }),
  ];
  const at = (uri: string, words: string) => run([...words.split(' '), '--libvirt', uri], { env: {} });
  const aerostat = (words: string) => at(here.tcpUri, words);
  const names = async (uri: string) =>
    JSON.parse((await at(uri, 'status --json')).out).guests.map(({ name }: { name: string }) => name);

  beforeAll(async () => {
    build();
    await Promise.all([here.start(), there.start()]);
    here.create(domain('linux', WHOLE_BALLOON, await linux(here.directory)));
    here.create(domain('bare', "<memballoon model='virtio'/>"));
  });

  afterAll(async () => {
    await here.end();
    await there.end();
  });

  test('has its domains seen, steered, watched and examined', async () => {
    expect((await names(here.tcpUri)).toSorted()).toEqual(['bare', 'linux']);
    expect((await at(there.tcpUri, 'status')).out).toBe(`No domain runs at ${there.tcpUri}.\n`);
    const stats = async () => JSON.parse((await aerostat('stats linux --json')).out).statistics.totalBytes;
    await expect.poll(stats, { timeout: 120_000, interval: 500 }).toBeGreaterThan(128 * MIB);
    expect((await aerostat('set linux --balloon 64M --wait --timeout 60s')).out).toMatch(
      /^linux: balloon 64M/,
    );
    expect((await aerostat('stats linux --fresh')).code).toBe(EXIT.ok);
    expect((await aerostat('top')).out).toMatch(/linux/);
    expect((await aerostat('doctor --json --fail-on danger')).out).toMatch(/no-reporting/);
    const watch = start(['watch', '--json', '--libvirt', here.tcpUri], { env: {} });
    await expect.poll(() => watch.stdout.text, PATIENCE).toMatch(/"linux"/);
    watch.interrupt();
    await watch.ended;
  });

  test('has a policy move their targets', async () => {
    const config = join(here.directory, 'aerostat.toml');
    writeFileSync(
      config,
      '[policy]\nperiod = "500ms"\n[guests.linux]\nmax = "160M"\n[guests.bare]\nmode = "off"\n',
    );
    const own = ['--state-dir', here.directory, '--api', join(here.directory, 'policy.sock')];
    const policy = start(['policy', 'run', '--libvirt', here.tcpUri, '--config', config, ...own], {
      env: { XDG_RUNTIME_DIR: here.directory },
    });
    const hasKiB = () => Number(/^actual (\d+)$/m.exec(here.virsh('dommemstat', 'linux'))?.[1]);
    await expect.poll(hasKiB, { ...PATIENCE, interval: 200 }).toBe(160 * 1024);
    policy.interrupt();
    expect(await policy.ended).toBe(EXIT.ok);
  });

  test('takes a domain over, and sends it back, over TCP', async () => {
    expect(await aerostat(`migrate linux ${there.tcpUri}`)).toMatchObject({ code: EXIT.ok, err: '' });
    expect(await names(there.tcpUri)).toEqual(['linux']);
    expect((await at(there.tcpUri, `migrate linux ${here.tcpUri}`)).code).toBe(EXIT.ok);
    expect((await names(here.tcpUri)).toSorted()).toEqual(['bare', 'linux']);
  });

  test('may have a domain of a name that another has: each is steered alone, and neither takes the other', async () => {
    for (const libvirtd of [here, there]) libvirtd.create(domain('same', "<memballoon model='virtio'/>"));
    const config = join(here.directory, 'two.toml');
    const uris = [here.tcpUri, there.tcpUri];
    writeFileSync(config, `[sources]\nlibvirt = ${JSON.stringify(uris)}\n`);
    const two = async (words: string) => run([...words.split(' '), '--config', config], { env: {} });
    const [first, second] = uris.map(uri => `${new URL(uri).host}/same`);
    const rows: { name: string }[] = JSON.parse((await two('status --json')).out).guests;
    expect(rows.map(({ name }) => name).toSorted()).toEqual(['bare', 'linux', first, second].toSorted());
    expect((await two('set same --balloon 64M --force')).code).toBe(EXIT.unknownGuest);
    expect((await two(`set ${second} --poll-interval 3s`)).code).toBe(EXIT.ok);
    const periods = [here, there].map(libvirtd => /stats period='3'/.test(libvirtd.virsh('dumpxml', 'same')));
    expect(periods).toEqual([false, true]);
    const taken = await aerostat(`migrate same ${there.tcpUri}`);
    expect(taken.code).not.toBe(EXIT.ok);
    expect(taken.err).toMatch(/same runs on where it was; the destination has a domain of this name/);
    for (const libvirtd of [here, there]) {
      expect(libvirtd.virsh('domstate', 'same').trim()).toBe('running');
      libvirtd.virsh('destroy', 'same');
    }
  });

  test('that refuses, or is no host, is told of in the words of libvirt, with the URI', async () => {
    const refused = await at(`qemu+tcp://127.0.0.1:${await freePort()}/session`, 'status');
    expect(refused.code).toBe(EXIT.unreachable);
    expect(refused.err).toMatch(/cannot connect to qemu\+tcp:\/\/127.*Connection refused/);
    const unknown = await at('qemu+tcp://no-host.invalid/system', 'status');
    expect(unknown.code).toBe(EXIT.unreachable);
    expect(unknown.err).toMatch(/no-host\.invalid/);
    // Nothing of the migration is begun.
    const nowhere = await aerostat(`migrate linux qemu+tcp://127.0.0.1:${await freePort()}/session`);
    expect(nowhere.err).toMatch(/linux runs on where it was; the source does not reach the destination/);
  });

  test('that hangs costs its own domains a deadline, and guests of other sources nothing', async () => {
    const directory = join(here.directory, 'both');
    mkdirSync(join(directory, 'monitors'), { recursive: true });
    const qemu = new FakeQemu();
    const monitor = await FakeMonitor.start({
      path: join(directory, 'monitors/100.qmp'),
      respond: (request, from) => qemu.answer(request, from),
    });
    const config = join(directory, 'aerostat.toml');
    const uris = JSON.stringify([here.tcpUri, there.tcpUri]);
    writeFileSync(config, `[sources]\nqmp-dirs = ["monitors"]\nlibvirt = ${uris}\n`);
    here.virsh('destroy', 'bare');
    there.create(domain('other', "<memballoon model='virtio'/>"));
    process.kill(here.pid, 'SIGSTOP');
    try {
      const hung = await aerostat('status');
      expect(hung.code).toBe(EXIT.unreachable);
      expect(hung.err).toMatch(/has not answered within 5 s; is libvirtd stopped/);
      const { out } = await run(['status', '--json', '--config', config], { env: {} });
      const rows: { name: string; lastError: string | null }[] = JSON.parse(out).guests;
      const well = rows.filter(({ lastError }) => lastError === null).map(({ name }) => name);
      expect(well.toSorted()).toEqual(['100', 'other']);
      expect(rows.filter(({ lastError }) => lastError !== null)).toHaveLength(1);
    } finally {
      process.kill(here.pid, 'SIGCONT');
      await monitor.close();
    }
    expect(await names(here.tcpUri)).toEqual(['linux']);
  });

  test('that breaks every connection off is tried more and more seldom', async () => {
    let tries = 0;
    const server = createServer(socket => {
      tries++;
      socket.destroy();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const uri = `qemu+tcp://127.0.0.1:${(server.address() as AddressInfo).port}/session`;
    const connection = new LibvirtConnection({ uri, commandLine: LIBVIRT_COMMAND_LINE });
    try {
      let asked = 0;
      while (tries < 3) {
        await expect(connection.ask({ ask: 'domains' })).rejects.toThrow(/cannot connect to qemu\+tcp/);
        asked++;
        await new Promise(resolve => setTimeout(resolve, 20));
      }
      expect(asked).toBeGreaterThan(10 * tries);
    } finally {
      connection.close();
      server.close();
    }
  });
});
