/** Guests of QEMU's that come and go with the sockets of a directory. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UnknownGuestError } from '../../src/control/errors.ts';
import { MonitorDirectory, type MonitorDirectoryOptions } from '../../src/qemu/monitor-directory.ts';
import { FakeMonitor, type FakeMonitorOptions } from '../peers/qemu/fake-monitor.ts';
import { FakeQemu } from '../peers/qemu/fake-qemu.ts';

const MIB = 2 ** 20;

let directory: string;
const opened: { close(): unknown }[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
  rmSync(directory, { recursive: true });
});

/** A QEMU whose monitor lies at `file`; `vm` is what it was told to call its guest. */
async function qemuAt(file: string, { vm, ...options }: FakeMonitorOptions & { vm?: string } = {}) {
  const qemu = new FakeQemu();
  const monitor = await FakeMonitor.start({
    path: join(directory, file),
    respond: (request, from) =>
      request.command === 'query-name'
        ? from.answer(request, vm === undefined ? {} : { name: vm })
        : qemu.answer(request, from),
    ...options,
  });
  opened.push(monitor);
  return { qemu, monitor };
}

async function look(options: MonitorDirectoryOptions = {}): Promise<MonitorDirectory> {
  const found = new MonitorDirectory(directory, { scanMs: 20, ...options });
  opened.push(found);
  await found.named();
  return found;
}

const namesOf = async (found: MonitorDirectory) => (await found.guests()).map(({ name }) => name);

describe('guests of a directory of monitors', () => {
  test('are called after their sockets, as Proxmox, Incus and people lay them', async () => {
    mkdirSync(join(directory, 'web'));
    for (const file of ['100.qmp', 'db.monitor', 'mail.qmp.sock', 'web/qemu.monitor']) await qemuAt(file);
    const found = await look();
    expect(await namesOf(found)).toEqual(['100', 'db', 'mail', 'web']);
    expect(await found.guest('web')).toMatchObject({ connected: true, memoryBytes: 1024 * MIB });
    await found.change('100', { targetBytes: 256 * MIB, force: true });
    expect((await found.guest('100')).targetBytes).toBe(256 * MIB);
  });

  test('come and go with their sockets', async () => {
    await qemuAt('100.qmp');
    const found = await look();
    const connected = new Promise(resolve => {
      found.subscribe(({ guest, type }) => type === 'connected' && guest === '101' && resolve(undefined));
    });
    const { monitor } = await qemuAt('101.qmp');
    // A subscriber hears of it without asking for a list.
    await connected;
    expect(await namesOf(found)).toEqual(['100', '101']);
    await monitor.close();
    expect(await namesOf(found)).toEqual(['100']);
    await expect(found.guest('101')).rejects.toThrow(UnknownGuestError);
  });

  test('are no other sockets and no files, which are never connected to', async () => {
    let connections = 0;
    for (const file of ['100.qga', '100.vnc', 'vhost-user.sock', 'api.sock']) {
      const server = createServer(() => connections++);
      await new Promise<void>(resolve => server.listen(join(directory, file), resolve));
      opened.push(server);
    }
    writeFileSync(join(directory, 'not-a-socket.qmp'), '');
    await qemuAt('100.qmp');
    const found = await look();
    expect(await namesOf(found)).toEqual(['100']);
    expect(connections).toBe(0);
  });

  test('are called as QEMU calls them where that is asked for, and each has a name of its own', async () => {
    await qemuAt('100.qmp', { vm: 'web server' });
    await qemuAt('101.qmp', { vm: 'web server' });
    await qemuAt('102.qmp');
    const found = await look({ namedByQemu: true });
    expect((await namesOf(found)).toSorted()).toEqual(['101', '102', 'web-server']);
  });

  test('that do not answer cost their own row, and are not asked again meanwhile', async () => {
    const { monitor } = await qemuAt('stopped.qmp', { respond: () => {} });
    await qemuAt('web.qmp');
    const found = await look({ patienceMs: 100 });
    await expect
      .poll(async () => (await found.guests()).map(({ connected }) => connected))
      .toEqual([false, true]);
    const [stopped] = await found.guests();
    expect(stopped).toMatchObject({ name: 'stopped', lastError: expect.stringMatching(/did not answer/) });
    expect(found.failures().has('stopped')).toBe(true);
    // What is still open is not asked again.
    const asked = monitor.commands.length;
    await found.guests();
    expect(monitor.commands.length).toBe(asked);
  });

  test('vanish with their directory, and are back with it', async () => {
    const { monitor } = await qemuAt('100.qmp');
    const found = await look();
    expect(await namesOf(found)).toEqual(['100']);
    await monitor.close();
    rmSync(directory, { recursive: true });
    expect(await namesOf(found)).toEqual([]);
    mkdirSync(directory);
    await qemuAt('100.qmp');
    expect(await namesOf(found)).toEqual(['100']);
  });

  test('cannot be looked for where there is no directory', () => {
    expect(() => new MonitorDirectory(join(directory, 'nothing'))).toThrow(/there is no such directory/);
  });
});
