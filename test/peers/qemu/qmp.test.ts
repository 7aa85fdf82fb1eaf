import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { QmpConnectionError, QmpError, QmpTimeoutError } from '../../../src/peers/qemu/errors.ts';
import { connectQmp, QMP_LINE_BYTES_MAX, type QmpConnection } from '../../../src/peers/qemu/qmp.ts';
import * as commands from '../../../src/peers/qemu/qmp-commands.ts';
import { parseQmpLine } from '../../../src/peers/qemu/qmp-wire.ts';
import { FakeMonitor, type FakeMonitorOptions, type FakeRequest } from './fake-monitor.ts';
import { until } from './peer.ts';

const monitors: FakeMonitor[] = [];
const connections: QmpConnection[] = [];

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.close();
  for (const monitor of monitors.splice(0)) await monitor.close();
});

async function fake(options: FakeMonitorOptions = {}): Promise<FakeMonitor> {
  const monitor = await FakeMonitor.start(options);
  monitors.push(monitor);
  return monitor;
}

async function connected(options: FakeMonitorOptions = {}) {
  const monitor = await fake(options);
  const qmp = await connectQmp(monitor.path);
  connections.push(qmp);
  return { monitor, qmp };
}

const turn = () => new Promise(resolve => setTimeout(resolve, 20));

describe('a monitor connection', () => {
  it('leaves the negotiation without asking for anything, and tells the version', async () => {
    const { monitor, qmp } = await connected();
    expect(qmp.version).toEqual({ major: 9, minor: 1, micro: 2, package: 'fake' });
    expect(monitor.requests).toMatchObject([{ command: 'qmp_capabilities', arguments: {} }]);
  });

  it('understands messages that arrive byte by byte', async () => {
    const { monitor, qmp } = await connected({ pieceBytes: 1 });
    monitor.respond = request => monitor.answer(request, { actual: 12345 });
    expect(await commands.queryBalloon(qmp)).toBe(12345);
  });

  it('matches answers to commands in whatever order they come', async () => {
    const { monitor, qmp } = await connected();
    const held: FakeRequest[] = [];
    monitor.respond = request => {
      held.push(request);
      if (held.length === 3) for (const each of held.reverse()) monitor.answer(each, each.command);
    };
    const answers = await Promise.all(['a', 'b', 'c'].map(command => qmp.execute(command)));
    expect(answers).toEqual(['a', 'b', 'c']);
  });

  it('keeps at most eight commands in flight, and sends the next as they are answered', async () => {
    const { monitor, qmp } = await connected();
    const held: FakeRequest[] = [];
    monitor.respond = request => void held.push(request);
    const answers = Promise.all(Array.from({ length: 20 }, (_, index) => qmp.execute(`c${index}`)));
    await expect.poll(() => held.length).toBe(8);
    await turn();
    expect(held).toHaveLength(8);
    monitor.respond = request => monitor.answer(request, request.command);
    for (const request of held) monitor.answer(request, request.command);
    expect(await answers).toEqual(Array.from({ length: 20 }, (_, index) => `c${index}`));
  });

  it('tells an error with its class and words', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = request => monitor.refuse(request, 'DeviceNotFound', "Device 'x' not found");
    const attempt = qmp.execute('device_del', { id: 'x' });
    await expect(attempt).rejects.toBeInstanceOf(QmpError);
    const told = { code: 'AEROSTAT_QMP', errorClass: 'DeviceNotFound', command: 'device_del' };
    await expect(attempt).rejects.toMatchObject(told);
    await expect(attempt).rejects.toThrow("Device 'x' not found");
  });

  it('gives up a command after its time, and takes no harm from the late answer', async () => {
    const { monitor, qmp } = await connected();
    const held: FakeRequest[] = [];
    monitor.respond = request => void held.push(request);
    await expect(qmp.execute('slow', {}, { timeoutMs: 20 })).rejects.toBeInstanceOf(QmpTimeoutError);
    await until(() => held.length === 1);
    monitor.respond = request => monitor.answer(request, 'quick');
    monitor.answer(held[0], 'late');
    expect(await qmp.execute('next')).toBe('quick');
  });

  it('counts commands that it gave up as in flight until they are answered', async () => {
    const { monitor, qmp } = await connected();
    const held: FakeRequest[] = [];
    monitor.respond = request => void held.push(request);
    const late = Array.from({ length: 8 }, () =>
      qmp.execute('slow', {}, { timeoutMs: 20 }).catch(() => 'late'),
    );
    await Promise.all(late);
    await until(() => held.length === 8);
    const ninth = qmp.execute('ninth');
    await turn();
    expect(held).toHaveLength(8);
    monitor.respond = request => monitor.answer(request, request.command);
    monitor.answer(held[3], {});
    expect(await ninth).toBe('ninth');
  });

  it('rejects all that is outstanding when QEMU goes away, and all that comes after', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = () => monitor.dropConnections();
    const results = await Promise.allSettled(Array.from({ length: 12 }, () => qmp.execute('query-status')));
    for (const result of results) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'AEROSTAT_QMP_CONNECTION' } });
    }
    expect(qmp.open).toBe(false);
    await expect(qmp.execute('query-status')).rejects.toBeInstanceOf(QmpConnectionError);
    expect(await qmp.ended).toBeInstanceOf(QmpConnectionError);
  });

  it.each([
    ['garbage', 'hello\n'],
    ['JSON that is no message', '{"status": 5}\n'],
    ['an array', '[]\n'],
    ['a number', '7\n'],
    ['an event without a time', '{"event": "STOP"}\n'],
    ['an error of a strange shape', '{"error": "no", "id": 2}\n'],
    ['an error without an id', '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'],
    [
      'a second greeting',
      '{"QMP":{"version":{"qemu":{"major":1,"minor":1,"micro":1},"package":""},"capabilities":[]}}\n',
    ],
  ])('ends when it is sent %s', async (_, text) => {
    const { monitor, qmp } = await connected();
    monitor.respond = () => monitor.sendText(text);
    await expect(qmp.execute('query-status')).rejects.toBeInstanceOf(QmpConnectionError);
  });

  it('ends rather than collect a line without end', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = () => monitor.sendText('x'.repeat(QMP_LINE_BYTES_MAX + 1));
    await expect(qmp.execute('query-status')).rejects.toThrow(/line of more than/);
  });

  it('ignores answers to commands that were never sent', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = request => {
      monitor.sendText('{"return": {}, "id": 4711}\n{"return": {}, "id": "x"}\n{"return": {}}\n');
      monitor.answer(request, 'mine');
    };
    expect(await qmp.execute('query-status')).toBe('mine');
  });
});

describe('connecting to a monitor', () => {
  it('says that the socket is not there', async () => {
    await expect(connectQmp('/nowhere/qmp')).rejects.toThrow(/no such socket; start QEMU with -qmp/);
  });

  it('says that something else listens', async () => {
    const monitor = await fake({ greeting: 'SSH-2.0-OpenSSH\n' });
    await expect(connectQmp(monitor.path)).rejects.toThrow(/not a QEMU monitor in QMP mode/);
  });

  it('suspects another client when there is no greeting', async () => {
    const monitor = await fake({ greeting: null });
    const attempt = connectQmp(monitor.path, { greetingTimeoutMs: 30 });
    await expect(attempt).rejects.toThrow(/is another program connected/);
  });
});

describe('events', () => {
  it('reach listeners with their data and time, until those leave', async () => {
    const { monitor, qmp } = await connected();
    const seen: number[] = [];
    const leave = commands.onQemuEvent(qmp, 'BALLOON_CHANGE', ({ actual }, event) => {
      seen.push(actual, event.timeMs);
    });
    monitor.respond = request => {
      monitor.event('BALLOON_CHANGE', { actual: 4096 });
      monitor.event('RESUME');
      monitor.answer(request, {});
    };
    await qmp.execute('balloon');
    leave();
    await qmp.execute('balloon');
    expect(seen).toEqual([4096, 1700000000250]);
  });

  it('of a shape that their name does not promise are passed over', async () => {
    const { monitor, qmp } = await connected();
    const seen: unknown[] = [];
    commands.onQemuEvent(qmp, 'BALLOON_CHANGE', data => seen.push(data));
    monitor.respond = request => {
      monitor.event('BALLOON_CHANGE', { actual: 'much' });
      monitor.answer(request, {});
    };
    await qmp.execute('balloon');
    expect(seen).toEqual([]);
  });
});

describe('typed commands', () => {
  it('refuse an answer of another shape', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = request => monitor.answer(request, { actual: 'all' });
    await expect(commands.queryBalloon(qmp)).rejects.toMatchObject({ code: 'AEROSTAT_QMP_ANSWER' });
  });

  it('tell a QEMU without a balloon from a failure', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = request => monitor.refuse(request, 'DeviceNotActive', 'No balloon device');
    expect(await commands.queryBalloon(qmp)).toBeNull();
    monitor.respond = request => monitor.refuse(request, 'GenericError', 'oops');
    await expect(commands.queryBalloon(qmp)).rejects.toBeInstanceOf(QmpError);
  });

  it('leave out statistics that the guest did not give', async () => {
    const { monitor, qmp } = await connected();
    monitor.respond = request =>
      monitor.sendText(
        `{"return": {"stats": {"stat-free-memory": 4096, "stat-swap-in": 18446744073709551615, "stat-swap-out": -1}, "last-update": 1700000000}, "id": ${request.id}}\n`,
      );
    const { values, updatedMs } = await commands.queryGuestStats(qmp, '/machine/peripheral/balloon');
    expect([...values]).toEqual([['stat-free-memory', 4096]]);
    expect(updatedMs).toBe(1700000000000);
  });
});

describe('reading a line of QMP', () => {
  it('gives a message or nothing, and never throws', () => {
    const word = fc.constantFrom(
      'return',
      'error',
      'event',
      'QMP',
      'id',
      'class',
      'desc',
      'timestamp',
      '__proto__',
    );
    const json = fc.dictionary(word, fc.jsonValue()).map(value => JSON.stringify(value));
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json(), json), line => void parseQmpLine(line)));
  });
});
