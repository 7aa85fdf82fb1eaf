/** A machine that runs at its destination before its memory is there: what it touches comes first, and all of it comes. */
import { afterEach, beforeAll, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { build } from '../cli/built.ts';
import { Journey } from './journey.ts';
import { busyVm, closeAll, expectAlive, expectNothingHeld, MIB, open } from './machines.ts';

beforeAll(build);
afterEach(closeAll);

/** So that memory comes for some hundred milliseconds: a busy host's timers may be late, and its senders make up for it. */
const RATE = 60 * MIB;

test('at once: the guest runs there without a page that it used, fetches what it touches, and loses nothing', async () => {
  const vm = await busyVm();
  const journey = await Journey.of(vm, { postcopyAfter: 0, connections: 2, bytesPerSecond: RATE });
  open(journey.place);
  expect(journey.sourceError).toBeUndefined();
  expect(vm.state).toBe('gone');
  const { summary } = journey;
  const postcopy = summary?.postcopy;
  expect(postcopy).toMatchObject({ leftPages: 0, recoveries: 0, broken: null });
  expect(postcopy?.latePages).toBeGreaterThan((16 * MIB) / PAGE_SIZE);
  expect(postcopy?.faults).toBeGreaterThan(0);
  // The memory that the guest had touched and given back, and its balloon, are zeros without being asked for.
  expect(summary?.pages).toBeLessThan((64 * MIB) / PAGE_SIZE);
  await expectAlive(journey.there);
  await expectNothingHeld(journey.there);
}, 60_000);

test('after a round: what was sent and written since comes again, and is not what came before', async () => {
  const vm = await busyVm();
  const journey = await Journey.of(vm, {
    postcopyAfter: 1,
    connections: 2,
    downtimeMsMax: 0,
    bytesPerSecond: RATE,
  });
  open(journey.place);
  expect(journey.sourceError).toBeUndefined();
  expect(journey.summary?.rounds).toBe(3);
  expect(journey.summary?.postcopy?.latePages).toBeGreaterThan(0);
  await expectAlive(journey.there);
}, 60_000);

test.each([0, 1])(
  'the network breaks after the switch (after round %d): the guest waits, the source never runs it, and goes on to bring what is missing',
  async postcopyAfter => {
    const vm = await busyVm();
    let cuts = 0;
    const phases: string[] = [];
    const journey = await Journey.of(vm, {
      postcopyAfter,
      connections: 3,
      downtimeMsMax: 0,
      bytesPerSecond: RATE,
      observer: ({ phase }, { source, cut, vm: left }) => {
        phases.push(phase);
        if (phase === 'post-copy' && cuts < 3) {
          cuts++;
          setTimeout(() => cut(), 10 * cuts);
        }
        if (phase !== 'post-copy-paused') return;
        expect(left.state).toBe('gone');
        expect(source?.cancel('too late')).toBe(false);
        setImmediate(() => expect(source?.recover()).toBe(true));
      },
    });
    open(journey.place);
    expect(journey.sourceError).toBeUndefined();
    expect(journey.summary?.postcopy?.recoveries).toBeGreaterThan(0);
    expect(phases).toContain('post-copy-paused');
    expect(vm.state).toBe('gone');
    await expectAlive(journey.there);
  },
  60_000,
);
