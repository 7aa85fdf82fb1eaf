import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Key, keysIn, readKeys } from '../../src/cli/keys.ts';
import { styleOf } from '../../src/cli/style.ts';
import { type Order, TopScreen } from '../../src/cli/top-screen.ts';
import type { DeviceGuestStatus } from '../../src/control/contract.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { Captured, run } from './terminal.ts';

const plain = styleOf(new Captured() as never, {});
const SIZE = { columns: 120, rows: 24 };

/** vm2 has the most memory, vm10 the largest balloon, vm1 is needy, and of nobody nothing is known. */
const GUESTS = [
  guestStatus('vm10', { balloonedBytes: 2 * GIB, actualBytes: 2 * GIB, targetBytes: 2 * GIB }),
  guestStatus('vm2', { memoryBytes: 8 * GIB, residentBytes: 6 * GIB }),
  guestStatus('vm1', { lastError: null }),
  guestStatus('nobody', { connected: false, memoryBytes: null, actualBytes: null, residentBytes: null }),
];

async function screen(guests: readonly DeviceGuestStatus[] = GUESTS) {
  const set: [guest: string, bytes: number][] = [];
  const top = new TopScreen((guest, bytes) => set.push([guest, bytes]));
  const control = new FakeControl(...guests);
  const samples = await control.samples();
  const { statistics } = await control.statistics(guests[0].name);
  const needy = { ageMs: 10, balloonedBytes: 0, statistics: { ...statistics, availableBytes: 40 * MIB } };
  top.see({
    guests,
    samples: { ...samples, vm1: needy },
    host: await control.host(),
    atMs: 1000,
  });
  const type = (...keys: Key[]) => {
    for (const key of keys) top.press(key);
    return top.frame(plain, SIZE);
  };
  const names = () =>
    top
      .frame(plain, SIZE)
      .map(line => /^[ ›](\S+) +(?:ok|moving|waiting|in need)/.exec(line)?.[1])
      .filter(name => name !== undefined);
  return { top, set, type, names };
}

describe('the rows', () => {
  test.each<[Key, Order, string[]]>([
    ['n', 'name', ['nobody', 'vm1', 'vm2', 'vm10']],
    ['m', 'memory', ['vm2', 'vm1', 'vm10', 'nobody']],
    ['b', 'balloon', ['vm10', 'nobody', 'vm1', 'vm2']],
    ['r', 'resident', ['vm2', 'vm1', 'vm10', 'nobody']],
    ['a', 'available', ['vm1', 'vm2', 'vm10', 'nobody']],
  ])('are sorted by the key %s', async (key, order, expected) => {
    const { top, type, names } = await screen();
    type(key);
    expect(top.order).toBe(order);
    expect(names()).toEqual(expected);
  });

  test('say who is in need and of whom nothing is known', async () => {
    const { type } = await screen();
    const lines = type();
    expect(lines.find(line => line.includes('vm1 '))).toMatch(/in need .* 1%/);
    expect(lines.find(line => line.includes('nobody'))).toMatch(/waiting +- .* - +-/);
  });

  test('say what is left at least to a guest whose balloon grew after it had said what it has', async () => {
    const { top } = await screen();
    const control = new FakeControl(guestStatus('vm1', { balloonedBytes: 2 * GIB, actualBytes: 2 * GIB }));
    const [guests, samples, host] = await Promise.all([control.guests(), control.samples(), control.host()]);
    const before = { ...samples.vm1, balloonedBytes: 0 };
    top.see({ guests, samples: { vm1: before }, host, atMs: 2000 });
    // 3.5 of 4 GiB were available before 2 GiB were taken.
    expect(top.frame(plain, SIZE).find(line => line.includes('vm1 '))).toMatch(/ ≥38% /);
    top.see({ guests, samples, host, atMs: 9000 });
    expect(top.frame(plain, SIZE).find(line => line.includes('vm1 '))).toMatch(/ 88% /);
  });

  test('fit the terminal, with the selected one among them', async () => {
    const many = Array.from({ length: 100 }, (_, index) => guestStatus(`g${index}`));
    const { top, type } = await screen(many);
    for (const size of [SIZE, { columns: 80, rows: 10 }, { columns: 64, rows: 8 }]) {
      for (const key of ['end', 'up', 'home', 'page-down'] as const) {
        type(key);
        const lines = top.frame(plain, size);
        expect(lines.length).toBeLessThanOrEqual(size.rows);
        expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(size.columns);
        expect(lines.some(line => line.startsWith(`›${top.selected} `))).toBe(true);
      }
    }
  });

  test('keep the selected guest selected when the order changes', async () => {
    const { top, type } = await screen();
    type('down');
    expect(top.selected).toBe('vm1');
    type('m', 'r', 'a');
    expect(top.selected).toBe('vm1');
  });
});

describe('a target', () => {
  const typed = (text: string) => ['t', ...text, 'enter'];

  test('is set for the selected guest', async () => {
    const { set, type } = await screen();
    type('down', 'down', ...typed('1.5G'));
    expect(set).toEqual([['vm2', 1.5 * GIB]]);
  });

  test('is asked for twice when the guest cannot spare so much, and no is what is meant by anything but y', async () => {
    const { set, type } = await screen();
    const lines = type('down', ...typed('1G'));
    expect(lines.at(-1)).toMatch(/vm1 says that it can spare .*\. Take 1G from vm1\? y\/N/);
    expect(type('enter').at(-1)).toBe('left as it is');
    expect(set).toEqual([]);
    type(...typed('1G'), 'y');
    expect(set).toEqual([['vm1', GIB]]);
  });

  test('that makes no sense says so and can be mended', async () => {
    const { set, type } = await screen();
    expect(type('down', ...typed('1X')).at(-1)).toMatch(/1X█ +"1X" is not a size/);
    expect(type('backspace', 'T', 'enter').at(-1)).toMatch(/vm1 has 4G in all/);
    type('escape', 't', 'escape', 't', 'enter');
    expect(set).toEqual([]);
  });

  test('is set by nothing but the keys that say so', async () => {
    const keys = fc.array(
      fc.constantFrom('up', 'down', 'n', 'm', 'b', 'r', 'a', 't', '9', 'G', 'escape', 'x'),
      {
        maxLength: 40,
      },
    );
    await fc.assert(
      fc.asyncProperty(keys, async pressed => {
        const { set, type } = await screen();
        type(...pressed);
        expect(set).toEqual([]);
      }),
    );
  });
});

describe('keys', () => {
  test('are told apart in whatever a terminal sends at once', () => {
    expect(keysIn('a\u001b[A\u001b[6~\u001b\r\u007fü\u0003')).toEqual([
      'a',
      'up',
      'page-down',
      'escape',
      'enter',
      'backspace',
      'ü',
      'interrupt',
    ]);
  });

  test('are read until the terminal is given back', () => {
    const modes: boolean[] = [];
    const input = Object.assign(new PassThrough(), { setRawMode: (raw: boolean) => modes.push(raw) });
    const keys: Key[] = [];
    const release = readKeys(input, key => keys.push(key));
    input.emit('data', Buffer.from('\u001b[Bq'));
    release();
    input.emit('data', Buffer.from('x'));
    expect(keys).toEqual(['down', 'q']);
    expect(modes).toEqual([true, false]);
  });

  test('q and Ctrl-C end it, unless q is typed into a target', async () => {
    const { top, type } = await screen();
    type('t', 'q');
    expect(top.ended).toBe(false);
    type('escape', 'q');
    expect(top.ended).toBe(true);
    const other = await screen();
    other.type('t', 'interrupt');
    expect(other.top.ended).toBe(true);
  });
});

test('top without a daemon says how to start one', async () => {
  const { code, err } = await run(['top', '--api', '/nowhere/api.sock']);
  expect(code).toBe(3);
  expect(err).toMatch(/aerostat device/);
});
