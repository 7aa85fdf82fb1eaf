import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Clock, DestinationMachine, SavedState } from '../../src/migration/machine.ts';
import { REHEARSALS_MAX, StandbyStates } from '../../src/migration/standby.ts';
import { diffState, patchState } from '../../src/migration/state-patch.ts';
import { StreamError } from '../../src/migration/stream/section.ts';

const MAX = 2 ** 20;
const PAGES = 16;

/** Long enough for a patch to be shorter, with changes here and there. */
const changes = fc.array(fc.tuple(fc.nat(40_000), fc.nat(255)), { maxLength: 20 });
const state = (length: number) => new Uint8Array(length).map((_, i) => (i * 7) ^ (i >>> 8));

describe('a patch', () => {
  test('makes the new state of the old one, whatever has changed of it', () => {
    fc.assert(
      fc.property(changes, fc.integer({ min: -2000, max: 2000 }), fc.nat(40_000), (bytes, growth, at) => {
        const from = state(40_000);
        const to = new Uint8Array(from.length + growth);
        to.set(from.subarray(0, Math.min(at, to.length)));
        const rest = from.subarray(Math.min(from.length, Math.max(0, at - growth)));
        to.set(rest.subarray(Math.max(0, rest.length - to.length)), Math.max(0, to.length - rest.length));
        for (const [index, byte] of bytes) if (index < to.length) to[index] = byte;
        const patch = diffState(3, from, to);
        if (patch !== undefined) {
          expect(patch.length).toBeLessThan(to.length);
          expect(Buffer.compare(patchState(3, from, patch, MAX), to)).toBe(0);
        }
      }),
    );
  });

  test('is short where little has changed, in the middle of much or at its end', () => {
    const from = state(200_000);
    const to = from.slice();
    to[100_001] ^= 1;
    expect(diffState(1, from, to)?.length).toBeLessThan(200);
    const grown = Buffer.concat([from.subarray(0, 100_000), Buffer.alloc(8), from.subarray(100_000)]);
    expect(diffState(1, from, grown)?.length).toBeLessThan(from.length / 4);
    expect(diffState(1, from, from)?.length).toBeLessThan(20);
  });

  test('is none where there is as much to say as in the state', () => {
    expect(diffState(1, new Uint8Array(100), new Uint8Array(100).fill(1))).toBeUndefined();
  });

  test('counts for the rehearsal that it is made for, and for no other', () => {
    const patch = diffState(2, state(1000), state(1000)) as Uint8Array;
    expect(() => patchState(3, state(1000), patch, MAX)).toThrow(/for rehearsal 2, and the last was 3/);
  });

  test('of arbitrary bytes gives a state or a typed error, and none above the limit', () => {
    const head = fc.tuple(
      fc.constantFrom(1, 2),
      fc.nat(300),
      fc.nat(4),
      fc.array(fc.nat(300), { maxLength: 8 }),
    );
    fc.assert(
      fc.property(head, fc.uint8Array({ maxLength: 200 }), ([number, length, count, words], tail) => {
        const bytes = new Uint8Array(new Uint32Array([number, length, count, ...words]).buffer);
        try {
          const patched = patchState(1, state(200), Buffer.concat([bytes, tail]), 256);
          expect(patched.length).toBeLessThanOrEqual(256);
        } catch (error) {
          expect(error).toBeInstanceOf(StreamError);
        }
      }),
    );
  });
});

describe('what a destination has of a guest before it stands still', () => {
  const ahead = (bytes = state(1000)) => {
    const standby = new StandbyStates();
    standby.agreed = true;
    standby.take({ kind: 'ahead', name: 'guest', bytes, last: true }, PAGES);
    return standby;
  };
  let prepared: readonly SavedState[] = [];
  const clock: Clock = { nowMs: () => 0, sleep: async () => {} };
  const machine: DestinationMachine = {
    createMemory: async () => {},
    prepare: async states => {
      prepared = states;
    },
    load: async () => {},
    run: async () => {},
    abandon: async () => {},
  };
  const patchOf = (number: number) => diffState(number, state(1000), state(1000)) as Uint8Array;

  const patch = (standby: StandbyStates, name: string) =>
    standby.take({ kind: 'patch', name, bytes: patchOf(1), last: true }, PAGES);
  const taken = (standby: StandbyStates, number: number) => standby.rehearsal(number, machine, clock);

  test('is what was sent ahead, patched, beside what came whole', async () => {
    const standby = ahead();
    const steps = await taken(standby, 1)();
    expect(prepared.map(({ name }) => name)).toEqual(['guest']);
    expect(steps.map(({ step }) => step)).toEqual(['prepare/machine']);
    patch(standby, 'guest');
    standby.take({ kind: 'state', name: 'device', bytes: state(8), last: true }, PAGES);
    const states = standby.complete(PAGES);
    expect(states.map(({ name }) => name)).toEqual(['device', 'guest']);
    expect(Buffer.compare(states[1].bytes, state(1000))).toBe(0);
  });

  test.each<[string, (standby: StandbyStates) => unknown]>([
    ['a patch before anything came', standby => patch(standby, 'guest')],
    [
      'anything ahead that was not agreed on',
      standby => {
        standby.agreed = false;
        patch(standby, 'guest');
      },
    ],
    ['a rehearsal out of turn', standby => taken(standby, 2)],
    ['one too many', standby => Array.from({ length: REHEARSALS_MAX + 1 }, (_, i) => taken(standby, i + 1))],
    [
      'a patch of a state that did not come',
      standby => {
        taken(standby, 1);
        patch(standby, 'device');
        standby.complete(PAGES);
      },
    ],
    [
      'a patch of a state that came whole as well',
      standby => {
        taken(standby, 1);
        patch(standby, 'guest');
        standby.take({ kind: 'state', name: 'guest', bytes: state(8), last: true }, PAGES);
        standby.complete(PAGES);
      },
    ],
    [
      'states without end',
      standby => {
        const bytes = new Uint8Array(MAX);
        for (let part = 0; part < 100; part++) {
          standby.take({ kind: 'ahead', name: 'device', bytes, last: false }, PAGES);
        }
      },
    ],
  ])('never: %s', (_, act) => {
    expect(() => act(ahead())).toThrow(StreamError);
  });
});
