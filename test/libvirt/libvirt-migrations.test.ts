/** Migrations of libvirt's domains: ordered, followed, called back, refused, and lost sight of. */
import { afterEach, expect, test } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../../src/control/errors.ts';
import { LibvirtControl } from '../../src/libvirt/libvirt-control.ts';
import type { LibvirtMigrationOptions } from '../../src/libvirt/libvirt-migrations.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { FakeLibvirt, movingJob } from './fake-libvirt.ts';

const TO = 'qemu+ssh://host2/system';
const UUID = 'uuid-of-web';
const GONE = new AerostatError('AEROSTAT_LIBVIRT', 'libvirt cannot be reached: connection reset');

const opened: LibvirtControl[] = [];
afterEach(() => {
  for (const control of opened.splice(0)) control.close();
});

async function world(options: LibvirtMigrationOptions = {}) {
  const libvirt = new FakeLibvirt();
  const other = new FakeLibvirt();
  libvirt.others.set(TO, other);
  libvirt.start('web');
  const control = new LibvirtControl(libvirt, {
    pollMs: 20,
    migrations: { pollMs: 5, patienceMs: 60_000, ...options },
  });
  opened.push(control);
  await control.reached();
  const events: GuestEvent[] = [];
  control.subscribe(event => events.push(event));
  const status = async () => (await control.migration('web')).migration;
  const begun = async (order: object = {}) => {
    await control.migrate('web', { to: TO, ...order });
    await expect.poll(() => libvirt.moving).toBeDefined();
  };
  const arrive = () => {
    libvirt.domains.delete('web');
    libvirt.jobs.delete(UUID);
    other.start('web');
  };
  const asked = (ask: string) => libvirt.asked.filter(question => question.ask === ask);
  return { libvirt, other, control, events, status, begun, arrive, asked };
}

test('a domain is moved, tells how far it is, and how it went by the word of its destination', async () => {
  const { libvirt, other, control, events, status, begun, arrive } = await world();
  expect(await control.migration('web')).toEqual({
    migration: null,
    obstacle: null,
    dirtyBytesPerSecond: null,
  });
  await begun({ bandwidthBytesPerSecond: 2 ** 21, connections: 2, autoConverge: false, persist: true });
  expect(libvirt.asked).toContainEqual({
    ask: 'migrate',
    move: {
      ...{ uuid: UUID, to: TO, bandwidthBytesPerSecond: 2 ** 21, connections: 2 },
      ...{ autoConverge: false, postcopy: false, persist: true },
    },
  });
  libvirt.jobs.set(UUID, movingJob({ auto_converge_throttle: 20, downtime: 300 }));
  await expect.poll(async () => (await status())?.state.status).toBe('active');
  expect(await control.migration('web')).toMatchObject({
    migration: {
      to: TO,
      state: {
        ...{
          elapsedMs: 1000,
          round: 1,
          totalBytes: 2 ** 30,
          sentBytes: 2 ** 28,
          remainingBytes: 3 * 2 ** 28,
        },
        ...{ bytesPerSecond: 2 ** 20, expectedDowntimeMs: 300, guestShare: 0.8 },
      },
      report: null,
      error: null,
    },
    obstacle: null,
    dirtyBytesPerSecond: 409_600,
  });
  arrive();
  const completed = {
    time_elapsed: 9000,
    downtime: 44,
    memory_processed: 2 ** 29,
    memory_normal: 7,
    memory_constant: 8,
  };
  other.completed.set(UUID, { underWay: false, isMigration: false, numbers: completed });
  libvirt.moving?.resolve(undefined);
  await expect
    .poll(async () => (await status())?.report)
    .toMatchObject({
      ...{ totalMs: 9000, downtimeMs: 44, bytes: 2 ** 29, pages: 7, zeroPages: 8, rounds: 1 },
    });
  const told = events.filter(({ type }) => type === 'migration').map(({ detail }) => detail.status);
  expect(told).toEqual(['active', 'done']);
  // It left, which its row does, and what became of it is still told.
  await expect.poll(async () => (await control.guests()).length).toBe(0);
  expect((await control.migration('web')).obstacle).toMatch(/not run here any more/);
  await expect(control.migrate('web', { to: TO })).rejects.toBeInstanceOf(GuestStateError);
  // Where it comes back it can be moved again.
  libvirt.start('web');
  await expect.poll(async () => (await control.guests()).length).toBe(1);
  expect((await control.migration('web')).obstacle).toBeNull();
  expect([libvirt.opened, other.opened]).toEqual([1, 0]);
});

test('a destination that cannot be asked from here has arrived, with what was seen last', async () => {
  const { libvirt, status, begun, arrive } = await world();
  libvirt.others.clear();
  await begun();
  libvirt.jobs.set(UUID, movingJob({ memory_normal: 5, downtime: 300 }));
  await expect.poll(async () => (await status())?.state.status).toBe('active');
  arrive();
  libvirt.moving?.resolve(undefined);
  await expect
    .poll(async () => (await status())?.report)
    .toMatchObject({ downtimeMs: null, bytes: 2 ** 28, pages: 5 });
});

test('a domain that stays says why in libvirt’s words, and what to do', async () => {
  const { libvirt, control, status, begun, events } = await world();
  libvirt.refusal = new AerostatError(
    'AEROSTAT_LIBVIRT_MIGRATION',
    'libvirt cannot move it: Attempt to migrate guest to the same host',
  );
  await control.migrate('web', { to: TO });
  await expect
    .poll(async () => (await status())?.error)
    .toMatchObject({
      code: 'AEROSTAT_LIBVIRT_MIGRATION',
      message: expect.stringMatching(/same host\. web runs on where it was; .*host_uuid/),
    });
  expect(events.at(-1)).toMatchObject({ type: 'migration', detail: { status: 'failed' } });
  // It can be sent again.
  libvirt.refusal = undefined;
  await begun();
  expect((await status())?.error).toBeNull();
});

test.each([
  [{ state: 3, reason: 1 }, 'AEROSTAT_LIBVIRT_MIGRATION', /stands still \(virsh resume web\)/],
  [{ state: 3, reason: 12 }, 'AEROSTAT_LIBVIRT_MIGRATION', /broke off there: .*--postcopy-resume/],
  [
    null,
    'AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN',
    /does not run at test:\/\/\/default any more; look for it at qemu\+ssh/,
  ],
])('a domain that is refused in the middle is said to be where it is: %j', async (place, code, words) => {
  const { libvirt, status, begun } = await world();
  await begun();
  if (place === null) libvirt.domains.delete('web');
  else libvirt.places.set(UUID, place);
  libvirt.moving?.reject(
    new AerostatError('AEROSTAT_LIBVIRT_MIGRATION', 'libvirt cannot move it: stream closed'),
  );
  await expect.poll(async () => (await status())?.error?.message).toMatch(words);
  expect((await status())?.error?.code).toBe(code);
});

test('a domain is called back, also by those who did not send it', async () => {
  const { libvirt, control, status, begun, asked } = await world();
  await expect(control.cancelMigration('web')).rejects.toBeInstanceOf(GuestStateError);
  await expect(control.cancelMigration('db')).rejects.toBeInstanceOf(UnknownGuestError);
  await begun();
  await expect(control.migrate('web', { to: TO })).rejects.toThrow(/moving already/);
  // libvirt has nothing to give up before it has begun.
  const cancelled = control.cancelMigration('web');
  libvirt.jobs.set(UUID, movingJob());
  expect((await cancelled).migration?.state.status).toBe('cancelled');
  expect((await status())?.error?.message).toMatch(/canceled by client\. web runs on where it was$/);
  libvirt.jobs.set(UUID, movingJob());
  await expect.poll(async () => (await status())?.to).toBeNull();
  await expect(control.migrate('web', { to: TO })).rejects.toThrow(/moving already/);
  const before = asked('abortJob').length;
  await control.cancelMigration('web');
  expect(asked('abortJob')).toHaveLength(before + 1);
});

test('a downtime is told once libvirt takes it, and post-copy begins after its rounds', async () => {
  const { libvirt, status, begun, asked } = await world();
  await begun({ downtimeMsMax: 50, postcopyAfterRound: 1 });
  libvirt.jobs.set(UUID, movingJob({ memory_iteration: 1 }));
  await expect.poll(() => asked('setDowntime').length).toBe(1);
  expect(asked('setDowntime')[0]).toMatchObject({ ms: 50 });
  expect(asked('startPostcopy')).toEqual([]);
  libvirt.jobs.set(UUID, movingJob({ memory_iteration: 2, memory_postcopy_requests: 9 }));
  await expect.poll(async () => (await status())?.state.status).toBe('postcopy-active');
  expect((await status())?.state.postcopy).toMatchObject({
    missingBytes: 3 * 2 ** 28,
    faults: 9,
    longestFaultMs: null,
  });
  expect(asked('startPostcopy')).toHaveLength(1);
});

test('a libvirtd that goes away in the middle leaves the migration unknown, until it says that the domain stays', async () => {
  const { libvirt, status, begun } = await world();
  await begun();
  libvirt.lose(GONE);
  await expect.poll(async () => (await status())?.state.status).toBe('unknown');
  expect(await status()).toMatchObject({ report: null, error: null });
  // It stands still to move on, or so it seems.
  libvirt.places.set(UUID, { state: 3, reason: 2 });
  libvirt.failure = undefined;
  const looks = libvirt.asked.length;
  await expect.poll(() => libvirt.asked.length).toBeGreaterThan(looks + 3);
  expect(await status()).toMatchObject({ state: { status: 'unknown' }, report: null, error: null });
  libvirt.places.delete(UUID);
  await expect
    .poll(async () => (await status())?.error)
    .toMatchObject({
      code: 'AEROSTAT_LIBVIRT_MIGRATION',
      message: expect.stringMatching(
        /went away while it moved web .*connection reset.* web runs on where it was/,
      ),
    });
});

test('a migration that libvirtd saw to alone is followed again, and its domain found at its destination', async () => {
  const { libvirt, status, begun, arrive } = await world();
  await begun();
  libvirt.lose(GONE);
  await expect.poll(async () => (await status())?.state.status).toBe('unknown');
  libvirt.jobs.set(UUID, movingJob({ memory_iteration: 4 }));
  libvirt.failure = undefined;
  await expect.poll(async () => (await status())?.state).toMatchObject({ status: 'active', round: 4 });
  arrive();
  await expect.poll(async () => (await status())?.report).toMatchObject({ rounds: 4 });
});

test('a domain that is at neither end, or at one that cannot be asked, is not said to have arrived', async () => {
  for (const words of [/does not run it either/, /cannot be asked from here/]) {
    const { libvirt, status, begun } = await world();
    if (words.source.startsWith('cannot')) libvirt.others.clear();
    await begun();
    libvirt.domains.delete('web');
    libvirt.moving?.reject(GONE);
    await expect.poll(async () => (await status())?.error?.message).toMatch(words);
    expect((await status())?.error?.code).toBe('AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN');
  }
});

test('a libvirtd that does not come back is waited for so long, and not at all by one who calls the domain back', async () => {
  const patient = await world({ patienceMs: 100 });
  await patient.begun();
  patient.libvirt.lose(GONE);
  // The row of the domain says why nothing is known of it.
  await expect
    .poll(async () => (await patient.status())?.error)
    .toMatchObject({
      code: 'AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN',
      message: expect.stringMatching(/whether it runs there or at qemu\+ssh:\/\/host2\/system is not known/),
    });
  const hasty = await world();
  await hasty.begun();
  hasty.libvirt.lose(GONE);
  await expect.poll(async () => (await hasty.status())?.state.status).toBe('unknown');
  expect((await hasty.control.cancelMigration('web')).migration?.error?.message).toMatch(/is not known/);
});

test.each([
  [{ to: 'tcp:host2:4444' }, /write its URI/],
  [{ to: 'file:///var/web' }, /write its URI/],
  [{ to: 'qemu+ext:///system?command=/bin/evil' }, /without a query/],
  [{ to: 'qemu+ssh://host2/system?command=/bin/evil' }, /without a query/],
  [{ to: 'qemu+ssh://-oProxyCommand=evil/system' }, /without a query/],
  [{ to: 'qemu+unix:///system?socket=/tmp/evil' }, /without a query/],
  [{ to: TO, channel: 'hint' }, /takes no --channel/],
  [{ to: TO, compress: true }, /takes no --compress/],
  [{ to: TO, roundsMax: 3 }, /takes no --max-rounds/],
  [{ to: TO, recover: true }, /--postcopy-resume/],
])('a client of the API cannot order %j', async (order, why) => {
  const { control, asked } = await world();
  await expect(control.migrate('web', order)).rejects.toMatchObject({
    code: 'AEROSTAT_MIGRATION_ORDER',
    message: expect.stringMatching(why),
  });
  expect(asked('migrate')).toEqual([]);
});

test('the user of this machine may name any libvirt; nothing is left open when all is closed', async () => {
  const { libvirt, control, begun } = await world({ anyDestination: true });
  await begun({ to: 'qemu+unix:///system?socket=/tmp/other' });
  control.close();
  libvirt.moving?.reject(new AerostatError('AEROSTAT_LIBVIRT_ENDED', 'closed'));
  await expect.poll(() => libvirt.opened).toBe(0);
});

test('many domains are asked about together: as many as there are cost one question', async () => {
  const { libvirt, control, asked } = await world();
  for (let at = 0; at < 100; at++) libvirt.start(`vm${at}`);
  await expect.poll(async () => (await control.guests()).length).toBe(101);
  await Promise.all((await control.guests()).map(({ name }) => control.migration(name)));
  expect(asked('jobs').length).toBeLessThanOrEqual(2);
  // One that libvirt tells nothing of is not said to move.
  libvirt.failure = GONE;
  await expect.poll(async () => (await control.migration('web')).migration).toBeNull();
});
