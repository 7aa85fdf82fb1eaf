/**
 * Machines that leave while their guest lies about its free pages. Whatever it says, it is its own data that it loses:
 * the migration comes to an end, and the guest next door, whose device has the same thread, notices nothing.
 */
import { afterEach, describe, expect, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import type { VmThreads as VmThreadsType } from '../../src/vm/vm-threads.ts';
import { Vm, VmThreads } from './built.ts';
import { compareMemories, Journey } from './journey.ts';
import { busyVm, closeAll, expectAlive, MIB, open } from './machines.ts';

afterEach(closeAll);

/** The first seed, from the environment to repeat a failure; and how many, for a longer campaign. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const SEEDS = Number(process.env.AEROSTAT_LIES ?? 2);
/** On a host with much else to do it may take a few more until a lie was believed. */
const SEEDS_MAX = Math.max(SEEDS, 12);

/** Threads whose device is served by the thread that serves the device of `threads`. */
async function beside(threads: VmThreadsType): Promise<VmThreadsType> {
  const own = await VmThreads.open();
  return {
    hosting: threads.hosting,
    guest: own.guest,
    pace: own.pace,
    muted: false,
    get listener() {
      return own.listener;
    },
    set listener(listener) {
      own.listener = listener;
    },
    clear: name => own.clear(name),
    close: () => own.close(),
  };
}

interface Liar {
  readonly vm: VmType;
  readonly neighbour: VmType;
}

async function startLiar(profile: ProfileName, seed: number): Promise<Liar> {
  const program = new URL(`./guests/lying.mjs?seed=${seed}`, import.meta.url);
  const threads = await VmThreads.open(undefined, program);
  const vm = open(
    await Vm.start({
      name: 'liar',
      memoryBytes: 64 * MIB,
      seed,
      profile,
      pagesPerSecondMax: 200_000,
      threads,
    }),
  );
  const neighbour = await busyVm({ name: 'neighbour', profile, threads: await beside(threads) });
  await vm.command({ do: 'use', bytes: 16 * MIB });
  await vm.command({ do: 'start', workload: 'churn', bytes: 4 * MIB });
  return { vm, neighbour };
}

/** What came of it: a guest that had lost something, a whole one, or one that stayed. */
async function moveLiar({ vm }: Liar): Promise<'lost' | 'whole' | 'stayed'> {
  let whole = true;
  const journey = await Journey.of(vm, {
    channel: 'hint',
    bytesPerSecond: 500 * MIB,
    downtimeMsMax: 5,
    roundsMax: 6,
    atTheStop: (...memories) => {
      try {
        compareMemories(...memories);
      } catch {
        whole = false;
      }
    },
  });
  if (journey.summary === undefined) {
    expect(journey.sourceError?.code).toMatch(/^AEROSTAT_/);
    expect(journey.destination.phase).toBe('failed');
    return 'stayed';
  }
  expect(vm.state).toBe('gone');
  const there = open(journey.there);
  // The guest itself finds out, when it is asked or before, and its machine says so; the device answers all the same.
  const verified = await there.command({ do: 'verify' }).catch(error => error);
  if (whole) expect(verified).not.toBeInstanceOf(Error);
  else if (verified.code !== 'AEROSTAT_GUEST_CONTENT') {
    await expect(there.ended).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_CONTENT' });
  }
  expect((await there.control.guest(there.name)).name).toBe(there.name);
  return whole ? 'whole' : 'lost';
}

describe(`a guest that lies about its free pages while it moves (seeds from ${SEED})`, () => {
  test.each<ProfileName>(['virtio', 'sg'])('harms itself alone, profile %s', async profile => {
    const outcomes: string[] = [];
    let nonsense = 0;
    const seen = () => outcomes.includes('lost') && nonsense > 0;
    for (let seed = SEED; seed < SEED + SEEDS || (!seen() && seed < SEED + SEEDS_MAX); seed++) {
      try {
        const liar = await startLiar(profile, seed);
        outcomes.push(await moveLiar(liar));
        const { counters } = await liar.vm.control.guest('liar');
        nonsense += counters.badBuffers + counters.badPages;
        await expectAlive(liar.neighbour);
      } catch (error) {
        throw new Error(`seed ${seed}: ${error}`, { cause: error });
      }
      await closeAll();
    }
    // The lies were told, some of them were believed, and those that could not be were counted.
    expect(outcomes).toContain('lost');
    expect(nonsense).toBeGreaterThan(0);
  });

  test('leaves a host that goes on moving others', async () => {
    const liar = await startLiar('virtio', SEED);
    await moveLiar(liar);
    const journey = await Journey.of(liar.neighbour, { channel: 'hint', atTheStop: compareMemories });
    expect(journey.sourceError).toBeUndefined();
    await expectAlive(open(journey.there));
  });
});
