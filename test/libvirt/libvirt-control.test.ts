/** Domains of a libvirt under the contract, with a libvirt that a test speaks for. The real one is in test/peers/libvirt. */
import { afterEach, describe, expect, test } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { diagnose } from '../../src/control/diagnosis.ts';
import { GuestStateError, UnknownGuestError } from '../../src/control/errors.ts';
import { balloonIn } from '../../src/libvirt/definition.ts';
import { LibvirtControl } from '../../src/libvirt/libvirt-control.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { FakeLibvirt, NONE, PLAIN, WHOLE } from './fake-libvirt.ts';

const MIB = 2 ** 20;
const KIB_OF_GIB = 2 ** 20;

const opened: LibvirtControl[] = [];
afterEach(() => {
  for (const control of opened.splice(0)) control.close();
});

async function world(...names: string[]) {
  const libvirt = new FakeLibvirt();
  for (const name of names) libvirt.start(name);
  const control = new LibvirtControl(libvirt, { pollMs: 20 });
  opened.push(control);
  await control.reached();
  const events: GuestEvent[] = [];
  control.subscribe(event => events.push(event));
  return { libvirt, control, events };
}

describe('the definition of a domain', () => {
  test('says what its balloon offers, whatever other programs wrote into it', () => {
    expect(balloonIn(WHOLE)).toEqual({
      hasBalloon: true,
      features: ['stats-vq', 'deflate-on-oom', 'page-reporting'],
      statisticsPeriod: 5,
    });
    expect(balloonIn(PLAIN)).toEqual({ hasBalloon: true, features: ['stats-vq'], statisticsPeriod: 0 });
    expect(balloonIn(NONE).hasBalloon).toBe(false);
    expect(balloonIn('').hasBalloon).toBe(false);
  });
});

describe('domains of a libvirt', () => {
  test('have the status that libvirt tells, and null for the rest', async () => {
    const { libvirt, control } = await world('web');
    expect(await control.guest('web')).toMatchObject({
      connected: true,
      state: null,
      memoryBytes: 1024 * MIB,
      actualBytes: 0,
      targetBytes: null,
      residentBytes: null,
      balloonedBytes: null,
    });
    Object.assign(libvirt.domains.get('web')!.numbers, { 'state.state': 3 });
    await expect.poll(async () => (await control.guest('web')).state).toBe('paused');
  });

  test('take a target, follow it, and tell; their persistent definition stays', async () => {
    const { libvirt, control, events } = await world('web');
    await control.change('web', { targetBytes: 256 * MIB, force: true });
    expect(libvirt.asked).toContainEqual({
      ask: 'setMemory',
      ...{ uuid: 'uuid-of-web', kib: 768 * 1024, persist: false },
    });
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(256 * MIB);
    expect(events.map(({ type }) => type)).toContain('target-reached');
    await expect(control.change('web', { targetBytes: 2048 * MIB })).rejects.toThrow(GuestStateError);
  });

  test('whose balloon grows beyond what was asked for were given a target by another, which is told once', async () => {
    const { libvirt, control, events } = await world('web');
    const numbers = libvirt.domains.get('web')!.numbers;
    const foreign = () => events.filter(({ detail }) => detail.by === 'another').length;
    await control.change('web', { targetBytes: 256 * MIB, force: true });
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(256 * MIB);
    // What it takes back of itself is no order, and neither is what it has of an earlier one.
    numbers['balloon.current'] = KIB_OF_GIB;
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(0);
    numbers['balloon.current'] = 768 * 1024;
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(256 * MIB);
    expect([foreign(), (await control.guest('web')).lastError]).toEqual([0, null]);
    numbers['balloon.current'] = 512 * 1024;
    await expect
      .poll(async () => (await control.guest('web')).lastError)
      .toMatch(/its target was changed by another/);
    numbers['balloon.current'] = 400 * 1024;
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(624 * MIB);
    expect(foreign()).toBe(1);
    // The next order is ours.
    await control.change('web', { targetBytes: 128 * MIB, force: true });
    await expect.poll(async () => (await control.guest('web')).lastError).toBeNull();
  });

  test('keep target and interval in their definition where that is said, and nothing else', async () => {
    const { libvirt, control } = await world('web');
    await control.change('web', {
      ...{ targetBytes: 256 * MIB, pollIntervalMs: 3000, force: true, persist: true },
    });
    const [uuid, persist] = ['uuid-of-web', true];
    expect(libvirt.asked).toContainEqual({ ask: 'setMemory', uuid, kib: 768 * 1024, persist });
    expect(libvirt.asked).toContainEqual({ ask: 'setStatisticsPeriod', uuid, seconds: 3, persist });
    await control.change('web', { targetBytes: 128 * MIB, pollIntervalMs: 5000, force: true });
    const kept = libvirt.asked.filter(question => 'persist' in question && question.persist);
    expect(kept).toHaveLength(2);
  });

  test('give statistics, asked for where they are old', async () => {
    const { control } = await world('web');
    expect((await control.statistics('web')).ageMs).toBeNull();
    const { statistics } = await control.statistics('web', { freshMs: 0, timeoutMs: 2000 });
    expect(statistics).toMatchObject({ availableBytes: 512 * MIB, totalBytes: 1024 * MIB, oomKills: null });
    expect((await control.guest('web')).state).toBe('running');
  });

  test('come and go', async () => {
    const { libvirt, control, events } = await world('web');
    libvirt.start('db');
    await expect
      .poll(() => events.some(({ guest, type }) => guest === 'db' && type === 'connected'))
      .toBe(true);
    libvirt.domains.delete('web');
    await expect.poll(async () => (await control.guests()).map(({ name }) => name)).toEqual(['db']);
    await expect(control.guest('web')).rejects.toThrow(UnknownGuestError);
    expect(events.some(({ guest, type }) => guest === 'web' && type === 'disconnected')).toBe(true);
  });

  test('that were started anew between two looks are new ones, with the balloon that they have now', async () => {
    const { libvirt, control, events } = await world('web');
    expect((await control.guest('web')).features).toContain('page-reporting');
    await control.change('web', { targetBytes: 256 * MIB, force: true });
    libvirt.start('web', PLAIN);
    await expect.poll(async () => (await control.guest('web')).features).toEqual(['stats-vq']);
    expect((await control.guest('web')).targetBytes).toBeNull();
    expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(['disconnected', 'connected']));
  });

  test('are rows with the reason while libvirt cannot be asked, and are back after', async () => {
    const { libvirt, control, events } = await world('web');
    libvirt.failure = new AerostatError('AEROSTAT_LIBVIRT', 'connection refused');
    await expect.poll(async () => (await control.guests())[0].lastError).toMatch(/connection refused/);
    expect(control.failures().get('web')?.message).toMatch(/connection refused/);
    libvirt.failure = undefined;
    await expect.poll(async () => (await control.guests())[0].connected).toBe(true);
    expect(control.failures().size).toBe(0);
    expect(events.filter(({ type }) => type === 'disconnected')).toHaveLength(1);
  });

  test('are seen at once where libvirt tells of them, and looked at less often of themselves', async () => {
    const libvirt = new FakeLibvirt();
    libvirt.start('web');
    const control = new LibvirtControl(libvirt, { pollMs: 60 });
    opened.push(control);
    await control.reached();
    const events: GuestEvent[] = [];
    control.subscribe(event => events.push(event));
    const looks = () => libvirt.asked.filter(({ ask }) => ask === 'domains').length;
    /** Looks within twenty periods. */
    const counted = async () => {
      const before = looks();
      await new Promise(resolve => setTimeout(resolve, 1200));
      return looks() - before;
    };
    const polled = await counted();
    libvirt.tell({ event: 'following', told: true });
    expect(await counted()).toBeLessThan(0.75 * polled);

    // Of a balloon libvirt says itself what it leaves.
    await control.change('web', { targetBytes: 256 * MIB, force: true });
    const before = looks();
    libvirt.tell({ event: 'balloon', uuid: 'uuid-of-web', kib: KIB_OF_GIB / 2 });
    libvirt.tell({ event: 'reset', uuid: 'uuid-of-web' });
    expect(events).toContainEqual(
      expect.objectContaining({ type: 'target', detail: expect.objectContaining({ by: 'another' }) }),
    );
    expect(events.map(({ type }) => type)).toContain('reset');
    expect(looks()).toBe(before);
    libvirt.tell({ event: 'balloon', uuid: 'of none', kib: 1 });

    // Losing the connection is an event, too, and from then on it is polled as before.
    libvirt.failure = new AerostatError('AEROSTAT_LIBVIRT', 'connection refused');
    libvirt.tell({ event: 'lost' });
    await expect.poll(() => control.failures().has('web')).toBe(true);
    libvirt.failure = undefined;
    await expect.poll(() => control.failures().has('web')).toBe(false);
  });

  test('that start and end are seen without a period, in one look however many there are', async () => {
    const libvirt = new FakeLibvirt();
    libvirt.start('web');
    const control = new LibvirtControl(libvirt, { pollMs: 2 ** 30 });
    opened.push(control);
    await control.reached();
    const seen: string[] = [];
    control.subscribe(({ guest, type }) => seen.push(`${guest} ${type}`));
    const looks = () => libvirt.asked.filter(({ ask }) => ask === 'domains').length;
    const before = looks();
    libvirt.domains.delete('web');
    for (const name of ['a', 'b', 'c']) {
      libvirt.start(name);
      libvirt.tell({ event: 'lifecycle' });
    }
    await expect.poll(() => seen).toEqual(expect.arrayContaining(['web disconnected', 'c connected']));
    expect(looks() - before).toBe(1);
  });

  test('that cannot be reached at all are an error, not an empty list', async () => {
    const libvirt = new FakeLibvirt();
    libvirt.failure = new AerostatError('AEROSTAT_LIBVIRT', 'no such file');
    const control = new LibvirtControl(libvirt);
    opened.push(control);
    await expect(control.reached()).rejects.toThrow(/no such file/);
    await expect(control.guests()).rejects.toThrow(/no such file/);
  });

  test('are asked for together: as many guests as there are cost one question', async () => {
    const names = Array.from({ length: 100 }, (_, index) => `vm${index}`);
    const { libvirt, control } = await world(...names);
    const looks = () => libvirt.asked.filter(({ ask }) => ask === 'domains').length;
    const definitions = libvirt.asked.filter(({ ask }) => ask === 'definition').length;
    expect(definitions).toBe(100);
    const before = looks();
    expect(await control.guests()).toHaveLength(100);
    expect(looks() - before).toBeLessThanOrEqual(2);
    expect(libvirt.asked.filter(({ ask }) => ask === 'definition')).toHaveLength(100);
  });

  test('are examined by doctor, with the line that mends each', async () => {
    const { libvirt, control } = await world('whole');
    libvirt.start('plain', PLAIN)['balloon.current'] = KIB_OF_GIB / 2;
    libvirt.start('none', NONE);
    await expect.poll(async () => (await control.guests()).length).toBe(3);
    const findings = diagnose({
      host: {
        totalBytes: null,
        availableBytes: null,
        sharedBytes: null,
        swapTotalBytes: null,
        swapFreeBytes: null,
        pressure: null,
      },
      guests: await control.guests(),
      samples: await control.samples(),
      failures: control.failures(),
    });
    expect(findings.map(({ guest, id }) => `${guest} ${id}`)).toEqual([
      'plain no-deflate-on-oom',
      'plain no-reporting',
      'none no-balloon',
      'whole old-statistics',
      'plain old-statistics',
    ]);
    expect(findings.map(({ remedy }) => remedy).join('\n')).toMatch(
      /autodeflate='on'[\s\S]*<memballoon[\s\S]*<stats period='5'/,
    );
  });
});
