import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Key, keysIn, readKeys } from '../../src/cli/keys.ts';
import { glyphsOf, styleOf } from '../../src/cli/style.ts';
import { TopScreen } from '../../src/cli/top-screen.ts';
import type { SortKey } from '../../src/cli/top-table.ts';
import type { DeviceGuestStatus } from '../../src/control/contract.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { policyStatus } from '../server/fake-policy.ts';
import { Captured, run } from './terminal.ts';

const plain = styleOf(new Captured() as never, {});
const SIZE = { columns: 120, rows: 24 };

/** vm2 has the most memory, vm10 the largest balloon, vm1 is needy, and of absent nothing is known. */
const GUESTS = [
  guestStatus('vm10', { balloonedBytes: 2 * GIB, actualBytes: 2 * GIB, targetBytes: 2 * GIB }),
  guestStatus('vm2', { memoryBytes: 8 * GIB, residentBytes: 6 * GIB }),
  guestStatus('vm1', { lastError: null }),
  guestStatus('absent', { connected: false, memoryBytes: null, actualBytes: null, residentBytes: null }),
];

async function screen(guests: readonly DeviceGuestStatus[] = GUESTS) {
  const set: [guest: string, bytes: number, force: boolean][] = [];
  const top = new TopScreen((...asked) => set.push(asked));
  const control = new FakeControl(...guests);
  const samples = await control.samples();
  const { statistics } = await control.statistics(guests[0].name);
  const needy = { ageMs: 10, balloonedBytes: 0, statistics: { ...statistics, availableBytes: 40 * MIB } };
  top.see({
    guests,
    samples: { ...samples, vm1: needy },
    host: await control.host(),
    policy: null,
    atMs: 1000,
  });
  const type = (...keys: Key[]) => {
    for (const key of keys) top.press(key);
    return top.frame(plain, SIZE);
  };
  const names = () =>
    top
      .frame(plain, SIZE)
      .map(line => /^[ ›](\S+) +(?:ok|moving|stuck|waiting|in need)/.exec(line)?.[1])
      .filter(name => name !== undefined);
  return { top, set, type, names };
}

describe('the rows', () => {
  test.each<[Key, SortKey, string[]]>([
    ['n', 'name', ['absent', 'vm1', 'vm2', 'vm10']],
    ['m', 'memory', ['vm2', 'vm1', 'vm10', 'absent']],
    ['b', 'balloon', ['vm10', 'absent', 'vm1', 'vm2']],
    ['r', 'resident', ['vm2', 'vm1', 'vm10', 'absent']],
    ['a', 'available', ['vm1', 'vm2', 'vm10', 'absent']],
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
    expect(lines.find(line => line.includes('absent'))).toMatch(/waiting +- .* - +-/);
  });

  test('say what is left at least to a guest whose balloon grew after it had said what it has', async () => {
    const { top } = await screen();
    const control = new FakeControl(guestStatus('vm1', { balloonedBytes: 2 * GIB, actualBytes: 2 * GIB }));
    const [guests, samples, host] = await Promise.all([control.guests(), control.samples(), control.host()]);
    const before = { ...samples.vm1, balloonedBytes: 0 };
    top.see({ guests, samples: { vm1: before }, host, policy: null, atMs: 2000 });
    // 3.5 of 4 GiB were available before 2 GiB were taken.
    expect(top.frame(plain, SIZE).find(line => line.includes('vm1 '))).toMatch(/ ≥38% /);
    top.see({ guests, samples, host, policy: null, atMs: 9000 });
    expect(top.frame(plain, SIZE).find(line => line.includes('vm1 '))).toMatch(/ 88% /);
  });

  test('show what a memory policy reckons and why, where there is one, and the sentence of the selected guest', async () => {
    const { top } = await screen();
    const titles = () => top.frame(plain, SIZE).find(line => line.includes('GUEST')) ?? '';
    expect(titles()).not.toMatch(/NEED|WHY/);
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'), guestStatus('vm3'));
    control.memoryPolicy.status = policyStatus(['vm1', 'vm2']);
    control.memoryPolicy.alter('vm2', { mode: 'hold' });
    const [guests, samples, host] = await Promise.all([control.guests(), control.samples(), control.host()]);
    top.see({ guests, samples, host, policy: await control.policy(), atMs: 2000 });
    expect(titles()).toMatch(/ NEED +WHY/);
    const frame = top.frame(plain, SIZE);
    const line = (name: string) =>
      frame.find(one => /^[ ›]/.test(one) && one.slice(1).startsWith(`${name} `));
    expect(line('vm1')).toMatch(/ 1\.75G +step by step/);
    expect(line('vm2')).toMatch(/ 1\.75G +on hold/);
    expect(line('vm3')).toMatch(/ - +-/);
    expect(top.selected).toBe('vm1');
    expect(frame.join(' ')).toMatch(/vm1 keeps 2\.5G of 4G: it uses 1\.5G and needs 1\.75G/);
    control.memoryPolicy.alter('vm1', { error: 'the daemon does not answer' });
    top.see({ guests, samples, host, policy: await control.policy(), atMs: 3000 });
    expect(top.frame(plain, SIZE).join(' ')).toMatch(/vm1 .* cannot be asked/);
  });

  test('stand below a mark on the column that they are sorted by', async () => {
    const { type } = await screen();
    const titles = (key: Key) => type(key).find(line => line.includes('GUEST')) ?? '';
    expect(titles('n')).toMatch(/^ GUEST▴ /);
    for (const [key, title] of [
      ['m', 'MEMORY▾'],
      ['b', 'BALLOON▾'],
      ['r', 'RESIDENT▾'],
      ['a', 'AVAIL▴'],
    ] as const) {
      expect(titles(key)).toContain(title);
      expect(titles(key).match(/[▴▾]/g)).toHaveLength(1);
    }
  });

  test('sum what is known, and say how much is not', async () => {
    const known = guestStatus('vm1', { residentBytes: GIB });
    const unknown = { ...guestStatus('web', { residentBytes: null }), balloonedBytes: null } as never;
    const waiting = guestStatus('absent', { connected: false, memoryBytes: null, residentBytes: null });
    expect((await screen([known, unknown, waiting])).type()[0]).toMatch(
      /^3 guests: 8G given, \S+ ballooned, 1G resident \(1 not known\), \S+ free and yet held \(1 not known\)$/,
    );
    expect((await screen([unknown])).type()[0]).toMatch(/, - resident, - free and yet held$/);
  });

  test('say why a guest is in need that keeps memory for a hint session', async () => {
    const hint = {
      state: 'stopped',
      commandId: 7,
      hintedBytes: 3 * GIB,
      ranges: 1,
      heldBytes: 3 * GIB,
      endsInMs: 1000,
    } as const;
    const { type } = await screen([guestStatus('vm1', { hint }), guestStatus('vm2')]);
    expect(type().find(line => line.includes('vm1 '))).toMatch(/vm1 +in need: hints hold 3G /);
  });

  test('do not call a guest ok whose hypervisor does not tell its state', async () => {
    const unknown = { ...guestStatus('vm2'), state: null } as unknown as DeviceGuestStatus;
    const { type } = await screen([guestStatus('vm1'), unknown, guestStatus('vm3', { state: 'paused' })]);
    const words = type().flatMap(line => /(vm\d) +(\S+)/.exec(line)?.slice(1, 3).join(' ') ?? []);
    expect(words).toEqual(['vm1 in', 'vm2 connected', 'vm3 paused']);
  });

  test('say which guest can give no more', async () => {
    const stuck = { sinceMs: 1e12, forMs: 60_000, swings: false, retryInMs: null };
    const { type } = await screen([
      guestStatus('vm1', { targetBytes: GIB }),
      guestStatus('vm2', { targetBytes: GIB, stuck }),
    ]);
    expect(type().find(line => line.includes('vm2 '))).toMatch(/vm2 +stuck/);
  });

  test('say of which guest much waits for whole huge pages, and not of one with a few pages left over', async () => {
    const balloon = { targetBytes: GIB, actualBytes: GIB, balloonedBytes: GIB };
    const { type } = await screen([
      guestStatus('vm3', { ...balloon, incompleteBytes: GIB / 2 }),
      guestStatus('vm2', { ...balloon, incompleteBytes: GIB / 1024 }),
    ]);
    const lines = type();
    expect(lines.find(line => line.includes('vm3 '))).toMatch(/vm3 +ok: 512M wait for whole huge pages /);
    expect(lines.find(line => line.includes('vm2 '))).toMatch(/vm2 +ok {2}/);
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
    expect(set).toEqual([['vm2', 1.5 * GIB, false]]);
  });

  test('is asked for twice when the guest cannot spare so much, and no is what is meant by anything but y', async () => {
    const { set, type } = await screen();
    const lines = type('down', ...typed('1G'));
    expect(lines.at(-1)).toMatch(/vm1 says that it can spare .*\. Take 1G from vm1\? y\/N/);
    expect(type('enter').at(-1)).toBe('left as it is');
    expect(set).toEqual([]);
    type(...typed('1G'), 'y');
    expect(set).toEqual([['vm1', GIB, true]]);
  });

  test('that makes no sense says so and can be mended', async () => {
    const { set, type } = await screen();
    expect(type('down', ...typed('1X')).join('\n')).toMatch(/1X█\s+"1X" is not a size/);
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

describe('below the table', () => {
  test('no part of an error is cut off, however narrow the terminal', async () => {
    const { top } = await screen();
    const foot = (columns: number) => {
      const lines = top.frame(plain, { columns, rows: 24 });
      return lines.slice(lines.lastIndexOf('') + 1);
    };
    const trouble =
      'the daemon at /run/user/1000/aerostat/api.sock ended before it had answered; start one with "aerostat device --socket-path PATH"';
    for (const columns of [40, 64, 80]) {
      top.trouble = trouble;
      const lines = foot(columns);
      expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(columns);
      expect(lines.join(' ').replaceAll(/ +/g, ' ')).toContain(trouble);
      top.trouble = '';
      top.press('t');
      for (const key of ['1', 'X', 'enter']) top.press(key);
      const asked = foot(columns);
      expect(Math.max(...asked.map(line => line.length))).toBeLessThanOrEqual(columns);
      expect(asked.join(' ')).toMatch(/bytes if none\)/);
      top.press('escape');
    }
  });

  test('? says what keys and bars mean, until the next key, which does nothing else', async () => {
    const { top, type } = await screen();
    expect(type().at(-1)).toContain('? help');
    const help = type('?').join('\n');
    expect(help).toMatch(/sort by resident/);
    expect(help).toMatch(/█ +used by programs/);
    const before = top.selected;
    expect(type('down').join('\n')).not.toMatch(/sort by resident/);
    expect(top.selected).toBe(before);
  });

  test('everything is ASCII where the locale knows no more', async () => {
    const top = new TopScreen(() => {}, glyphsOf({ LANG: 'C' }));
    const control = new FakeControl(...GUESTS);
    top.see({
      guests: GUESTS,
      samples: await control.samples(),
      host: await control.host(),
      policy: null,
      atMs: 1000,
    });
    const frames = [top.frame(plain, { columns: 160, rows: 24 })];
    for (const key of ['t', 'escape', '?']) {
      top.press(key);
      frames.push(top.frame(plain, { columns: 160, rows: 24 }));
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the bounds of ASCII are what is tested
    expect(frames.flat().join('\n')).toMatch(/^[\x00-\x7f]*$/);
    expect(frames[0].join('\n')).toMatch(/used# cache= free held- balloon\./);
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
