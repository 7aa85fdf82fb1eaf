/** Machines on huge pages of 2 MiB from the host's pool, which move like any other, also to and from small pages. */
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';
import { compareMemories, Journey } from './journey.ts';
import { busyVm, closeAll, expectAlive, MIB, open } from './machines.ts';

const MEMORY_BYTES = 128 * MIB;
/** Two such machines. */
const pool = reserveHugePages((2 * MEMORY_BYTES) / HUGE_PAGE_SIZE);

afterEach(closeAll);
afterAll(() => pool.release());

const SMALL = {};
const HUGE = { hugePageSize: HUGE_PAGE_SIZE };

describe.skipIf(pool.missing !== undefined)('a machine on huge pages', () => {
  test.each([
    ['huge pages', 'huge pages', HUGE, HUGE],
    ['huge pages', 'small ones', HUGE, SMALL],
    ['small pages', 'huge ones', SMALL, HUGE],
  ])('from %s to %s', async (_from, _to, here, there) => {
    const vm = await busyVm({ memoryBytes: MEMORY_BYTES, ...here });
    let compared = 0;
    const journey = await Journey.of(vm, {
      channel: 'hint',
      ...there,
      atTheStop: (...memories) => {
        compared = compareMemories(...memories).used;
      },
    });
    expect(journey.destinationError).toBeUndefined();
    expect(journey.sourceError).toBeUndefined();
    expect(compared).toBeGreaterThan(0);
    const kind = there === HUGE ? 'hugetlb' : 'shmem';
    expect(journey.there.ram.memory.regions.map(({ backing }) => backing.kind)).toEqual([kind]);
    await expectAlive(open(journey.there));
  });

  test('is refused by a host whose pool is empty, and goes on where it was', async ({ skip }) => {
    const vm = await busyVm({ memoryBytes: MEMORY_BYTES, ...HUGE });
    const first = await Journey.of(vm, { channel: 'hint', ...HUGE });
    const there = open(first.there);
    await expectAlive(there);
    // The machine that left keeps its memory until it is closed: nothing is left for a third.
    const second = await Journey.of(there, { channel: 'hint', ...HUGE });
    if (second.summary !== undefined) {
      open(second.there);
      skip('the pool of this host has room for three');
    }
    expect(second.destinationError?.message).toMatch(/raise the host's pool/);
    expect(second.sourceError?.code).toBe('AEROSTAT_MIGRATION_FAILED');
    await expectAlive(there);
  });
});
