import { describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import * as messages from '../../src/migration/stream/messages.ts';
import { SECTION_HEADER, StreamError } from '../../src/migration/stream/section.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';
import { mutate } from '../support/mutate.ts';
import { expectHarmless, honest, MEMORY_MAX, PAGES, type Part, sealed, state, Victim } from './victim.ts';

test('an honest stream brings the guest', async () => {
  const victim = await new Victim().feed(sealed(honest()));
  expect([victim.runs, victim.error, victim.replies]).toEqual([
    true,
    undefined,
    ['welcome', 'ready', 'running'],
  ]);
  expect(victim.loaded.map(({ name, bytes }) => [name, bytes.length])).toEqual([['guest', 1000]]);
  const page = new Uint8Array(PAGE_SIZE);
  const filled = Array.from({ length: PAGES }, (_, slot) => {
    victim.ram?.read(slot, 1, page, 0);
    return page[17] === 0x5a;
  });
  expect(filled.flatMap((full, slot) => (full ? [slot] : []))).toEqual([6, PAGES - 1]);
});

describe('a stream', () => {
  test('that ends anywhere before its end brings no guest', async () => {
    const bytes = Buffer.concat(sealed(honest()));
    const cuts = sealed(honest()).reduce<number[]>(
      (at, { length }) => at.concat((at.at(-1) ?? 0) + length),
      [],
    );
    for (const cut of [1, 20, 30, ...cuts.slice(0, -1), bytes.length - 1]) {
      const victim = new Victim();
      await victim.feed([bytes.subarray(0, cut)]);
      await victim.end();
      expectHarmless(victim);
    }
  });

  test('with a section left out, twice, or in another place is refused', async () => {
    const sections = sealed(honest());
    for (let index = 0; index < sections.length - 1; index++) {
      const without = sections.filter((_, i) => i !== index);
      const twice = [...sections.slice(0, index + 1), ...sections.slice(index)];
      const swapped = sections.slice();
      [swapped[index], swapped[index + 1]] = [swapped[index + 1], swapped[index]];
      for (const order of [without, twice, swapped]) {
        const victim = await (await new Victim().feed(order)).end();
        expectHarmless(victim);
      }
    }
  });

  test('whose sections come in a wrong order, under right numbers, is refused', async () => {
    const parts = honest();
    const refused = async (order: readonly Part[]): Promise<string> => {
      const victim = await (await new Victim().feed(sealed(order))).end();
      expectHarmless(victim);
      return victim.error instanceof StreamError ? victim.error.fault : String(victim.error);
    };
    const [hello, memory, round, data] = parts;
    const end = parts[parts.length - 2];
    const go = parts[parts.length - 1];
    expect(await refused([memory])).toBe('undefined');
    expect(await refused([hello, hello])).toBe('order');
    expect(await refused([hello, data])).toBe('order');
    expect(await refused([hello, round])).toBe('order');
    expect(await refused([hello, end])).toBe('order');
    expect(await refused([hello, go])).toBe('order');
    expect(await refused([hello, memory, memory])).toBe('order');
    expect(await refused([hello, memory, go])).toBe('order');
    // Totals that do not fit what came.
    expect(await refused([hello, memory, end])).toBe('payload');
    expect(await refused([...parts.slice(0, -1), data])).toBe('order');
    expect(await refused([hello, memory, { name: 'ready', payload: new Uint8Array() }])).toBe('order');
  });

  test('that asks for more memory than this host gives is refused before any is made', async () => {
    const [hello] = honest();
    const memory = (...regions: [number, number][]): Part => {
      const writer = new SectionWriter();
      const shapes = regions.map(([guestAddress, size]) => ({ guestAddress, size, pageSize: PAGE_SIZE }));
      return {
        name: 'memory',
        payload: messages.writeMemory(writer, shapes).slice(SECTION_HEADER.size),
      };
    };
    for (const part of [
      memory([0, 2 ** 52]),
      memory([2 ** 52, 2 ** 52]),
      memory([4096, 100]),
      memory([0, PAGE_SIZE], [0, PAGE_SIZE]),
      memory(),
    ]) {
      const victim = await new Victim().feed(sealed([hello, part]));
      expectHarmless(victim);
      expect([victim.created, victim.error instanceof StreamError]).toEqual([[], true]);
    }
    // These make sense, and are too large here.
    for (const part of [memory([0, MEMORY_MAX + PAGE_SIZE]), memory([0, MEMORY_MAX], [2 ** 32, PAGE_SIZE])]) {
      const victim = await new Victim().feed(sealed([hello, part]));
      expectHarmless(victim);
      expect([victim.created, victim.error?.message]).toEqual([
        [],
        expect.stringContaining('this destination takes'),
      ]);
    }
  });

  test('with states without end is refused', async () => {
    const [hello, memory] = honest();
    const writer = new SectionWriter();
    const part = (name: string, last: boolean): Part => ({
      name: 'state',
      payload: state(writer, name, last, new Uint8Array(2 ** 20)).slice(SECTION_HEADER.size),
    });
    const long = await new Victim().feed(sealed([hello, memory, ...Array(40).fill(part('guest', false))]));
    expectHarmless(long);
    expect(long.error).toMatchObject({ fault: 'limit' });
    const small = (name: string): Part => ({
      name: 'state',
      payload: state(writer, name, false, new Uint8Array()).slice(SECTION_HEADER.size),
    });
    const many = await new Victim().feed(
      sealed([hello, memory, ...Array.from({ length: 100 }, (_, i) => small(`state ${i}`))]),
    );
    expect(many.error).toMatchObject({ fault: 'limit' });
    const again = await new Victim().feed(sealed([hello, memory, part('guest', true), part('guest', true)]));
    expect(again.error).toMatchObject({ fault: 'order' });
  });

  test('of a stranger does not disturb a migration, nor does its end', async () => {
    const victim = new Victim();
    for (const piece of [
      new TextEncoder().encode('GET / HTTP/1.1\r\nHost: here\r\n\r\n'),
      sealed(honest())[1],
      new Uint8Array(5000).fill(255),
    ]) {
      const stranger = await new Victim().feed([piece]);
      await stranger.end();
      expectHarmless(stranger);
      expect([stranger.destination.phase, stranger.closedByUs]).toEqual(['waiting', true]);
    }
    await victim.feed(sealed(honest()));
    expect(victim.runs).toBe(true);
  });
});

describe('a thousand mutations by seed', () => {
  const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_101);

  test(`of an honest stream end with an error and without a guest (seed ${SEED})`, async () => {
    const random = new Random(SEED);
    for (let i = 0; i < 1000; i++) {
      // The bytes of `go` are left alone: what comes before must be refused before it.
      const sections = sealed(honest());
      const last = sections.length - 1;
      const bytes = Buffer.concat(sections.slice(0, last));
      const changed = mutate(bytes, random);
      if (changed.equals(bytes)) continue;
      const victim = new Victim();
      await victim.feed([changed.subarray(0, 5000), changed.subarray(5000), sections[last]]);
      await victim.end();
      try {
        expectHarmless(victim);
      } catch (error) {
        throw new Error(`seed ${SEED}, mutation ${i}`, { cause: error });
      }
    }
  });

  test(`of payloads, under right checksums, never bring more than was asked (seed ${SEED})`, async () => {
    const random = new Random(SEED + 1);
    for (let i = 0; i < 1000; i++) {
      const parts = honest();
      const index = random.below(parts.length);
      parts[index] = { name: parts[index].name, payload: mutate(Buffer.from(parts[index].payload), random) };
      const victim = await (await new Victim().feed(sealed(parts))).end();
      // It may still be a guest: a peer that can make checksums can make a stream. But nothing worse.
      if (!victim.runs) expectHarmless(victim);
      for (const size of victim.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
    }
  });
});
