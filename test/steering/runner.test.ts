/** A policy at work over guests of fake daemons, on a clock that the test moves. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { steeredControl } from '../../src/steering/policy-control.ts';
import { StateFile } from '../../src/steering/state-file.ts';
import { GIB, MIB } from '../server/fake-control.ts';
import { SteeredHost, UsedGuests } from './world.ts';

let directory: string;
const hosts: SteeredHost[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-steering-'));
});

afterEach(async () => {
  for (const host of hosts.splice(0)) {
    expect(host.errors).toEqual([]);
    await host.runner.close();
  }
  rmSync(directory, { recursive: true });
});

const hosted = (...args: ConstructorParameters<typeof SteeredHost>): SteeredHost => {
  const host = new SteeredHost(...args);
  hosts.push(host);
  return host;
};

const THREE = { a: 2 * GIB, b: 2 * GIB, c: 2 * GIB };
/** Until what is idle has been taken. */
const SETTLED_MS = 180_000;

describe('memory', () => {
  test('of guests is left alone where the host has room for all', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(16 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    expect(guests.targets()).toEqual({ a: 0, b: 0, c: 0 });
  });

  test('that lies idle is taken where the host has less than guests may have, and no guest is below the floor', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    const keeps = ['a', 'b', 'c'].map(name => guests.keeps(name));
    expect(keeps.reduce((sum, keep) => sum + keep, 0)).toBeLessThan(3.25 * GIB + MIB + 3 * 4096);
    for (const keep of keeps) expect(keep).toBeGreaterThanOrEqual(512 * MIB);
  });

  test('comes back to a guest that bursts within two periods, taken from those that are idle', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    guests.used.set('a', 1.4 * GIB);
    await host.pass(4000);
    expect(guests.keeps('a')).toBeGreaterThanOrEqual(1.4 * GIB);
    expect(host.availableBytes).toBeGreaterThanOrEqual(0.25 * GIB);
  });

  test('is decided about at once when a guest says that it runs out, and not before its time otherwise', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS + 100);
    const { decisions } = host.runner;
    const idle = { availableBytes: 10 * GIB, freeBytes: 0, balloonedBytes: 0 };
    guests.emit({ guest: 'a', type: 'statistics', detail: idle });
    await host.pass(600);
    expect(host.runner.decisions).toBe(decisions);
    guests.used.set('a', guests.keeps('a') - 16 * MIB);
    guests.emit({ guest: 'a', type: 'statistics', detail: { ...idle, availableBytes: 16 * MIB } });
    await host.pass(600);
    expect(host.runner.decisions).toBeGreaterThan(decisions);
    expect(guests.keeps('a')).toBeGreaterThan((guests.used.get('a') ?? 0) + 64 * MIB);
  });

  test('that another guest waits for is handed on as it comes, before a balloon has reached its target', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS + 100);
    guests.used.set('a', guests.keeps('a') - 16 * MIB);
    const statistics = { availableBytes: 16 * MIB, freeBytes: 0, balloonedBytes: 0 };
    guests.emit({ guest: 'a', type: 'statistics', detail: statistics });
    await host.pass(300);
    const { decisions, last } = host.runner;
    expect(last.host.waitingBytes).toBeGreaterThan(0);
    guests.emit({ guest: 'b', type: 'actual', detail: {} });
    await host.pass(400);
    expect(host.runner.decisions).toBeGreaterThan(decisions);
    expect(host.runner.last.host.waitingBytes).toBeLessThan(MIB);
  });

  test('of minimums above what the host has is left with the guests, and said', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(2 * GIB, [guests], { defaults: { minBytes: 1.5 * GIB } });
    await host.pass(SETTLED_MS);
    expect(host.runner.last.host.floorsAbove).toBe(true);
    for (const name of ['a', 'b', 'c']) expect(guests.keeps(name)).toBeGreaterThanOrEqual(1.5 * GIB);
  });

  test('with a minimum above the maximum is bound by the maximum, and said', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests], { guests: { a: { minBytes: 2 * GIB, maxBytes: GIB } } });
    await host.pass(SETTLED_MS);
    expect(guests.keeps('a')).toBeLessThanOrEqual(GIB);
    expect(host.runner.decisionOf('a')?.contradiction).toBe(true);
  });
});

describe('targets', () => {
  test('are leases of two periods, which every decision renews', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests], { onSilence: 'release' });
    await host.pass(SETTLED_MS);
    expect(guests.orders('a').at(-1)).toMatchObject({
      force: true,
      lease: { forMs: 4000, onSilence: 'release' },
    });
    const renewed: unknown[] = [];
    guests.renewLeases = async order => {
      renewed.push(order);
      return { renewed: 3 };
    };
    await host.pass(6000);
    const order = { forMs: 4000, onSilence: 'release' };
    expect(renewed).toEqual([order, order, order]);
    // Before, targets in force kept the rule that they were ordered with.
    host.runner.settings = { ...host.runner.settings, onSilence: 'keep' };
    await host.pass(2000);
    expect(renewed.at(-1)).toEqual({ forMs: 4000, onSilence: 'keep' });
    const control = steeredControl(guests, host.runner);
    const leaseUntilMs = (await control.guestPolicy('a')).leaseUntilMs ?? 0;
    expect(leaseUntilMs).toBeGreaterThan(host.clock.wallMs());
  });

  test('are not set in a dry run, which decides and explains', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests], { dryRun: true });
    await host.pass(SETTLED_MS);
    expect(guests.targets()).toEqual({ a: 0, b: 0, c: 0 });
    const control = steeredControl(guests, host.runner);
    expect(await control.policy()).toMatchObject({ state: 'dry-run', moves: 0 });
    expect((await control.guestPolicy('a')).decision).toMatchObject({
      targetBytes: expect.any(Number),
      moved: true,
    });
    await control.changePolicy({ dryRun: false });
    await host.pass(4000);
    expect(host.runner.moves).toBeGreaterThan(0);
  });

  test('that a person sets hold until the policy is let to it again', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    const control = steeredControl(guests, host.runner);
    await guests.change('a', { targetBytes: 0.25 * GIB });
    await host.pass(60_000);
    expect(guests.targets().a).toBe(0.25 * GIB);
    expect(await control.guestPolicy('a')).toMatchObject({ mode: 'hold', heldSinceMs: expect.any(Number) });
    expect(host.events).toContainEqual(
      expect.objectContaining({
        guest: 'a',
        type: 'policy',
        detail: { held: true, targetBytes: 0.25 * GIB },
      }),
    );
    // The others make room for it.
    expect(guests.keeps('b') + guests.keeps('c')).toBeLessThanOrEqual(1.5 * GIB + 64 * MIB);
    await control.resumePolicy('a');
    await host.pass(60_000);
    expect(guests.targets().a).toBeGreaterThan(0.5 * GIB);
    expect(await control.guestPolicy('a')).toMatchObject({ mode: 'auto', heldSinceMs: null });
  });

  test('that were there before the policy are taken over', async () => {
    const guests = new UsedGuests(THREE);
    await guests.change('a', { targetBytes: 1.5 * GIB });
    guests.used.set('a', 0.4 * GIB);
    const host = hosted(16 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    expect(guests.targets().a).toBe(0);
    await guests.change('a', { targetBytes: 1.5 * GIB });
    await host.pass(10_000);
    expect(guests.targets().a).toBe(1.5 * GIB);
  });
});

describe('a guest', () => {
  test('that does not answer, or whose daemon does not, keeps no other one from its memory', async () => {
    const guests = new UsedGuests({ a: 2 * GIB, b: 2 * GIB });
    const stopped = new UsedGuests({ c: 2 * GIB });
    const host = hosted(4 * GIB, [guests, stopped]);
    await host.pass(SETTLED_MS);
    guests.silent.add('b');
    stopped.stall = new Promise(() => {});
    guests.used.set('a', 1.2 * GIB);
    await host.pass(6000);
    expect(guests.keeps('a')).toBeGreaterThanOrEqual(1.2 * GIB);
    // It counts with what it has.
    expect(host.runner.last.guests.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  });

  test('whose balloon does not grow counts with what it has, and the others get by', async () => {
    const guests = new UsedGuests(THREE);
    guests.stuck.add('c');
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    expect(host.runner.decisionOf('c')).toMatchObject({ stuck: true });
    expect(guests.keeps('c')).toBe(2 * GIB);
    expect(guests.keeps('a') + guests.keeps('b')).toBeLessThanOrEqual(1.25 * GIB + 64 * MIB);
  });

  test('whose statistics freeze loses nothing by them', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(16 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    guests.freeze('a');
    await host.pass(20_000);
    const control = steeredControl(guests, host.runner);
    const { decision } = await control.guestPolicy('a');
    expect(decision?.statisticsAgeMs).toBeGreaterThan(15_000);
    expect(guests.targets().a).toBe(0);
  });

  test('that rests and says the same again and again is not taken for one that says nothing', async () => {
    const guests = new UsedGuests(THREE);
    for (const name of Object.keys(THREE)) guests.resting.add(name);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    for (const name of Object.keys(THREE)) {
      expect(host.runner.decisionOf(name)).toMatchObject({ fresh: true });
      expect(guests.keeps(name)).toBeLessThan(1.5 * GIB);
    }
    expect(Object.keys(THREE).reduce((sum, name) => sum + guests.keeps(name), 0)).toBeLessThanOrEqual(
      3.25 * GIB + MIB,
    );
  });

  test('may have no more of the host than settings leave to the policy', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(64 * GIB, [guests], { memoryBytes: 4 * GIB });
    await host.pass(SETTLED_MS);
    expect(host.runner.last.host).toMatchObject({ totalBytes: 4 * GIB, othersBytes: 0 });
    expect(Object.keys(THREE).reduce((sum, name) => sum + guests.keeps(name), 0)).toBeLessThanOrEqual(
      3.5 * GIB + MIB,
    );
  });

  test('that lies about its memory takes no more from the others than its own part', async () => {
    const honest = new UsedGuests(THREE);
    const lying = new UsedGuests(THREE);
    lying.claims.set('c', 0);
    const [one, other] = [hosted(4 * GIB, [honest]), hosted(4 * GIB, [lying])];
    await one.pass(SETTLED_MS);
    await other.pass(SETTLED_MS);
    for (const name of ['a', 'b']) expect(lying.keeps(name)).toBeGreaterThanOrEqual(512 * MIB);
    expect(lying.keeps('c')).toBeLessThanOrEqual(2 * GIB);
    expect(honest.keeps('a')).toBeGreaterThanOrEqual(512 * MIB);
  });
});

describe('a policy', () => {
  test('that was killed goes on where it was, and steers no guest twice', async () => {
    const guests = new UsedGuests(THREE);
    const state = new StateFile(directory);
    const host = hosted(4 * GIB, [guests], {}, { state });
    await host.pass(SETTLED_MS);
    const control = steeredControl(guests, host.runner);
    await guests.change('b', { targetBytes: GIB });
    await host.pass(4000);
    await control.changeGuestPolicy('a', { shares: 2000 });
    await control.reserve({ name: 'new', bytes: 128 * MIB });
    await host.pass(SETTLED_MS);
    const before = guests.targets();
    await host.killAndRestart();
    const { calls } = guests;
    const asked = calls.length;
    await host.pass(2500);
    // It knows what it learned, so that nothing moves: not even the grace of a guest that is new to it.
    expect(guests.targets()).toEqual(before);
    expect(calls.slice(asked).filter(([, , changes]) => 'targetBytes' in (changes as object))).toEqual([]);
    const again = steeredControl(guests, host.runner);
    expect(await again.guestPolicy('b')).toMatchObject({ mode: 'hold' });
    expect(await again.guestPolicy('a')).toMatchObject({ settings: { shares: 2000 } });
    expect((await again.policy()).reservations).toMatchObject([{ name: 'new', bytes: 128 * MIB }]);
  });

  test('that is late for two periods says that it is silent', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(10_000);
    const control = steeredControl(guests, host.runner);
    expect((await control.policy()).state).toBe('running');
    host.runner.abandon();
    await host.pass(4500);
    expect((await control.policy()).state).toBe('silent');
  });

  test('reserves memory, says what is missing, and ends the reservation when the guest is there', async () => {
    const guests = new UsedGuests({ ...THREE, d: 2 * GIB });
    guests.alter('d', { connected: false });
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    const control = steeredControl(guests, host.runner);
    expect(await control.reserve({ name: 'd', bytes: GIB })).toMatchObject({ ready: false });
    await host.pass(10_000);
    expect((await control.policy()).reservations).toMatchObject([
      { name: 'd', ready: true, missingBytes: 0 },
    ]);
    await expect(control.reserve({ name: 'e', bytes: 16 * GIB })).rejects.toThrow('cannot be reserved');
    await expect(control.reserve({ name: 'a', bytes: GIB })).rejects.toThrow('runs already');
    guests.alter('d', { connected: true, actualBytes: GIB, targetBytes: GIB });
    await host.pass(4000);
    expect((await control.policy()).reservations).toEqual([]);
    await expect(control.releaseReservation({ name: 'd' })).rejects.toThrow('nothing is reserved');
  });

  test('refuses settings that contradict each other, and changes nothing', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(4000);
    const control = steeredControl(guests, host.runner);
    await control.changeGuestPolicy('a', { maxBytes: GIB });
    await expect(control.changeGuestPolicy('a', { minBytes: 1.5 * GIB })).rejects.toThrow(
      'nothing was changed',
    );
    expect((await control.guestPolicy('a')).settings).toMatchObject({ minBytes: null, maxBytes: GIB });
    await control.changeGuestPolicy('a', { maxBytes: null });
    expect((await control.guestPolicy('a')).settings).toMatchObject({ maxBytes: null });
    await expect(control.guestPolicy('absent')).rejects.toMatchObject({ code: 'AEROSTAT_UNKNOWN_GUEST' });
  });

  test('keeps the settings in force when a file is refused, and says why', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    let fails = true;
    const control = steeredControl(guests, host.runner, {
      path: 'policy.toml',
      read: () => {
        if (fails) throw new Error('policy.toml:1:1: no');
        return { ...host.runner.settings, periodMs: 1000 };
      },
    });
    await expect(control.reloadPolicy()).rejects.toThrow('policy.toml:1:1');
    expect(await control.policy()).toMatchObject({ periodMs: 2000, settingsError: 'policy.toml:1:1: no' });
    fails = false;
    expect(await control.reloadPolicy()).toMatchObject({ periodMs: 1000, settingsError: null });
  });

  test('remembers the decisions that changed something', async () => {
    const guests = new UsedGuests(THREE);
    const host = hosted(4 * GIB, [guests]);
    await host.pass(SETTLED_MS);
    const control = steeredControl(guests, host.runner);
    const { decisions } = await control.policyHistory('a');
    expect(decisions.filter(({ moved }) => moved).length).toBeGreaterThan(0);
    expect(decisions.every(({ sentence }) => sentence.startsWith('a '))).toBe(true);
    expect(decisions.length).toBeLessThan(host.runner.decisions);
  });
});

test('a thousand guests at rest cost their daemon three questions a period, and no order', async () => {
  const names = Array.from({ length: 1000 }, (_, at) => `vm${at}`);
  const guests = new UsedGuests(Object.fromEntries(names.map(name => [name, GIB])));
  const host = hosted(2000 * GIB, [guests]);
  await host.pass(20_000);
  const asked: string[] = [];
  for (const question of ['guests', 'samples', 'renewLeases'] as const) {
    const before = guests[question].bind(guests) as (args: never) => Promise<never>;
    Object.assign(guests, {
      [question]: (args: never) => {
        asked.push(question);
        return before(args);
      },
    });
  }
  const calls = guests.calls.length;
  const decisions = host.runner.decisions;
  await host.pass(6000);
  expect(host.runner.decisions - decisions).toBe(3);
  expect(asked.sort()).toEqual(['guests', 'renewLeases', 'samples'].flatMap(one => [one, one, one]));
  expect(guests.calls.length).toBe(calls);
});

test('a state file that cannot be understood is set aside', async () => {
  const { writeFileSync, existsSync } = await import('node:fs');
  const state = new StateFile(directory);
  writeFileSync(join(directory, 'policy-state.json'), '{"version":1,');
  expect(state.read()).toBeUndefined();
  expect(existsSync(join(directory, 'policy-state.json.bad'))).toBe(true);
});
