import { describe, expect, it } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../../src/control/errors.ts';
import { QmpConnectionError } from '../../src/peers/qemu/errors.ts';
import { QemuControl } from '../../src/qemu/qemu-control.ts';
import { FakeMonitor } from '../peers/qemu/fake-monitor.ts';
import { FakeQemu } from '../peers/qemu/fake-qemu.ts';
import { cleanUp, until } from '../peers/qemu/peer.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describe('a guest of QEMU under our control', () => {
  const finally_ = cleanUp();

  async function world({ major = 9 } = {}) {
    const qemu = new FakeQemu();
    const version = { qemu: { major, minor: 1, micro: 3 }, package: 'fake' };
    const monitor = await FakeMonitor.start({
      greeting: `${JSON.stringify({ QMP: { version, capabilities: ['oob'] } })}\r\n`,
      respond: (request, from) => qemu.answer(request, from),
    });
    finally_(() => monitor.close());
    const control = new QemuControl([{ name: 'vm', qmpPath: monitor.path, reconnectMs: 10 }]);
    finally_(() => control.close());
    const events: GuestEvent[] = [];
    control.subscribe(event => events.push(event));
    return { qemu, monitor, control, events };
  }

  it('has the status that QEMU tells, and null for the rest', async () => {
    const { control, monitor } = await world();
    expect(await control.guest('vm')).toEqual({
      name: 'vm',
      socketPath: monitor.path,
      connected: true,
      profile: 'virtio',
      features: ['stats-vq', 'page-reporting', 'ring-event-idx'],
      discard: null,
      memoryBytes: GIB,
      memoryPlace: null,
      memorySealed: null,
      targetBytes: null,
      actualBytes: 0,
      balloonedBytes: null,
      incompleteBytes: null,
      state: 'running',
      pendingBytes: 0,
      discardedBytes: null,
      reportedBytes: null,
      residentBytes: null,
      counters: null,
      progress: null,
      hint: null,
      granularityBytes: null,
      shownTargetBytes: null,
      wishedMemoryBytes: null,
      targetOwner: null,
      removedBytes: null,
      stuck: null,
      lastError: null,
    });
  });

  it('is not asked what ends QEMU 11.1.3', async () => {
    const { control, monitor } = await world({ major: 11 });
    expect(await control.guest('vm')).toMatchObject({ connected: true, state: null, features: null });
    expect(monitor.commands).not.toContain('x-query-virtio-status');
  });

  it('does not know its features where QEMU cannot be asked', async () => {
    const { control, qemu } = await world();
    qemu.features = [];
    expect(await control.guest('vm')).toMatchObject({ features: null, actualBytes: 0, state: null });
  });

  it('reckons what the guest is to keep at once, and refuses more than there is', async () => {
    const { control, qemu } = await world();
    expect(await control.change('vm', { memoryBytes: 768 * MIB })).toMatchObject({
      targetBytes: 256 * MIB,
      wishedMemoryBytes: null,
    });
    expect(qemu.left).toBe(768 * MIB);
    await expect(control.change('vm', { memoryBytes: 2 * GIB })).rejects.toThrow(/cannot keep 2G/);
  });

  it('takes a target for its balloon, follows it, and tells', async () => {
    const { control, qemu, events } = await world();
    await control.change('vm', { targetBytes: 256 * MIB });
    expect(qemu.left).toBe(GIB - 256 * MIB);
    await until(() => events.some(({ type }) => type === 'target-reached'));
    const status = await control.guest('vm');
    expect(status).toMatchObject({ targetBytes: 256 * MIB, actualBytes: 256 * MIB });
    expect(status.progress?.reachedMs).toBeGreaterThanOrEqual(0);
    const told = events.map(({ type, detail }) => [type, detail.targetBytes ?? detail.actualBytes]);
    expect(told).toContainEqual(['target', 256 * MIB]);
    expect(told).toContainEqual(['actual', 256 * MIB]);
    expect(told.filter(([type]) => type === 'target-reached')).toHaveLength(1);
  });

  it('refuses a target as large as its memory', async () => {
    const { control } = await world();
    await expect(control.change('vm', { targetBytes: GIB })).rejects.toBeInstanceOf(GuestStateError);
  });

  it('gives the statistics that it has, by our names', async () => {
    const { control } = await world();
    const { statistics, ageMs } = await control.statistics('vm');
    expect(statistics).toMatchObject({ freeBytes: 4096, swapInBytes: null, totalBytes: null });
    expect(ageMs).toBeNull();
  });

  it('is left out of all samples when it cannot be reached', async () => {
    const { monitor } = await world();
    const control = new QemuControl([
      { name: 'here', qmpPath: monitor.path },
      { name: 'gone', qmpPath: '/nowhere/qmp' },
    ]);
    finally_(() => control.close());
    expect(Object.keys(await control.samples())).toEqual(['here']);
  });

  it('is asked for new statistics when old ones will not do, and is left as it was', async () => {
    const { control, qemu } = await world();
    const { ageMs } = await control.statistics('vm', { freshMs: 1000 });
    expect(ageMs).not.toBeNull();
    expect(qemu.interval).toBe(0);
  });

  it('is not taken at its word about the time, when its clock is an hour ahead of ours', async () => {
    const { control, qemu } = await world();
    let asked = 0;
    const ahead = Math.floor(Date.now() / 1000) + 3600;
    qemu.updated = ahead;
    qemu.askStatistics = () => {
      asked++;
      qemu.updated = ahead + asked;
    };
    expect((await control.statistics('vm')).ageMs).not.toBeNull();
    await control.statistics('vm', { freshMs: 1000 });
    expect(asked).toBe(1);
    // From here on it is known when the sample came.
    const { ageMs } = await control.statistics('vm');
    expect((await control.statistics('vm')).ageMs).toBeGreaterThan(ageMs ?? Number.NaN);
    await control.statistics('vm', { freshMs: 60_000 });
    expect(asked).toBe(1);
  });

  it('says what its balloon held when its statistics changed', async () => {
    const { control, qemu } = await world();
    qemu.updated = 1_700_000_000;
    expect((await control.statistics('vm')).balloonedBytes).toBeNull();
    await control.guest('vm');
    qemu.left = GIB - 64 * MIB;
    qemu.updated++;
    // It moved between two looks: the least that it may have been.
    expect((await control.statistics('vm')).balloonedBytes).toBe(0);
    await control.guest('vm');
    qemu.updated++;
    expect((await control.statistics('vm')).balloonedBytes).toBe(64 * MIB);
  });

  it('is asked once for new statistics that several want', async () => {
    const { control, qemu } = await world();
    let asked = 0;
    qemu.askStatistics = () => {
      asked++;
    };
    const first = control.statistics('vm', { freshMs: 1000 });
    await until(() => asked === 1);
    const second = control.statistics('vm', { freshMs: 1000 });
    setTimeout(() => {
      qemu.updated = 1_800_000_000;
    }, 100);
    for (const { ageMs } of await Promise.all([first, second])) expect(ageMs).not.toBeNull();
    expect(asked).toBe(1);
    expect(qemu.interval).toBe(0);
  });

  it('may not answer when it is asked for statistics', async () => {
    const { control, qemu } = await world();
    qemu.askStatistics = () => {};
    const attempt = control.statistics('vm', { freshMs: 1000, timeoutMs: 60 });
    await expect(attempt).rejects.toBeInstanceOf(GuestStateError);
    expect(qemu.interval).toBe(0);
  });

  it('gives no statistics when its driver did not take the feature', async () => {
    const { control, qemu } = await world();
    qemu.features = ['VIRTIO_BALLOON_F_REPORTING: words'];
    await expect(control.statistics('vm', { freshMs: 0 })).rejects.toThrow(/did not take that feature/);
  });

  it('has its statistics polled in whole seconds', async () => {
    const { control, qemu } = await world();
    await control.change('vm', { pollIntervalMs: 1500 });
    expect(qemu.interval).toBe(2);
    await control.change('vm', { pollIntervalMs: 0 });
    expect(qemu.interval).toBe(0);
  });

  it('changes all that it is asked to, or nothing', async () => {
    const { control, qemu } = await world();
    const left = qemu.left;
    for (const refused of [{ discard: 'none' }, { targetBytes: 2 * GIB }, { persist: true }] as const) {
      await expect(
        control.change('vm', { pollIntervalMs: 3000, targetBytes: MIB, ...refused }),
      ).rejects.toThrow(GuestStateError);
      expect(qemu).toMatchObject({ interval: 0, left });
    }
    await control.change('vm', { pollIntervalMs: 3000, targetBytes: MIB });
    expect(qemu).toMatchObject({ interval: 3, left: left - MIB });
  });

  it('may have no balloon', async () => {
    const { control, qemu } = await world();
    qemu.balloon = false;
    expect(await control.guest('vm')).toMatchObject({
      connected: false,
      state: 'waiting',
      profile: null,
      actualBytes: null,
    });
    await expect(control.change('vm', { targetBytes: MIB })).rejects.toThrow(/-device virtio-balloon-pci/);
  });

  it('is refused what QEMU does not do', async () => {
    const { control } = await world();
    await expect(control.change('vm', { discard: 'none' })).rejects.toBeInstanceOf(GuestStateError);
    await expect(control.map('vm')).rejects.toBeInstanceOf(GuestStateError);
    await expect(control.hint('vm')).rejects.toThrow(/only while it migrates/);
    await expect(control.guest('other')).rejects.toBeInstanceOf(UnknownGuestError);
  });

  it('is told of as unreachable, whatever is asked', async () => {
    const control = new QemuControl([{ name: 'vm', qmpPath: '/nowhere/qmp' }]);
    finally_(() => control.close());
    await expect(control.guests()).rejects.toThrow(/no such socket/);
    await expect(control.guest('vm')).rejects.toBeInstanceOf(QmpConnectionError);
    await expect(control.change('vm', { targetBytes: MIB })).rejects.toBeInstanceOf(QmpConnectionError);
  });

  it('is in the states that guests of our device are in, and says at once what keeps it from answering', async () => {
    const { control, qemu, monitor, events } = await world();
    const fresh = { freshMs: 0, timeoutMs: 60_000 };
    qemu.driver = false;
    expect(await control.guest('vm')).toMatchObject({ connected: true, state: 'no-driver', lastError: null });
    await expect(control.statistics('vm', fresh)).rejects.toThrow(/balloon driver has not started yet/);
    qemu.driver = true;
    qemu.runState = 'paused';
    monitor.event('STOP', {});
    await until(() => events.some(({ type, detail }) => type === 'state' && detail.state === 'paused'));
    expect(await control.guest('vm')).toMatchObject({ connected: true, state: 'paused' });
    await expect(control.statistics('vm', fresh)).rejects.toThrow(/it is paused: its hypervisor/);
    qemu.runState = 'running';
    monitor.event('RESUME', {});
    await until(() => events.some(({ type, detail }) => type === 'state' && detail.state === 'running'));
    // Without word of the driver, a machine that stands still is known to, and no more.
    qemu.features = [];
    qemu.runState = 'io-error';
    expect((await control.guest('vm')).state).toBe('paused');
  });

  it.each([
    'query-status',
    'query-memory-size-summary',
    'query-balloon',
    'qom-list',
    'qom-get',
    'qom-set',
    'balloon',
    'x-query-virtio-status',
  ])('fails with words when QEMU goes in the middle of %s', async command => {
    const { control, monitor } = await world();
    const { respond } = monitor;
    monitor.respond = (request, from) => {
      if (request.command === command) monitor.dropConnections();
      else respond(request, from);
    };
    const all = Promise.allSettled([
      control.guest('vm'),
      control.change('vm', { targetBytes: MIB }),
      control.statistics('vm', { freshMs: 0 }),
      control.change('vm', { pollIntervalMs: 1000 }),
    ]);
    const reasons = (await all).flatMap(result => (result.status === 'rejected' ? [result.reason] : []));
    expect(reasons.length).toBeGreaterThan(0);
    for (const reason of reasons) expect(reason).toBeInstanceOf(QmpConnectionError);
  });

  it('tells when it goes and comes, and forgets its target', async () => {
    const { control, monitor, events } = await world();
    await control.change('vm', { targetBytes: MIB });
    monitor.dropConnections();
    await until(() => events.filter(({ type }) => type === 'connected').length === 2);
    const types = events.map(({ type }) => type).filter(type => type.endsWith('connected'));
    expect(types).toEqual(['connected', 'disconnected', 'connected']);
    expect((await control.guest('vm')).targetBytes).toBeNull();
  });
});
