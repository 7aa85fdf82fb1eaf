/** Whether a guest can answer, told at once and everywhere: by the API, the commands and the metrics. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { program } from '../cli/built.ts';
import { FIRST_PAGE as P } from './hand-guest.ts';
import { OneDaemon } from './one-daemon.ts';
import type { SpokenGuest } from './spoken-guest.ts';

/** Far longer than any of these answers may take: who waits for all of it does not say it at once. */
const LONG_MS = 20_000;

const one = new OneDaemon();

async function connect(): Promise<SpokenGuest> {
  const guest = await one.connect();
  await guest.heard();
  return guest;
}

async function start(): Promise<SpokenGuest> {
  const guest = await connect();
  await guest.startDriver();
  return guest;
}

const stateOf = async () => (await one.daemon.control.guest('a')).state;

function aerostat(...words: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [program, ...words, '--api', join(one.daemon.directory, 'api.sock')],
    { encoding: 'utf8', timeout: 60_000 },
  );
  return { code: status, stdout, stderr };
}

const timed = async (act: () => unknown): Promise<number> => {
  const start = performance.now();
  await act();
  return performance.now() - start;
};

/** All of these say `why`, and none waits for the guest. */
async function expectSaid(why: RegExp): Promise<void> {
  const fresh = { freshMs: 0, timeoutMs: LONG_MS };
  const took = await timed(() => expect(one.daemon.control.statistics('a', fresh)).rejects.toThrow(why));
  expect(took).toBeLessThan(LONG_MS / 2);
  await expect(one.daemon.control.hint('a', { action: 'start' })).rejects.toThrow(why);
}

test('a socket without a connection waits', async () => {
  expect(await stateOf()).toBe('waiting');
  await expectSaid(/no guest is connected/);
  expect(aerostat('status').stdout).toMatch(/a +waiting/);
});

test('a guest whose driver is not loaded has none, and is not asked', async () => {
  await connect();
  expect(await stateOf()).toBe('no-driver');
  await expectSaid(/its balloon driver has not started yet/);
  expect(aerostat('status').stdout).toMatch(/a +no driver/);
});

describe('a guest that is paused', () => {
  test.each<[string, (guest: SpokenGuest) => Promise<unknown>]>([
    ['SET_VRING_ENABLE 0', guest => guest.disableAll()],
    ['GET_VRING_BASE', guest => guest.stopRings()],
  ])('by %s says so to all who ask, at once', async (_, pause) => {
    const guest = await start();
    await guest.postStatistics();
    expect(await stateOf()).toBe('running');
    await pause(guest);
    expect(await stateOf()).toBe('paused');
    await expectSaid(/it is paused: its hypervisor has stopped it, or its rings/);
    expect(aerostat('status').stdout).toMatch(/a +paused/);
    expect(aerostat('status', 'a').stdout).toContain('a: paused (it is paused');
    const wait = ['set', 'a', '--balloon', '8M', '--wait', '--timeout', `${LONG_MS / 1000}s`];
    let said = { code: null as number | null, stderr: '' };
    expect(await timed(() => (said = aerostat(...wait)))).toBeLessThan(LONG_MS);
    expect(said.code).toBe(4);
    expect(said.stderr).toMatch(/it is paused/);
    expect(said.stderr).not.toMatch(/no more memory/);
    await one.daemon.control.change('a', { targetBytes: 0 });
  });

  test('is told of as an event, and so is that it goes on', async () => {
    const guest = await start();
    const states: unknown[] = [];
    let heard = false;
    const leave = one.daemon.control.subscribe(({ type, detail }) => {
      heard = true;
      if (type === 'state') states.push(detail.state);
    });
    // The stream of events opens some time.
    await one.daemon.until(
      async () => (await one.daemon.control.change('a', { targetBytes: 0 })) !== undefined && heard,
      () => 'no event came',
    );
    const until = (state: string) =>
      one.daemon.until(
        () => states.at(-1) === state,
        () => `never ${state}: ${states.join()}`,
      );
    await guest.disableAll();
    await until('paused');
    await guest.enableAll();
    await until('running');
    leave();
  });

  test('disappoints who waits for its statistics already', async () => {
    const guest = await start();
    await guest.postStatistics();
    const asked = one.daemon.control.statistics('a', { freshMs: 0, timeoutMs: LONG_MS });
    asked.catch(() => {});
    await guest.queue('stats').returned(1);
    const took = await timed(async () => {
      await guest.disableAll();
      await expect(asked).rejects.toThrow(/it is paused/);
    });
    expect(took).toBeLessThan(LONG_MS / 2);
  });
});

test('a statistics ring whose first buffer the front-end skipped has a driver that gave none', async () => {
  const guest = await connect();
  const stats = guest.roles.indexOf('stats');
  await guest.startDriver({
    base: index => (index === stats ? 1 : 0),
    before: () => {
      guest.queue('stats').add({ out: new Uint8Array(10) });
      guest.queue('stats').driver.publish(guest.memory);
    },
  });
  const fresh = one.daemon.control.statistics('a', { freshMs: 0, timeoutMs: 100 });
  await expect(fresh).rejects.toThrow(/has given no statistics buffer/);
});

describe('a guest whose front-end is stopped', () => {
  let child: ChildProcess;

  afterEach(async () => {
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  });

  test('is silent, says so at once, and runs again when that goes on', async () => {
    child = spawn(
      process.execPath,
      [program, 'guest', '--connect', one.daemon.socketOf('a'), '--memory', '64M'],
      {
        stdio: ['pipe', 'ignore', 'ignore'],
      },
    );
    await one.daemon.untilGuest('a', ({ state }) => state === 'running');
    child.kill('SIGSTOP');
    await one.daemon.untilGuest('a', ({ state }) => state === 'silent');
    await expectSaid(/it does not answer: its front-end is stopped/);
    expect(aerostat('status').stdout).toMatch(/a +silent/);
    child.kill('SIGCONT');
    await one.daemon.untilGuest('a', ({ state }) => state === 'running');
    // It may have been stopped before its driver had started all of its rings.
    const age = () =>
      one.daemon.control.statistics('a', { freshMs: 0, timeoutMs: LONG_MS }).then(({ ageMs }) => ageMs);
    await expect.poll(() => age().catch(() => null)).not.toBeNull();
  });
});

describe('a daemon that finds a guest with a full balloon', () => {
  /** A driver whose balloon was filled at another daemon; its rings start in the middle. */
  async function found(): Promise<SpokenGuest> {
    const guest = await start();
    await guest.inflate(P, 1000);
    await guest.writeActual(1000);
    const bases = await guest.stopRings();
    await guest.reconnect(one.daemon.socketOf('a'));
    await guest.describeRings(index => bases[index]);
    return guest;
  }

  test('says of neither side’s balloon that it is 0, and calls no page bad that comes back', async () => {
    const guest = await found();
    const before = await one.daemon.control.guest('a');
    expect(before).toMatchObject({ state: 'running', actualBytes: null, balloonedBytes: null });
    expect(before.progress?.reachedMs ?? null).toBeNull();
    await guest.deflate(P, 400);
    const after = await one.daemon.control.guest('a');
    expect(after.counters.badPages).toBe(before.counters.badPages);
    expect(after.counters.unknownPages - before.counters.unknownPages).toBe(400);
    await guest.writeActual(600);
    expect(await one.daemon.control.guest('a')).toMatchObject({
      actualBytes: 600 * PAGE_SIZE,
      balloonedBytes: null,
    });
  });

  test('knows all again when the driver starts anew', async () => {
    const guest = await found();
    await guest.stopRings();
    await guest.startDriver();
    expect(await one.daemon.control.guest('a')).toMatchObject({ actualBytes: 0, balloonedBytes: 0 });
  });

  test('says at its start that targets are not kept', () => {
    expect(one.daemon.log).toContain('targets and accounts of an earlier run are not kept');
  });
});
