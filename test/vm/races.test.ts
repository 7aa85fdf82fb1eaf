import { afterEach, describe, expect, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import { Vm, VmThreads } from './built.ts';
import { compareMemories, Journey } from './journey.ts';
import { closeAll, MIB, open, pause } from './machines.ts';

afterEach(closeAll);

/** The first seed, from the environment to repeat a failure; and how many, for a longer campaign. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const SEEDS = Array.from({ length: Number(process.env.AEROSTAT_RACES ?? 2) }, (_, index) => SEED + index);
const MORE_SEEDS = 20;

/** Writes to all free memory and frees it, over and over: hinted blocks are taken back at once, by the shrinker. */
async function touchAll(vm: VmType): Promise<void> {
  try {
    for (;;) await vm.command({ do: 'touch' });
  } catch {
    // The machine has left.
  }
}

/** The host changes its mind all the time, in the middle of everything. */
async function changeTargets(vm: VmType): Promise<void> {
  for (let change = 0; vm.state === 'running'; change++) {
    await vm.control.change(vm.name, { targetBytes: (change % 2) * 2 * MIB }).catch(() => {});
    await pause(7);
  }
}

/** Moves a guest that has little memory left and uses all of it; returns the races that were caught. */
async function race(profile: ProfileName, seed: number): Promise<number> {
  const vm = open(await Vm.start({ memoryBytes: 64 * MIB, seed, profile, pagesPerSecondMax: 400_000 }));
  await vm.command({ do: 'use', bytes: 8 * MIB });
  void touchAll(vm);
  void changeTargets(vm);
  const journey = await Journey.of(vm, {
    channel: 'auto',
    bytesPerSecond: 500 * MIB,
    downtimeMsMax: 20,
    roundsMax: 5,
    atTheStop: compareMemories,
  });
  expect(journey.sourceError).toBeUndefined();
  const there = open(journey.there);
  void touchAll(there);
  await pause(30);
  expect((await there.command({ do: 'verify' })).checkedBytes).toBeGreaterThan(8 * MIB);
  expect(there.state).toBe('running');
  return journey.summary?.hintRaces ?? 0;
}

describe(`a guest that writes to pages which it named as free loses nothing (seeds from ${SEED})`, () => {
  test.each<ProfileName>(['virtio', 'sg', 'page-range', 'page-chunks'])('profile %s', async profile => {
    let races = 0;
    // On a host with much else to do it may take a few more until the race that this is about has happened.
    for (let seed = SEED; seed < SEED + SEEDS.length || (races === 0 && seed < SEED + MORE_SEEDS); seed++) {
      try {
        races += await race(profile, seed);
      } catch (error) {
        throw new Error(`seed ${seed}: ${error}`, { cause: error });
      }
      await closeAll();
    }
    expect(races).toBeGreaterThan(0);
  });
});

/** Rounds of a migration of a guest that never rests. */
const ROUNDS = 8;
/** Migrations until one has lost something; about every third does. */
const ATTEMPTS = 25;

/**
 * Moves a guest whose hints are late: when the host reads them, a sync or two have been, and the guest has taken the
 * blocks back, written to them and kept them. Returns what was lost.
 */
async function raceLate(profile: ProfileName, seed: number, ignoreIds: boolean): Promise<Error | undefined> {
  const threads = await VmThreads.open(undefined, new URL('./guests/late.mjs', import.meta.url));
  const vm = open(
    await Vm.start({ memoryBytes: 64 * MIB, seed, profile, pagesPerSecondMax: 400_000, threads }),
  );
  await vm.command({ do: 'start', workload: 'churn', bytes: 8 * MIB });
  let taken = false;
  const takeBack = async () => {
    taken = true;
    await pause((seed * 7) % 30);
    // It may have left by then.
    await vm.command({ do: 'use', bytes: 40 * MIB }).catch(() => {});
  };
  const journey = await Journey.of(vm, {
    ignoreIds,
    bytesPerSecond: 500 * MIB,
    downtimeMsMax: 1,
    roundsMax: ROUNDS,
    atTheStop: compareMemories,
    observer: ({ phase, round }) => {
      if (!taken && phase === 'copying' && round >= 2 + (seed % 3)) void takeBack();
    },
  });
  if (journey.destinationError === undefined) open(journey.there);
  return journey.destinationError;
}

describe(`blocks that are in use again, two syncs before their hints are read (seeds from ${SEED})`, () => {
  test.each<ProfileName>(['virtio', 'sg'])('lose nothing, profile %s', async profile => {
    for (const seed of SEEDS) {
      expect([seed, await raceLate(profile, seed, false)]).toEqual([seed, undefined]);
      await closeAll();
    }
  });

  test.each<ProfileName>(['virtio', 'sg'])('lose data if ids are ignored, profile %s', async profile => {
    let lost: Error | undefined;
    for (let attempt = 0; lost === undefined && attempt < ATTEMPTS; attempt++) {
      lost = await raceLate(profile, SEED + attempt, true);
      await closeAll();
    }
    expect(lost?.message).toMatch(/did not arrive as it was/);
  });
});
