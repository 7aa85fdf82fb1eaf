import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import type { Daemon, DaemonOptions } from '../../src/daemon/options.ts';
import type { HandedKeeper } from '../../src/daemon/predecessor.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';
import { run, start, type Terminal } from './terminal.ts';

let directory: string;
let api: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  api = join(directory, 'api.sock');
});

afterEach(() => rmSync(directory, { recursive: true }));

/** A daemon without devices that remembers what it was started with. */
function fakeDaemon() {
  const seen: { options?: DaemonOptions; closed: number; failed?: Promise<Error> } = { closed: 0 };
  const startDaemon = async (options: DaemonOptions): Promise<Daemon> => {
    seen.options = options;
    const control = new FakeControl(...options.guests.map(({ name }) => guestStatus(name)));
    return {
      control,
      open: async () => {},
      dismiss: async () => {},
      servedMs: 0,
      version: '0.1.0',
      toHandOver: [],
      get keeper(): HandedKeeper {
        throw new Error('this fake has no keeper');
      },
      handOver: () => Promise.reject(new Error('this fake hands nothing over')),
      failed: seen.failed ?? new Promise(() => {}),
      close: async () => {
        seen.closed++;
      },
    };
  };
  return { seen, startDaemon };
}

const startDevice = (words: string, terminal: Terminal = {}) =>
  start(['device', ...words.split(' ').filter(Boolean)], { env: { AEROSTAT_API: api }, ...terminal });

/** The guests that a command line asks for. */
async function guestsOf(words: string) {
  const { seen, startDaemon } = fakeDaemon();
  const session = startDevice(words, { startDaemon });
  await expect.poll(() => session.stderr.text).toContain('API on');
  session.interrupt('SIGTERM');
  expect(await session.ended).toBe(EXIT.ok);
  expect(seen.closed).toBe(1);
  return seen.options?.guests;
}

describe('aerostat device', () => {
  test('ends with a failure when a thread of the daemon dies, so that its supervisor restarts it', async () => {
    const { seen, startDaemon } = fakeDaemon();
    seen.failed = Promise.resolve(new AerostatError('AEROSTAT_THREAD_ENDED', 'a data-plane thread died: no'));
    const session = startDevice('--socket-path vm1', { startDaemon });
    expect(await session.ended).toBe(EXIT.failed);
    expect(session.stderr.text).toContain('a data-plane thread died');
    expect(seen.closed).toBe(1);
  });

  test('serves one guest, named by its socket without its ending, with nothing else said', async () => {
    expect(await guestsOf('--socket-path /run/vm1.sock')).toEqual([
      {
        socketPath: '/run/vm1.sock',
        name: 'vm1',
        targetBytes: 0,
        profile: 'virtio',
        discard: 'auto',
        without: [],
        pollIntervalMs: 10_000,
        bootGraceMs: 0,
      },
    ]);
  });

  test('serves several, each with its name in turn', async () => {
    const guests = await guestsOf(
      '--socket-path a --name one --socket-path b --fd 7 --name two --name three',
    );
    expect(guests).toMatchObject([
      { socketPath: 'a', name: 'one' },
      { socketPath: 'b', name: 'two' },
      { fd: 7, name: 'three' },
    ]);
  });

  test('takes every option', async () => {
    const guests = await guestsOf(
      '--socket-path=a --target 1G --profile=virtio --discard before-ack --poll-interval 0 --boot-grace 60s --eviction-interval 0 --without reporting,free-page-hint --without stats --log-level debug --log-json',
    );
    expect(guests).toMatchObject([
      {
        targetBytes: GIB,
        discard: 'before-ack',
        pollIntervalMs: 0,
        bootGraceMs: 60_000,
        evictionMs: 0,
        without: ['reporting', 'free-page-hint', 'stats'],
      },
    ]);
  });

  test.each([
    ['--target 1G', /give --socket-path PATH/],
    ['--socket-path a --socket-path b --name x', /2 sockets and 1 names/],
    ['--socket-path x/a --socket-path y/a', /two guests are called a/],
    ['--socket-path ./-', /cannot be a guest's name.*--name/],
    [`--socket-path /${'x'.repeat(120)}`, /107 bytes/],
    ['--fd 2', /the first is 3/],
    ['--fd x', /no inherited descriptor/],
    ['--socket-path a --without warp', /no feature warp.*free-page-hint/],
    ['--socket-path a --profile virtio9', /Allowed choices are virtio/],
    ['--socket-path a --discard never', /Allowed choices/],
    ['--socket-path a --target 100', /was 100M meant/],
    ['--socket-path a --poll-interval 5', /is not a duration/],
    ['--socket-path a --boot-grace 60', /is not a duration/],
    ['--socket-path a --eviction-interval 2h', /the longest is 1h/],
    ['--socket-path a --boot-grace 2h', /the longest is 1h/],
    ['--socket-path a --log-level loud', /Allowed choices are error/],
    ['--socket-path a --api nowhere', /not an API address/],
    ['--socket-path a surplus', /too many arguments/],
    ['--socket-path a --standby', /--standby needs --keep SOCKET/],
    ['--socket-path a --standby --keep systemd', /only to a process that it starts/],
  ])('refuses %s before anything is opened', async (words, why) => {
    const { seen, startDaemon } = fakeDaemon();
    const session = startDevice(words, { startDaemon });
    expect(await session.ended).toBe(EXIT.usage);
    expect(session.stderr.text).toMatch(why);
    expect(seen.options).toBeUndefined();
  });

  test('serves its API to its owner alone, and takes it away at the end', async () => {
    const { startDaemon } = fakeDaemon();
    const session = startDevice('--socket-path vm1', { startDaemon });
    await expect.poll(() => session.stderr.text).toContain(`API on ${api}`);
    expect(statSync(api).mode & 0o777).toBe(0o600);
    expect(await remoteControl(parseAddress(api)).guests()).toMatchObject([{ name: 'vm1' }]);
    session.interrupt('SIGINT');
    expect(await session.ended).toBe(EXIT.ok);
    expect(existsSync(api)).toBe(false);
  });

  test('closes the devices again when the API cannot be served', async () => {
    const { seen, startDaemon } = fakeDaemon();
    const session = startDevice('--socket-path vm1 --api 127.0.0.1:0', { startDaemon });
    expect(await session.ended).toBe(EXIT.failed);
    expect(session.stderr.text).toMatch(/needs a token/);
    expect(seen.closed).toBe(1);
  });

  test('says why no daemon could be started', async () => {
    const refusal = new AerostatError('AEROSTAT_SOCKET_IN_USE', 'vm1 is in use by another daemon');
    const session = startDevice('--socket-path vm1', { startDaemon: () => Promise.reject(refusal) });
    expect(await session.ended).toBe(EXIT.failed);
    expect(session.stderr.text).toBe('aerostat: vm1 is in use by another daemon\n');
  });

  test('says so when a failure is one of its own, and does not bury the person in it', async () => {
    const session = startDevice('--socket-path vm1', {
      startDaemon: () => Promise.reject(new TypeError('x is undefined')),
    });
    expect(await session.ended).toBe(EXIT.failed);
    expect(session.stderr.text).toMatch(/^aerostat: x is undefined\nThis should not happen.*--verbose.*\n$/);
  });
});

test('a command that waits by a timer of Node when it is interrupted ends as any other', async () => {
  let waits = false;
  const session = startDevice('--socket-path vm1', {
    startDaemon: () => {
      waits = true;
      return delay(100_000, undefined, { signal: session.signal }) as Promise<never>;
    },
  });
  await expect.poll(() => waits).toBe(true);
  session.interrupt('SIGTERM');
  expect(await session.ended).toBe(EXIT.terminated);
  expect(session.stderr.text).toBe('');
});

describe('the log', () => {
  async function logOf(words: string) {
    const { startDaemon } = fakeDaemon();
    const session = startDevice(`--socket-path vm1 ${words}`, {
      startDaemon: options => {
        const { log } = options;
        log({ level: 'warn', message: 'buffer refused', guest: 'vm1', detail: { lengthBytes: 9 } });
        const error = new AerostatError('AEROSTAT_SYSTEM', 'ENOSPC');
        log({ level: 'error', message: 'discard failed', guest: 'vm1', error });
        log({ level: 'debug', message: 'kick' });
        return startDaemon(options);
      },
    });
    await expect.poll(() => existsSync(api)).toBe(true);
    session.interrupt('SIGTERM');
    await session.ended;
    expect(session.stdout.text).toBe('');
    return session.stderr.text;
  }

  test('is a line for people, with the day and the time in UTC', async () => {
    const text = await logOf('');
    expect(text).toMatch(
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z warn {2}vm1: buffer refused lengthBytes=9$/m,
    );
    expect(text).toMatch(/^\S+ \S+ error vm1: discard failed: ENOSPC$/m);
    expect(text).not.toContain('kick');
    expect(text).toMatch(/ending for SIGTERM\n$/);
  });

  test('is JSON for programs, with the error and its code', async () => {
    const lines = (await logOf('--log-format json --log-level debug'))
      .trim()
      .split('\n')
      .map(line => JSON.parse(line));
    expect(lines[0]).toEqual({
      level: 'warn',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      guest: 'vm1',
      lengthBytes: 9,
      message: 'buffer refused',
    });
    expect(lines[1]).toMatchObject({ level: 'error', error: { code: 'AEROSTAT_SYSTEM', message: 'ENOSPC' } });
    expect(lines[2]).toMatchObject({ level: 'debug', message: 'kick' });
  });
});

describe('conventions of vhost-user programs', () => {
  test.each([
    'device --print-capabilities',
    '--print-capabilities',
    'device --socket-path x --print-capabilities --no-such-option',
  ])('"%s" prints what this is, as JSON, and does nothing else', async words => {
    const { code, out, err } = await run(words.split(' '));
    expect(code).toBe(EXIT.ok);
    expect(err).toBe('');
    expect(JSON.parse(out)).toMatchObject({ type: 'balloon', features: expect.any(Array) });
  });

  test('a socket path alone means the device', async () => {
    const { seen, startDaemon } = fakeDaemon();
    const session = start(['--socket-path=/run/vm1'], { startDaemon, env: { AEROSTAT_API: api } });
    await expect.poll(() => seen.options?.guests[0].name).toBe('vm1');
    await expect.poll(() => existsSync(api)).toBe(true);
    session.interrupt('SIGTERM');
    expect(await session.ended).toBe(EXIT.ok);
  });
});
