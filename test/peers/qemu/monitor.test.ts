import { describe, expect, it } from 'vitest';
import { QmpConnectionError } from '../../../src/peers/qemu/errors.ts';
import { QmpMonitor } from '../../../src/peers/qemu/monitor.ts';
import { FakeMonitor } from './fake-monitor.ts';
import { cleanUp, until } from './peer.ts';

describe('a monitor that is held on to', () => {
  const finally_ = cleanUp();

  async function fake(): Promise<FakeMonitor> {
    const monitor = await FakeMonitor.start();
    finally_(() => monitor.close());
    return monitor;
  }

  function held(path: string, reconnectMs = 10): QmpMonitor {
    const monitor = new QmpMonitor(path, { reconnectMs });
    finally_(() => monitor.close());
    return monitor;
  }

  it('connects by itself, and takes commands at once', async () => {
    const qemu = await fake();
    qemu.respond = request => qemu.answer(request, request.command);
    expect(await held(qemu.path).execute('query-status')).toBe('query-status');
    expect(qemu.requests.filter(({ command }) => command === 'qmp_capabilities')).toHaveLength(1);
  });

  it('is reached again after it was lost, and tells both', async () => {
    const qemu = await fake();
    const monitor = held(qemu.path);
    const told: (string | null)[] = [];
    const events: string[] = [];
    monitor.onConnection(lost => told.push(lost === null ? null : lost.code));
    monitor.onEvent(({ name }) => events.push(name));
    await monitor.execute('query-status');
    qemu.event('STOP');
    await until(() => events.length === 1);
    qemu.dropConnections();
    await until(() => told.length === 3);
    qemu.event('RESUME');
    await until(() => events.length === 2);
    expect(told).toEqual([null, 'AEROSTAT_QMP_CONNECTION', null]);
    expect(events).toEqual(['STOP', 'RESUME']);
    expect(await monitor.execute('query-status')).toEqual({});
  });

  it('fails commands at once while no QEMU is there', async () => {
    const monitor = held('/nowhere/qmp', 60_000);
    await expect(monitor.execute('query-status')).rejects.toBeInstanceOf(QmpConnectionError);
    expect(monitor.connected).toBe(false);
  });

  it('is left alone once it was closed', async () => {
    const qemu = await fake();
    const monitor = held(qemu.path);
    await monitor.execute('query-status');
    monitor.close();
    await expect(monitor.execute('query-status')).rejects.toBeInstanceOf(QmpConnectionError);
    expect(monitor.connected).toBe(false);
  });
});
