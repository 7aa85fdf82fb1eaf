import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { GuestStateError, UnconfirmedError, UnknownGuestError } from '../../src/control/errors.ts';
import type { MigrationReport, MigrationStatus } from '../../src/control/migrations.ts';
import { CONNECTIONS_MAX, DOWNTIME_MS_MAX, ROUNDS_MAX } from '../../src/migration/limits.ts';
import { parseAddress } from '../../src/server/address.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { run, type Session, start, type Terminal } from './terminal.ts';

let directory: string;
let api: string;
let control: FakeControl;
let server: ApiServer;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  api = join(directory, 'api.sock');
  control = new FakeControl(
    guestStatus('vm1', { targetBytes: GIB, actualBytes: GIB, balloonedBytes: GIB, pendingBytes: 64 * MIB }),
    guestStatus('build-runner', {
      connected: false,
      memoryBytes: null,
      actualBytes: null,
      residentBytes: null,
      lastError: 'the front-end vanished',
    }),
  );
  server = await serveApi(control, { version: '0', address: parseAddress(api) });
});

afterEach(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

const aerostat = (words: string, terminal: Terminal = {}) =>
  run(words.split(' '), { ...terminal, env: { AEROSTAT_API: api, ...terminal.env } });

const cursorIsShown = ({ stderr: { text } }: Session) =>
  text.lastIndexOf('\u001b[?25h') > text.lastIndexOf('\u001b[?25l');

/** Of a migration that is over. */
const REPORT: MigrationReport = {
  totalMs: 512,
  downtimeMs: 23,
  rounds: 3,
  bytes: 300 * MIB,
  pages: 76_000,
  zeroPages: 12,
  resentPages: 400,
  freePages: 200_000,
  balloonPages: 4096,
  unbackedPages: 1000,
  hintRaces: 7,
};

describe('aerostat status', () => {
  test('prints a table of all guests', async () => {
    expect(await aerostat('status')).toEqual({
      code: EXIT.ok,
      err: '',
      out: [
        'GUEST         STATE    MEMORY  TARGET  BALLOON  PENDING  RESIDENT  LAST ERROR',
        'vm1           running      4G      1G       1G      64M      1.5G  -',
        'build-runner  waiting       -       0        0        0         -  the front-end vanished',
        '',
      ].join('\n'),
    });
  });

  test('sorts by a column, shows those that are asked for, and leaves titles out', async () => {
    control.known.set('vm2', guestStatus('vm2', { residentBytes: 3 * GIB }));
    expect((await aerostat('status --sort resident --columns guest,resident,shown --no-header')).out).toBe(
      [
        'vm2                 3G      0',
        'vm1               1.5G     1G',
        'build-runner         -      0',
        '',
      ].join('\n'),
    );
    const names = async (words: string) =>
      JSON.parse((await aerostat(`status --json ${words}`)).out).guests.map(
        ({ name }: { name: string }) => name,
      );
    expect(await names('--sort guest')).toEqual(['build-runner', 'vm1', 'vm2']);
    expect(await names('--sort error')).toEqual(['build-runner', 'vm1', 'vm2']);
    const strange = await aerostat('status --columns guest,colour');
    expect(strange).toMatchObject({ code: EXIT.usage });
    expect(strange.err).toMatch(/no column "colour"; there are guest, state/);
  });

  test('prints one guest in full', async () => {
    const { code, out } = await aerostat('status vm1');
    expect(code).toBe(EXIT.ok);
    expect(out).toMatchInlineSnapshot(`
      "vm1: running
        memory      4G
        target      1G
        balloon     1G (the guest says 1G)
        pending     64M
        resident    1.5G
        given back  8M by inflating, 4M by reporting
        discard     after-ack, 2,048 pages in 12 punches
        hints       idle, 0 in 0 ranges
        profile     virtio
        features    must-tell-host stats-vq free-page-hint
        socket      /run/user/1000/vm1
        refused     nothing
        last error  -
      "
    `);
  });

  test('prints for programs exactly what the daemon says', async () => {
    const { out } = await aerostat('status --json');
    expect(out.endsWith('}\n')).toBe(true);
    expect(JSON.parse(out)).toEqual({ guests: await control.guests() });
    expect(JSON.parse((await aerostat('status vm1 --json')).out)).toEqual({
      guests: [await control.guest('vm1')],
    });
  });

  test('says when there is no guest', async () => {
    control.known.clear();
    expect((await aerostat('status')).out).toBe('The daemon runs, but serves no guest.\n');
  });

  test('colours a terminal, and no pipe, and none who asked for none', async () => {
    const sequence = '\u001b[';
    expect((await aerostat('status', { columns: 100 })).out).toContain(sequence);
    expect((await aerostat('status')).out).not.toContain(sequence);
    expect((await aerostat('status', { columns: 100, env: { NO_COLOR: '1' } })).out).not.toContain(sequence);
    expect((await aerostat('status', { columns: 100, env: { TERM: 'dumb' } })).out).not.toContain(sequence);
  });

  test('finds the daemon by --api before the environment', async () => {
    const { code } = await aerostat(`status --api ${api}`, { env: { AEROSTAT_API: '/nowhere/api.sock' } });
    expect(code).toBe(EXIT.ok);
  });
});

describe('aerostat set', () => {
  test('asks for a balloon and returns at once', async () => {
    expect(await aerostat('set vm1 --balloon 2G')).toEqual({
      code: EXIT.ok,
      out: 'vm1: balloon 2G asked for\n',
      err: '',
    });
    expect(control.calls).toEqual([['change', 'vm1', { targetBytes: 2 * GIB }]]);
  });

  test('leaves it to the device to follow what the guest should keep, and shows both', async () => {
    expect((await aerostat('set vm1 --memory 1.5G')).out).toMatch(/^vm1: balloon 2.5G asked for/);
    expect(control.calls.filter(([name]) => name === 'change')).toEqual([
      ['change', 'vm1', { memoryBytes: 1.5 * GIB }],
    ]);
    control.alter('vm1', { removedBytes: GIB });
    const { out } = await aerostat('status vm1');
    expect(out).toMatch(/target +2.5G; the guest keeps 1.5G, and the target follows its memory/);
    expect(out).toMatch(
      /balloon .*; 1G more was in memory that was removed from the guest, and counts again/,
    );
    const columns = 'guest,target,keeps,removed';
    expect((await aerostat(`status --columns ${columns} --no-header`)).out).toMatch(/^vm1 +2.5G +1.5G +1G$/m);
    expect((await aerostat('top')).out).toMatch(/vm1 +\S.* 2.5G \(keeps 1.5G\)/);
  });

  test('says of resident memory on a disk that it is blocks, and that the page cache comes besides', async () => {
    expect((await aerostat('status vm1')).out).not.toMatch(/page cache/);
    control.alter('vm1', { memoryPlace: 'disk' });
    expect((await aerostat('status vm1')).out).toMatch(
      /resident +1.5G \(blocks of its file on disk; what of the file is in the page cache comes besides\)/,
    );
    expect((await aerostat('status --columns guest,place --no-header')).out).toMatch(/^vm1 +disk$/m);
  });

  test('keeps a target for a guest that is not connected, but cannot reckon with its memory', async () => {
    expect((await aerostat('set build-runner --balloon 1G')).out).toMatch(/kept for when the guest connects/);
    const { code, err } = await aerostat('set build-runner --memory 1G');
    expect(code).toBe(EXIT.guestState);
    expect(err).toMatch(/give --balloon instead/);
  });

  test.each([
    ['--balloon +512M', 1.5 * GIB],
    ['--balloon -512M', 0.5 * GIB],
    ['--balloon -2G', 0],
    ['--balloon 50%', 2 * GIB],
    ['--memory 25%', 3 * GIB],
    ['--memory +256M', 0.75 * GIB],
    ['--memory -256M', 1.25 * GIB],
  ])('reckons %s from how the guest is', async (words, targetBytes) => {
    const { code, out } = await aerostat(`set vm1 ${words}`);
    expect(code).toBe(EXIT.ok);
    expect(out).toMatch(/ asked for \(before: 1G\)\n$/);
    expect(control.calls).toEqual([['change', 'vm1', { targetBytes }]]);
  });

  test('sets several guests, and says what became of each', async () => {
    expect(await aerostat('set vm1 build-runner --balloon +512M')).toEqual({
      code: EXIT.ok,
      out: [
        'vm1: balloon 1.5G asked for (before: 1G)',
        'build-runner: balloon 512M kept for when the guest connects (before: 0)',
        '',
      ].join('\n'),
      err: '',
    });
  });

  test('goes on with the others when one of several fails, and ends with its code', async () => {
    const { code, out, err } = await aerostat('set absent vm1 --balloon 2G');
    expect(code).toBe(EXIT.unknownGuest);
    expect(out).toBe('vm1: balloon 2G asked for\n');
    expect(err).toMatch(/^aerostat: absent: no guest is called absent.*\n.*1 of 2 guests were not set/s);
    // Two that fail for different reasons.
    const both = await aerostat('set absent vm1 build-runner --memory 1G --json');
    expect(both.code).toBe(EXIT.failed);
    expect(JSON.parse(both.out).guests).toMatchObject([
      { name: 'absent', guest: null, error: { code: 'AEROSTAT_UNKNOWN_GUEST' } },
      { name: 'vm1', targetBytes: 3 * GIB, beforeBytes: 2 * GIB, error: null },
      { name: 'build-runner', guest: null, error: { code: 'AEROSTAT_GUEST_STATE' } },
    ]);
  });

  test('with --dry-run says what would be, or why not, and changes nothing', async () => {
    expect((await aerostat('set vm1 --balloon +1G --dry-run')).out).toBe(
      'vm1: balloon 2G would be asked for (before: 1G)\n',
    );
    expect(await aerostat('set vm1 --balloon 5G --dry-run')).toMatchObject({ code: EXIT.usage });
    const spare = await aerostat('set vm1 --balloon 3.9G --dry-run');
    expect(spare.code).toBe(EXIT.guestState);
    expect(spare.err).toMatch(/can spare .* --force/);
    expect((await aerostat('set vm1 --balloon 3.9G --dry-run --force')).code).toBe(EXIT.ok);
    expect(control.calls.filter(([name]) => name === 'change')).toEqual([]);
  });

  test('with --wait returns when the target is reached and nothing is pending', async () => {
    control.alter('vm1', { pendingBytes: 0 });
    control.follow = guest => ({ ...guest, actualBytes: guest.targetBytes, pendingBytes: MIB });
    const waiting = aerostat('set vm1 --balloon 2G --wait');
    await expect.poll(() => control.calls.length).toBe(1);
    control.alter('vm1', { pendingBytes: 0 });
    const { code, out } = await waiting;
    expect(code).toBe(EXIT.ok);
    expect(out).toMatch(/^vm1: balloon 2G reached in \d/);
  });

  test('with --wait says how much of a balloon that is at its target waits for whole huge pages', async () => {
    control.alter('vm1', { memoryBytes: GIB, balloonedBytes: 0, actualBytes: 0, pendingBytes: 0 });
    control.follow = guest => ({
      ...guest,
      actualBytes: guest.targetBytes,
      balloonedBytes: 31 * MIB,
      incompleteBytes: 31 * MIB,
    });
    const { code, out } = await aerostat('set vm1 --balloon 31M --wait');
    expect(code).toBe(EXIT.ok);
    expect(out).toMatch(
      /reached in .*; 31M wait for whole huge pages, and the host has not got them back\n$/,
    );
    expect((await aerostat('status vm1')).out).toMatch(
      /balloon .*, of which 31M wait for whole huge pages\n/,
    );
    expect((await aerostat('status --columns guest,incomplete')).out).toMatch(/^vm1 +31M$/m);
  });

  test('with --wait fails, and says why, when what reached the balloon could not be given back to the host', async () => {
    control.follow = guest => ({ ...guest, actualBytes: guest.targetBytes, pendingBytes: MIB });
    const waiting = aerostat('set vm1 --balloon 2G --wait');
    await expect.poll(() => control.calls.length).toBe(1);
    const { counters } = control.known.get('vm1')!;
    control.alter('vm1', {
      pendingBytes: 0,
      lastError: 'fallocate failed with EOPNOTSUPP',
      counters: { ...counters, punchFailures: counters.punchFailures + 15 },
    });
    const { code, err } = await waiting;
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/holds 2G, but 15 discards failed .*EOPNOTSUPP.*a memfd, tmpfs or hugetlbfs/);
  });

  test('with --wait trusts no word of a guest whose lists were all refused, and says why they were', async () => {
    const reason = 'a buffer on the inflate queue was refused: 0 bytes of bitmap where the header says 64';
    control.follow = guest => ({
      ...guest,
      actualBytes: guest.targetBytes,
      balloonedBytes: 4096,
      pendingBytes: 0,
      lastError: reason,
      counters: { ...guest.counters!, badBuffers: guest.counters!.badBuffers + 12 },
    });
    const { code, err } = await aerostat('set vm1 --balloon 2G --wait');
    expect(code).toBe(EXIT.notReached);
    expect(err).toContain(
      'vm1 says that its balloon holds 2G, but by the lists that its device took it holds 4K',
    );
    expect(err).toContain(`12 of its buffers were refused so far. The last error was: ${reason}`);
  });

  const MOVED: MigrationStatus = {
    to: 'tcp:host2:4444',
    state: {
      status: 'completed',
      elapsedMs: 512,
      round: 3,
      totalBytes: 4 * GIB,
      sentBytes: null,
      remainingBytes: 0,
      bytesPerSecond: null,
      expectedDowntimeMs: null,
      guestShare: 1,
    },
    report: REPORT,
    error: null,
  };

  test('with --wait says where a guest moved to meanwhile', async () => {
    control.follow = guest => ({ ...guest, connected: false });
    control.moving.set('vm1', MOVED);
    const { code, err } = await aerostat('set vm1 --balloon 2G --wait');
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/vm1 moved to tcp:host2:4444 meanwhile, and its target with it/);
  });

  test('with --wait ends when its time is over, also where what serves the guest is stopped', async () => {
    control.follow = guest => ({ ...guest, actualBytes: GIB });
    const waiting = aerostat('set vm1 --balloon 2G --timeout 2s');
    await expect.poll(() => control.calls.length).toBe(1);
    const look = control.guest;
    let looks = 0;
    control.guest = async name => (++looks < 2 ? look(name) : new Promise<never>(() => {}));
    const { code, err } = await waiting;
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/holds 1G of 2G after .*does not answer any more/);
  });

  const STUCK = { sinceMs: Date.now() - 48_000, forMs: 48_000, swings: false, retryInMs: null };

  test('with --wait says since when a guest that can give no more is stuck, and where', async () => {
    control.follow = guest => ({ ...guest, actualBytes: 1.25 * GIB, pendingBytes: 0, stuck: STUCK });
    const { code, err } = await aerostat('set vm1 --balloon 2G --timeout 20ms');
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/; it is stuck since \d\d:\d\d:\d\d \(48s\) at 1\.25G of 2G/);
    expect((await aerostat('status')).out).toMatch(/^vm1 +stuck /m);
    expect((await aerostat('status vm1')).out).toMatch(/target +2G, stuck since .* at 1\.25G of 2G\n/);
    control.alter('vm1', { stuck: { ...STUCK, swings: true, retryInMs: 9000 }, shownTargetBytes: GIB });
    expect((await aerostat('status vm1')).out).toMatch(/its driver is shown 1G; all of it again in 9s\n/);
  });

  test('takes more than a guest can spare only with --force', async () => {
    const sample = control.sample as NonNullable<typeof control.sample>;
    control.refuse = new UnconfirmedError(
      'vm1',
      3 * GIB,
      { limitBytes: 2 * GIB, leftBytes: GIB, old: true },
      sample.ageMs,
    );
    const { code, err } = await aerostat('set vm1 --balloon 3G');
    expect(code).toBe(EXIT.guestState);
    expect(err).toMatch(
      /vm1 says that it can spare 2G, 2s ago, before its balloon was changed; 1G would be left.*--force/,
    );
    expect((await aerostat('set vm1 --balloon 3G --force')).code).toBe(EXIT.ok);
    expect(control.calls.at(-1)).toEqual(['change', 'vm1', { targetBytes: 3 * GIB, force: true }]);
  });

  test('with --wait is there when the guest, whose pages are larger than ours, is over by 8 KiB', async () => {
    control.follow = guest => ({ ...guest, actualBytes: 2 * GIB + 8192, pendingBytes: 0 });
    const { code, out } = await aerostat('set vm1 --balloon 2G --timeout 1s');
    expect(code).toBe(EXIT.ok);
    expect(out).toMatch(/reached in/);
  });

  test('with --wait does not say that a guest that is over has no more memory to give', async () => {
    control.follow = guest => ({ ...guest, actualBytes: 2 * GIB + 8192, pendingBytes: MIB });
    const { code, err } = await aerostat('set vm1 --balloon 2G --timeout 20ms');
    expect(code).toBe(EXIT.notReached);
    expect(err).not.toMatch(/no more memory/);
  });

  test('with --wait says how far it came when the time is up', async () => {
    control.follow = guest => ({ ...guest, actualBytes: 1.25 * GIB, pendingBytes: 8 * MIB });
    const { code, out, err } = await aerostat('set vm1 --balloon 2G --timeout 20ms');
    expect(code).toBe(EXIT.notReached);
    expect(out).toBe('');
    expect(err).toMatch(
      /holds 1\.25G of 2G after [\d.]+m?s, 8M not yet back.*no more memory to give.*--timeout/,
    );
  });

  test('with --wait says when another client sets another target', async () => {
    control.follow = guest => ({ ...guest, targetBytes: 0 });
    const { code, err } = await aerostat('set vm1 --balloon 2G --wait');
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/another client set the target of vm1 to 0/);
  });

  test('with --wait and --json says both in one object', async () => {
    control.alter('vm1', { pendingBytes: 0 });
    const reached = await aerostat('set vm1 --balloon 2G --wait --json');
    expect(JSON.parse(reached.out)).toMatchObject({ guest: { targetBytes: 2 * GIB }, reached: true });
    control.follow = guest => ({ ...guest, actualBytes: 0 });
    const missed = await aerostat('set vm1 --balloon 3G --wait --timeout 1ms --json');
    expect(missed.code).toBe(EXIT.notReached);
    expect(JSON.parse(missed.out)).toMatchObject({ guest: { actualBytes: 0 }, reached: false });
  });

  test('draws a bar on a terminal, on standard error, and leaves it behind clean', async () => {
    control.alter('vm1', { pendingBytes: 0 });
    control.follow = guest => ({ ...guest, actualBytes: 1.5 * GIB });
    const session = start(['set', 'vm1', '--balloon', '2G', '--wait'], {
      columns: 100,
      env: { AEROSTAT_API: api },
    });
    await expect.poll(() => session.stderr.text).toContain('1.5G of 2G');
    control.alter('vm1', { actualBytes: 2 * GIB });
    expect(await session.ended).toBe(EXIT.ok);
    expect(session.stdout.text).not.toContain('of 2G');
    expect(cursorIsShown(session)).toBe(true);
  });

  test('ends with 130 on Ctrl-C, with the cursor back', async () => {
    control.follow = guest => ({ ...guest, actualBytes: 0 });
    const session = start(['set', 'vm1', '--balloon', '2G', '--wait'], {
      columns: 100,
      env: { AEROSTAT_API: api },
    });
    await expect.poll(() => session.stderr.text).toContain('of 2G');
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    expect(cursorIsShown(session)).toBe(true);
  });

  test('with several options asks once for all of them', async () => {
    await aerostat('set vm1 --balloon 2G --discard before-ack --poll-interval 5s');
    expect(control.calls).toEqual([
      ['change', 'vm1', { targetBytes: 2 * GIB, discard: 'before-ack', pollIntervalMs: 5000 }],
    ]);
  });

  test('changes how the guest is served without a target', async () => {
    expect(await aerostat('set vm1 --discard before-ack --poll-interval 5s')).toMatchObject({
      code: EXIT.ok,
    });
    expect(control.calls).toEqual([['change', 'vm1', { discard: 'before-ack', pollIntervalMs: 5000 }]]);
  });

  test.each([
    ['set vm1', /give --balloon SIZE or --memory SIZE/],
    ['set vm1 --wait --discard before-ack', /--wait waits for a target/],
    ['set vm1 --discard before-ack --timeout 5s', /--wait waits for a target/],
    ['set vm1 --balloon 2G --memory 1G', /cannot be used with/],
    ['set vm1 --balloon lots', /is not a size.*512M/],
    ['set vm1 --balloon 2', /was 2M meant/],
    ['set vm1 --balloon +2', /was 2M meant/],
    ['set vm1 --balloon 150%', /"150%" is too much/],
    ['set vm1 vm1 --balloon +1G', /vm1 is named twice/],
    ['set vm1 --balloon 1G --dry-run --wait', /cannot be used with/],
    ['set vm1 --balloon 20T', /--balloon <size>.*"20T" is too much: the most is 16T/],
    ['set vm1 --poll-interval 2h', /--poll-interval <duration>.*"2h" is too long: the longest is 1h/],
    ['stats vm1 --timeout 1m', /--timeout <duration>.*"1m" is too long: the longest is 30s/],
    ['request vm1 shrink --timeout 31s', /--timeout <duration>.*the longest is 30s/],
    ['set vm1 --memory 8G', /vm1 has 4G in all/],
    ['set vm1 --balloon 1G --timeout 5', /is not a duration/],
    ['set vm1 --discard later', /Allowed choices are auto/],
    ['set --balloon 1G', /which guest\? Name it: one of vm1, build-runner/],
  ])('%s is refused before anything is changed', async (words, why) => {
    const { code, err } = await aerostat(words);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(why);
    expect(control.calls).toEqual([]);
  });
});

describe('aerostat stats', () => {
  test('prints what the guest said, and leaves out what it did not', async () => {
    const { out } = await aerostat('stats vm1');
    expect(out).toMatchInlineSnapshot(`
      "vm1: 1.5s ago
        total              4G
        free               3G
        available          3.5G
        cache              200M
        swapped in         0
        swapped out        0
        major faults       31
        minor faults       123,456
        killed for memory  0
      "
    `);
  });

  test('asks the guest when it is to be fresh', async () => {
    await aerostat('stats vm1 --fresh --timeout 500ms');
    await aerostat('stats vm1 --timeout 400ms');
    await aerostat('stats vm1');
    expect(control.calls).toEqual([
      ['statistics', 'vm1', { freshMs: 0, timeoutMs: 500 }],
      ['statistics', 'vm1', { freshMs: 0, timeoutMs: 400 }],
      ['statistics', 'vm1', {}],
    ]);
  });

  test('says when there are none yet', async () => {
    control.sample = { ...(control.sample as NonNullable<typeof control.sample>), ageMs: null };
    expect((await aerostat('stats vm1')).out).toMatch(/no statistics yet.*--fresh/);
  });

  test('prints JSON', async () => {
    expect(JSON.parse((await aerostat('stats vm1 --json')).out)).toEqual(control.sample);
  });

  test('ends with 6 for a guest that has none', async () => {
    control.sample = null;
    expect(await aerostat('stats vm1')).toMatchObject({
      code: EXIT.guestState,
      err: 'aerostat: vm1 has no statistics queue\n',
    });
  });
});

describe('aerostat hint', () => {
  test('steers a session and says how it is', async () => {
    expect((await aerostat('hint vm1')).out).toBe('vm1: idle, 0 in 0 ranges\n');
    expect((await aerostat('hint vm1 start')).out).toBe(
      'vm1: running (session 0x80000000), 3G in 768 ranges; it does without 3G until done, in 1m at the latest\n',
    );
    expect((await aerostat('hint vm1 stop')).out).toMatch(/^vm1: holding 3G until done \(session/);
    expect((await aerostat('status vm1')).out).toMatch(/hints +holding 3G until done, 3G in 768 ranges\n/);
    expect(JSON.parse((await aerostat('hint vm1 done --json')).out)).toMatchObject({ state: 'done' });
    expect(control.calls).toEqual([
      ['hint', 'vm1', { action: 'start' }],
      ['hint', 'vm1', { action: 'stop' }],
      ['hint', 'vm1', { action: 'done' }],
    ]);
  });

  test('gives a session another limit of time, and only one that starts', async () => {
    await aerostat('hint vm1 start --limit 5m');
    expect(control.calls).toEqual([['hint', 'vm1', { action: 'start', limitMs: 300_000 }]]);
    for (const words of [
      'hint vm1 done --limit 5m',
      'hint vm1 --limit 1s',
      'hint vm1 start --limit 0',
      'hint vm1 start --limit 2h',
    ]) {
      expect((await aerostat(words)).code, words).toBe(EXIT.usage);
    }
  });

  test('refuses what is no action', async () => {
    expect(await aerostat('hint vm1 pause')).toMatchObject({ code: EXIT.usage });
  });
});

describe('a daemon that does not answer', () => {
  const NEVER = new Promise<never>(() => {});

  /** The daemon was asked so, and will not answer any more. */
  const silent = (method: 'guests' | 'request') =>
    new Promise<void>(resolve => {
      control[method] = () => {
        resolve();
        return NEVER;
      };
    });

  test('ends at once when the wait is interrupted', async () => {
    const asked = silent('request');
    const session = start(['request', 'vm1', 'shrink'], { env: { AEROSTAT_API: api } });
    await asked;
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    expect(session.stderr.text).toBe('');
  });

  test.each(['watch', 'top'])('does not keep %s from leaving its screen', async command => {
    const session = start([command, '--interval', '50ms'], { env: { AEROSTAT_API: api }, columns: 100 });
    await expect.poll(() => session.stdout.text).toContain('vm1');
    await silent('guests');
    session.interrupt('SIGTERM');
    expect(await session.ended).toBe(EXIT.terminated);
    expect(session.stdout.text).toContain('\u001b[?1049l');
    expect(session.stdout.text).not.toContain('interrupted');
  });
});

describe('aerostat request', () => {
  beforeEach(() => {
    control.alter('vm1', { profile: 'page-chunks' });
  });

  test('asks, waits, and says what came', async () => {
    expect((await aerostat('request vm1 unused-pages')).out).toBe('vm1: 2G unused after 5ms\n');
    expect((await aerostat('request vm1 drop-cache --timeout 3s')).out).toBe('vm1: done after 5ms\n');
    expect(JSON.parse((await aerostat('request vm1 shrink --json')).out)).toMatchObject({ lists: 3 });
    expect(control.calls).toEqual([
      ['request', 'vm1', { request: 'unused-pages', timeoutMs: 10_000 }],
      ['request', 'vm1', { request: 'drop-cache', timeoutMs: 3000 }],
      ['request', 'vm1', { request: 'shrink', timeoutMs: 10_000 }],
    ]);
  });

  test('of a guest whose ABI has no queue for it ends with 6', async () => {
    expect(await aerostat('request build-runner shrink')).toMatchObject({
      code: EXIT.guestState,
      err: 'aerostat: build-runner takes no requests\n',
    });
  });

  test('for what no ABI can ask is a matter of usage', async () => {
    expect(await aerostat('request vm1 reboot')).toMatchObject({ code: EXIT.usage });
    expect(await aerostat('request vm1')).toMatchObject({ code: EXIT.usage });
  });
});

describe('aerostat migrate', () => {
  const end = (change: Partial<MigrationStatus>) => {
    const status = control.moving.get('vm1');
    if (status !== undefined) control.moving.set('vm1', { ...status, ...change });
  };

  test('moves a machine, waits until it is there, and sums up', async () => {
    const session = start(
      'migrate vm1 tcp:host2:4444 --connections 2 --bandwidth 10gbit --downtime-limit 50ms --channel hint'.split(
        ' ',
      ),
      { env: { AEROSTAT_API: api } },
    );
    await expect.poll(() => control.moving.has('vm1')).toBe(true);
    end({ report: REPORT });
    expect(await session.ended).toBe(EXIT.ok);
    expect(session.stdout.text).toMatch(/vm1: moved to tcp:host2:4444 in 512ms\n.*downtime +23ms/s);
    expect(session.stdout.text).toMatch(/skipped as free +200,000\n +skipped as ballooned +4,096/);
    expect(control.calls).toEqual([
      [
        'migrate',
        'vm1',
        {
          to: 'tcp:host2:4444',
          connections: 2,
          bandwidthBytesPerSecond: 1.25e9,
          downtimeMsMax: 50,
          channel: 'hint',
        },
      ],
    ]);
  });

  test.each([
    [`--connections ${CONNECTIONS_MAX}`, { connections: CONNECTIONS_MAX }],
    [`--max-rounds ${ROUNDS_MAX}`, { roundsMax: ROUNDS_MAX }],
    [`--downtime-limit ${DOWNTIME_MS_MAX}ms`, { downtimeMsMax: DOWNTIME_MS_MAX }],
  ])('allows what the API allows, and not more: %s', async (words, order) => {
    const session = start(`migrate vm1 tcp:h:1 ${words}`.split(' '), { env: { AEROSTAT_API: api } });
    await expect.poll(() => control.moving.has('vm1')).toBe(true);
    end({ report: REPORT });
    expect(await session.ended).toBe(EXIT.ok);
    expect(control.calls).toEqual([['migrate', 'vm1', expect.objectContaining(order)]]);
    // Before, 65 connections passed here and were refused by the API.
    const { code, err } = await aerostat(
      `migrate vm1 tcp:h:1 ${words.replace(/\d+/, most => String(Number(most) + 1))}`,
    );
    expect({ code, err }).toEqual({
      code: EXIT.usage,
      err: expect.stringMatching(/up to|1 to|the longest is/),
    });
  });

  test('says how far it is, and calls a machine back', async () => {
    expect((await aerostat('migrate vm1 --status')).out).toBe('vm1: never migrated\n');
    await control.migrate('vm1', { to: 'tcp:h:1' });
    expect((await aerostat('migrate vm1 --status')).out).toMatch(
      /vm1: copying after 120ms, round 2, 64M to go/,
    );
    expect((await aerostat('migrate vm1 --cancel')).code).toBe(EXIT.ok);
    expect((await aerostat('migrate vm1 --cancel')).code).toBe(EXIT.guestState);
  });

  test('fails with the reason of the machine that stays', async () => {
    const session = start(['migrate', 'vm1', 'tcp:h:1'], { env: { AEROSTAT_API: api } });
    await expect.poll(() => control.moving.has('vm1')).toBe(true);
    end({ error: { code: 'AEROSTAT_TRANSFER', message: 'no host listens at h:1' } });
    expect(await session.ended).toBe(EXIT.failed);
    expect(session.stderr.text).toBe('aerostat: no host listens at h:1\n');
  });

  test('calls the machine back when it is interrupted', async () => {
    const session = start(['migrate', 'vm1', 'tcp:h:1'], { env: { AEROSTAT_API: api } });
    await expect.poll(() => control.moving.has('vm1')).toBe(true);
    session.interrupt('SIGINT');
    expect(await session.ended).toBe(EXIT.interrupted);
    await expect.poll(() => control.moving.has('vm1')).toBe(false);
  });
});

describe('aerostat watch', () => {
  test('prints a line of JSON at each interval until it is stopped', async () => {
    const session = start(['watch', '--json', '--interval', '50ms'], { env: { AEROSTAT_API: api } });
    await expect.poll(() => session.stdout.text.split('\n').length).toBeGreaterThan(2);
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    for (const line of session.stdout.text.trim().split('\n')) {
      expect(JSON.parse(line)).toMatchObject({ timeMs: expect.any(Number), guests: [{ name: 'vm1' }, {}] });
    }
  });

  test('draws bars on a terminal, and leaves the last state behind when it is stopped', async () => {
    const session = start(['watch', 'vm1', '--interval', '50ms'], {
      columns: 120,
      env: { AEROSTAT_API: api, NO_COLOR: '1' },
    });
    await expect.poll(() => session.stdout.text).toContain('┤');
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    const [drawn, left] = session.stdout.text.split('\u001b[?1049l');
    expect(drawn.startsWith('\u001b[?1049h\u001b[?25l')).toBe(true);
    // What is too wide is cut off, for as long as the screen is ours.
    expect(drawn.indexOf('\u001b[?7l')).toBeLessThan(drawn.indexOf('GUEST'));
    expect(drawn.endsWith('\u001b[?7h\u001b[?25h')).toBe(true);
    // 1.5 of 4 GiB resident, 64 MiB of it pending, and 1 GiB less those 64 MiB away: of 24 cells.
    expect(left).toContain('█████████▒░░░░░░');
    expect(left).not.toContain('\u001b');
  });

  test('prints tables below each other, and moves no cursor, on a terminal that is dumb', async () => {
    const env = { AEROSTAT_API: api, TERM: 'dumb' };
    const session = start(['watch', '--interval', '50ms'], { columns: 120, env });
    await expect.poll(() => session.stdout.text.match(/GUEST/g)?.length).toBeGreaterThan(1);
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    expect(session.stdout.text).not.toContain('\u001b');
    const set = await run(['set', 'vm1', '--balloon', '2G', '--wait', '--timeout', '100ms'], {
      columns: 120,
      env,
    });
    expect(set.err).not.toContain('\u001b');
  });

  test('says that the daemon is lost and goes on when it is back', async () => {
    const session = start(['watch', '--interval', '50ms'], { columns: 120, env: { AEROSTAT_API: api } });
    await expect.poll(() => session.stdout.text).toContain('vm1');
    await server.close();
    await expect.poll(() => session.stdout.text).toContain('no daemon listens');
    server = await serveApi(control, { version: '0', address: parseAddress(api) });
    control.alter('vm1', { name: 'vm1', targetBytes: 3 * GIB });
    await expect.poll(() => session.stdout.text).toContain('3G');
    session.interrupt('SIGTERM');
    expect(await session.ended).toBe(EXIT.terminated);
  });

  test('refuses to look more often than makes sense', async () => {
    expect(await aerostat('watch --interval 1ms')).toMatchObject({ code: EXIT.usage });
  });
});

describe('what goes wrong', () => {
  test('a daemon that ends before it has answered is told from one that is not there', async () => {
    const path = join(directory, 'ends.sock');
    const server = createServer(socket => socket.destroy()).listen(path);
    await once(server, 'listening');
    try {
      const { code, err } = await aerostat('status', { env: { AEROSTAT_API: path } });
      expect(code).toBe(EXIT.unreachable);
      expect(err).toMatch(/^aerostat: the daemon at .*ends.sock ended before it had answered; start one/);
    } finally {
      server.close();
    }
  });

  test.each(['status', 'set vm1 --balloon 1G', 'stats vm1', 'hint vm1', 'watch'])(
    '%s ends with 3 when no daemon is there, and says how to start one',
    async words => {
      const { code, err, out } = await aerostat(words, { env: { AEROSTAT_API: join(directory, 'none') } });
      expect(code).toBe(EXIT.unreachable);
      expect(err).toMatch(/^aerostat: no daemon listens at .*aerostat device --socket-path.*--api.*\n$/);
      expect(out).toBe('');
    },
  );

  test.each([
    'status vm9',
    'set vm9 --balloon 1G',
    'set vm9 --memory 1G',
    'stats vm9',
    'hint vm9',
    'request vm9 shrink',
    'watch vm9',
  ])('%s ends with 5: no guest has this name', async words => {
    expect(await aerostat(words)).toEqual({
      code: EXIT.unknownGuest,
      err: 'aerostat: no guest is called vm9; known: vm1, build-runner\n',
      out: '',
    });
  });

  test('an address that is none is a matter of usage', async () => {
    expect(await aerostat('status --api localhost')).toMatchObject({
      code: EXIT.usage,
      err: expect.stringMatching(/not an API address/),
    });
  });

  test('where it failed is told only when asked', async () => {
    const none = join(directory, 'none');
    expect((await aerostat(`status --api ${none}`)).err).not.toContain('    at ');
    expect((await aerostat(`status --api ${none} --verbose`)).err).toMatch(/caused by.*ENOENT/s);
    expect((await aerostat(`status --api ${none}`, { env: { AEROSTAT_DEBUG: '1' } })).err).toContain(
      '    at ',
    );
  });

  test('a command that is none gets help', async () => {
    const { code, err } = await aerostat('inflate');
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/unknown command 'inflate'/);
  });

  test.each([
    ['set vm1 --balloon', '(see aerostat set --help)'],
    ['hint', '(see aerostat hint --help)'],
    ['bench inflat', '(see aerostat bench --help)'],
    ['bench inflate --memory abc', '(see aerostat bench inflate --help)'],
  ])('what is wrong with %s is told with the help that would have said it', async (words, where) => {
    const { code, err } = await run(words.split(' '));
    expect(code).toBe(EXIT.usage);
    expect(err).toContain(where);
  });

  test('help with a command is the help of that command', async () => {
    const [long, short] = await Promise.all([run(['help', 'set']), run(['set', '--help'])]);
    expect(long).toEqual(short);
    expect(long.out).toMatch(/^Usage: aerostat set /);
  });

  test.each(['vm', 'run', 'guest --connect x'])('%s refuses memory that no guest can have', async words => {
    for (const size of ['0', '1M', '99999G']) {
      const { code, err } = await run([...words.split(' '), '--memory', size]);
      expect(code).toBe(EXIT.usage);
      expect(err).toMatch(/a guest has 16M at least and 4T at most/);
    }
  });

  test('no command at all gets the whole help, as an error', async () => {
    const { code, err } = await run([]);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/Usage: aerostat/);
  });
});

describe('help', () => {
  test('says which commands and exit codes there are', async () => {
    const { code, out } = await run(['--help']);
    expect(code).toBe(EXIT.ok);
    for (const command of ['device', 'status', 'set', 'stats', 'hint', 'request', 'watch']) {
      expect(out).toMatch(new RegExp(`^  ${command} `, 'm'));
    }
    expect(out).toMatch(/^ +4 {2}the target was not reached in time$/m);
  });

  test.each(['device', 'status', 'set', 'stats', 'hint', 'request', 'watch'])(
    'of %s has examples',
    async command => {
      const { code, out } = await run([command, '--help']);
      expect(code).toBe(EXIT.ok);
      expect(out).toMatch(new RegExp(`Examples:\n  aerostat ${command} `));
    },
  );
});

describe('aerostat doctor', () => {
  test('says what it found with what to do, and ends with a code by weight', async () => {
    const { code, out, err } = await aerostat('doctor vm1');
    expect(code).toBe(EXIT.foundDanger);
    expect(out).toMatch(/^danger {2}vm1\n {4}Its balloon holds 1G and gives nothing back in need/);
    expect(out).toMatch(/-> Switch deflate-on-oom on/);
    expect(err).toMatch(/found 1 danger, 1 cost; each has a line that says what to do/);
  });

  test('prints what programs need, and fails only for what it is told to', async () => {
    control.guests = async () => [guestStatus('vm1', { features: ['stats-vq', 'deflate-on-oom'] })];
    const { code, out } = await aerostat('doctor --json --fail-on danger');
    expect(code).toBe(EXIT.ok);
    expect(JSON.parse(out)).toMatchObject({
      guests: ['vm1'],
      findings: [{ weight: 'cost', guest: 'vm1', id: 'no-reporting' }],
    });
    expect((await aerostat('doctor')).code).toBe(EXIT.foundCost);
  });
});

describe('patterns of names', () => {
  beforeEach(() => {
    control.guests = async () => [
      guestStatus('web-1'),
      guestStatus('web-2'),
      guestStatus('db', { memoryBytes: 256 * MIB }),
    ];
    control.guest = async name =>
      (await control.guests()).find(guest => guest.name === name) ??
      Promise.reject(new UnknownGuestError(name, []));
    control.change = async (name, changes = {}) => {
      const guest = await control.guest(name);
      if ((changes.targetBytes ?? 0) > (guest.memoryBytes ?? 0))
        throw new GuestStateError(`${name} cannot hold that`);
      control.calls.push(['change', name, changes]);
      return guest;
    };
  });

  test('choose guests to look at, and to set', async () => {
    const names = async (words: string) =>
      JSON.parse((await aerostat(`${words} --json`)).out).guests.map((guest: { name: string }) => guest.name);
    expect(await names('status web-*')).toEqual(['web-1', 'web-2']);
    expect(await names('status w?b-2 db')).toEqual(['web-2', 'db']);
    expect((await aerostat('status x*')).code).toBe(EXIT.unknownGuest);
    expect((await aerostat('status web.1 x')).code).toBe(EXIT.unknownGuest);
    await aerostat('set web-* --balloon 1G');
    expect(control.calls.map(([, name]) => name)).toEqual(['web-1', 'web-2']);
  });

  test('set all guests or none', async () => {
    const { code, err } = await aerostat('set * --balloon 1G --all-or-none');
    expect(code).not.toBe(EXIT.ok);
    expect(err).toMatch(/db has 256M of memory; its balloon cannot hold 1G/);
    expect(err).toMatch(/web-1: left as it was, for another guest could not be set/);
    expect(control.calls).toEqual([]);
    expect((await aerostat('set web-* --balloon 1G --all-or-none')).code).toBe(EXIT.ok);
    expect(control.calls).toHaveLength(2);
  });

  test('give targets back where a guest refuses that was expected to do as it is told', async () => {
    const change = control.change;
    control.change = async (name, changes) => {
      if (name === 'web-2') throw new GuestStateError('web-2 has just left');
      return change(name, changes);
    };
    expect((await aerostat('set web-* --balloon 1G --all-or-none')).code).not.toBe(EXIT.ok);
    expect(control.calls).toEqual([
      ['change', 'web-1', { targetBytes: GIB }],
      ['change', 'web-1', { targetBytes: 0, force: true }],
    ]);
  });
});

describe('aerostat upgrade', () => {
  test('says which process serves in place of which', async () => {
    control.upgraded = { pid: 4242, version: '0.2.0', guests: 2, handOverMs: 12.4 };
    const { code, out } = await aerostat('upgrade --timeout 5s');
    expect(code).toBe(EXIT.ok);
    expect(out).toContain('Version 0.2.0 serves 2 guests as process 4242, in place of version');
    expect(control.calls).toContainEqual(['upgrade', { timeoutMs: 5000 }]);
    const { out: json } = await aerostat('upgrade --json');
    expect(JSON.parse(json)).toMatchObject({ pid: 4242, version: '0.2.0', guests: 2, handOverMs: 12.4 });
  });

  test('fails with the reason where the daemon serves on', async () => {
    const { code, err } = await aerostat('upgrade');
    expect(code).toBe(EXIT.failed);
    expect(err).toContain('cannot be upgraded while it runs');
  });
});
