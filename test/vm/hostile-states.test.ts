import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SavedState } from '../../src/migration/machine.ts';
import type { VmThreads as VmThreadsType } from '../../src/vm/vm-threads.ts';
import { createSharedMemory, Vm, VmThreads } from './built.ts';
import { busyVm, closeAll, MIB, pause } from './machines.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const RUNS = Number(process.env.AEROSTAT_HOSTILE ?? 40);

let states: readonly SavedState[] = [];
let memoryBytes = 0;
let threads: VmThreadsType;

beforeAll(async () => {
  const vm = await busyVm({ memoryBytes: 64 * MIB });
  await vm.stop();
  states = await vm.save();
  memoryBytes = vm.memoryBytes;
  await closeAll();
  threads = await VmThreads.open();
});

afterAll(() => threads.close());

/** What becomes of these states where they arrive: why they are refused, or that they are a machine. */
async function arrive(arriving: readonly SavedState[]): Promise<string> {
  const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: memoryBytes }] });
  const vm = Vm.on(threads, { name: 'stranger', memory, adviseHugePages: false });
  try {
    await vm.load(arriving);
    await vm.resumeLoaded();
    // What it does with what it was given is the guest's affair; it may find its pages lost, for none came.
    await pause(5);
    return 'a machine';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await vm.leave();
    memory.close();
  }
}

const REFUSALS = [
  'a machine',
  'AEROSTAT_VM_STATE',
  'AEROSTAT_SAVED_GUEST',
  'AEROSTAT_DRIVER_STATE',
  'AEROSTAT_DRIVER_PROBE',
  'AEROSTAT_DEVICE_STATE',
  'AEROSTAT_VIRTQUEUE',
  'AEROSTAT_FEATURE',
];

const replaced = (name: string, bytes: Uint8Array): SavedState[] =>
  states.map(state => (state.name === name ? { name, bytes } : state));

/** Some bytes changed, cut short or added. */
const mutation = (bytes: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc
      .array(fc.tuple(fc.nat({ max: bytes.length - 1 }), fc.integer({ min: 0, max: 255 })), {
        minLength: 1,
        maxLength: 8,
      })
      .map(changes => {
        const changed = bytes.slice();
        for (const [at, value] of changes) changed[at] = value;
        return changed;
      }),
    fc.nat({ max: bytes.length }).map(length => bytes.slice(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 64 }).map(more => Buffer.concat([bytes, more])),
    fc.uint8Array({ maxLength: 256 }),
  );

/** A number in JSON replaced by another. */
const numberMutation = (bytes: Uint8Array): fc.Arbitrary<Uint8Array> => {
  const text = Buffer.from(bytes).toString('latin1');
  const numbers = [...text.matchAll(/\d+/g)];
  return fc
    .tuple(
      fc.nat({ max: numbers.length - 1 }),
      fc.oneof(fc.nat(), fc.constantFrom(0, 1, -1, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53)),
    )
    .map(([index, value]) => {
      const { 0: old, index: at } = numbers[index];
      return Buffer.from(text.slice(0, at) + value + text.slice(at + old.length), 'latin1');
    });
};

describe(`states from a stranger (seed ${SEED})`, () => {
  test('are a machine when they are unchanged', async () => {
    expect(await arrive(states)).toBe('a machine');
  });

  test.each(['machine', 'guest', 'driver', 'device'])(
    'are refused without %s, and with more than that',
    async name => {
      expect(await arrive(states.filter(state => state.name !== name))).toBe('AEROSTAT_VM_STATE');
      expect(await arrive([...states, { name: 'more', bytes: new Uint8Array(1) }])).toBe('AEROSTAT_VM_STATE');
    },
  );

  test.each(['machine', 'guest', 'driver', 'device'])(
    'are refused or run, whatever %s says',
    async name => {
      const { bytes } = states.find(state => state.name === name) ?? { bytes: new Uint8Array() };
      const mutations = name === 'guest' ? mutation(bytes) : fc.oneof(mutation(bytes), numberMutation(bytes));
      await fc.assert(
        fc.asyncProperty(mutations, async changed => {
          expect(REFUSALS).toContain(await arrive(replaced(name, changed)));
        }),
        { seed: SEED, numRuns: RUNS, endOnFailure: true },
      );
    },
    120_000,
  );
});
