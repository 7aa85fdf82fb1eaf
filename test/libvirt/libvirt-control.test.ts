/** Domains of a libvirt under the contract, with a libvirt that a test speaks for. The real one is in test/peers/libvirt. */
import { afterEach, describe, expect, test } from 'vitest';
import { type GuestEvent, GuestStateError, UnknownGuestError } from '../../src/control/contract.ts';
import { diagnose } from '../../src/control/diagnosis.ts';
import { balloonIn } from '../../src/libvirt/definition.ts';
import { LibvirtControl } from '../../src/libvirt/libvirt-control.ts';
import type { LibvirtQuestion } from '../../src/libvirt/questions.ts';
import { AerostatError } from '../../src/sys/error.ts';

const MIB = 2 ** 20;
const KIB_OF_GIB = 2 ** 20;

const WHOLE = `<domain><metadata><x:memballoon model='none'/></metadata><devices><disk/>
  <memballoon model='virtio' autodeflate='on' freePageReporting='on'>
    <stats period='5'/><alias name='balloon0'/>
  </memballoon></devices></domain>`;
const PLAIN = `<domain><devices><memballoon model='virtio'/></devices></domain>`;
const NONE = `<domain><devices><memballoon model='none'/></devices></domain>`;

/** A libvirt of which a test says what domains it has. */
class FakeLibvirt {
  readonly uri = 'test:///default';
  readonly domains = new Map<string, { uuid: string; xml: string; numbers: Record<string, number> }>();
  readonly asked: LibvirtQuestion[] = [];
  failure: AerostatError | undefined;

  start(name: string, xml = WHOLE): Record<string, number> {
    const numbers = { 'state.state': 1, 'balloon.maximum': KIB_OF_GIB, 'balloon.current': KIB_OF_GIB };
    this.domains.set(name, { uuid: `uuid-of-${name}`, xml, numbers });
    return numbers;
  }

  readonly ask = async (question: LibvirtQuestion): Promise<never> => {
    this.asked.push(question);
    if (this.failure !== undefined) throw this.failure;
    return this.#answer(question) as never;
  };

  close(): void {}

  #answer(question: LibvirtQuestion): unknown {
    if (question.ask === 'domains') {
      return [...this.domains].map(([name, { uuid, numbers }]) => ({ name, uuid, numbers: { ...numbers } }));
    }
    const domain = [...this.domains.values()].find(({ uuid }) => uuid === question.uuid);
    if (domain === undefined) throw new AerostatError('AEROSTAT_LIBVIRT', 'no domain');
    if (question.ask === 'definition') return domain.xml;
    if (question.ask === 'setMemory') domain.numbers['balloon.current'] = question.kib;
    if (question.ask === 'setStatisticsPeriod') {
      domain.numbers['balloon.last-update'] = 1_800_000_000;
      domain.numbers['balloon.usable'] = KIB_OF_GIB / 2;
      domain.numbers['balloon.available'] = KIB_OF_GIB;
    }
    return undefined;
  }
}

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
    expect(libvirt.asked).toContainEqual({ ask: 'setMemory', uuid: 'uuid-of-web', kib: 768 * 1024 });
    await expect.poll(async () => (await control.guest('web')).actualBytes).toBe(256 * MIB);
    expect(events.map(({ type }) => type)).toContain('target-reached');
    await expect(control.change('web', { targetBytes: 2048 * MIB })).rejects.toThrow(GuestStateError);
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

  test('are moved by libvirt, which is what an order says', async () => {
    const { control } = await world('web');
    expect((await control.migration('web')).obstacle).toMatch(/virsh migrate/);
    await expect(control.migrate('web')).rejects.toThrow(/virsh migrate --live web/);
  });
});
