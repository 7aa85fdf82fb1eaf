/** How memory is divided: floors, needs, shares, the tax on idle memory. Worked by hand. */
import { describe, expect, test } from 'vitest';
import { kernelFloor } from '../../src/policy/settings.ts';
import { GIB, guestOf, MIB, TestHost } from './world.ts';

const page = 4096;

describe('the division of memory', () => {
  test('a kernel needs what Linux says that it needs', () => {
    expect([64, 256, 1024, 2048, 8192, 32768].map(mib => kernelFloor(mib * MIB) / MIB)).toEqual([
      40, 104, 232, 360, 744, 1512,
    ]);
  });

  test('where the host has room for all guests, no balloon holds anything', () => {
    const host = new TestHost(16 * GIB, [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB)]);
    const { guests } = host.run(200);
    expect(guests.map(({ targetBytes, bound }) => [targetBytes, bound])).toEqual([
      [0, 'room'],
      [0, 'room'],
    ]);
  });

  test('what is left over goes to those who use what they have', () => {
    // 9 GiB less 1 GiB of reserve for 12 GiB. Needs: 1.2 of 1, 1 and 2.5 GiB. Taxed weights: 1 - 0.75 * (1 - need/4).
    const guests = [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB), guestOf('c', 4 * GIB, 2.5 * GIB)];
    const host = new TestHost(9 * GIB, guests);
    host.run(400);
    const idle = 0.25 + 0.75 * (1.2 / 4);
    const busy = 0.25 + 0.75 * (3 / 4);
    const level = (8 * GIB) / (2 * idle + busy);
    // A move of less than 64 MiB is not made.
    expect(Math.abs(host.keep('a') - idle * level)).toBeLessThan(64 * MIB);
    expect(Math.abs(host.keep('b') - idle * level)).toBeLessThan(64 * MIB);
    expect(Math.abs(host.keep('c') - busy * level)).toBeLessThan(64 * MIB);
    expect(host.last.host.overcommitted).toBe(false);
  });

  test('where the needs are more than there is, shares decide, and no guest gets less than its floor', () => {
    const guests = [
      guestOf('a', 4 * GIB, 3 * GIB),
      guestOf('b', 4 * GIB, 3 * GIB),
      guestOf('c', 4 * GIB, 3 * GIB),
    ];
    const host = new TestHost(7 * GIB, guests, { guests: { a: { shares: 3000 }, c: { shares: 100 } } });
    const { host: budget, guests: decided } = host.run(200);
    expect(budget.overcommitted).toBe(true);
    // 6 GiB: c has its floor of 1 GiB, a and b divide 5 GiB as 3 to 1: a would get 3.75 and needs 3.6.
    expect(host.keep('c')).toBe(GIB);
    expect(Math.abs(host.keep('a') - 3.6 * GIB)).toBeLessThan(page);
    expect(Math.abs(host.keep('b') - 1.4 * GIB)).toBeLessThan(2 * page);
    expect(decided.map(({ bound }) => bound)).toEqual(['shares', 'shares', 'floor']);
  });

  test('equal guests get equal parts', () => {
    const guests = Array.from({ length: 5 }, (_, index) => guestOf(`g${index}`, 2 * GIB, GIB));
    const host = new TestHost(7 * GIB, guests);
    host.run(200);
    const kept = guests.map(({ name }) => host.keep(name));
    expect(Math.max(...kept) - Math.min(...kept)).toBeLessThanOrEqual(page);
    expect(Math.abs(kept[0] - 1.2 * GIB)).toBeLessThanOrEqual(64 * MIB);
  });

  test('what is reserved for a guest that starts is taken from the others at once, and said to be there', () => {
    const guests = [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB)];
    const host = new TestHost(9 * GIB, guests);
    host.run(100);
    host.reservedBytes = 4 * GIB;
    expect(host.step().host.reservationReady).toBe(false);
    expect(host.step().host.reservationReady).toBe(true);
  });
});
