/**
 * Migrations that come to nothing, all of one machine, one after the other: each begins where the last one failed, and at
 * the end the machine leaves.
 */
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import type { SourcePhase } from '../../src/migration/source-shapes.ts';
import type { Vm as VmType } from '../../src/vm/vm.ts';
import { Journey, type JourneyOptions } from './journey.ts';
import { busyVm, closeAll, expectAlive, expectNothingHeld, open } from './machines.ts';

let vm: VmType;
let usable = false;

// What a failed test leaves is no place to go on from.
beforeEach(async () => {
  if (!usable) {
    await closeAll();
    vm = await busyVm();
  }
  usable = false;
});
afterAll(closeAll);

/** A journey that is to fail: the guest goes on where it was. */
async function failToMove(route: JourneyOptions): Promise<Journey> {
  const journey = await Journey.of(vm, { channel: 'hint', ...route });
  expect(journey.summary).toBeUndefined();
  expect(journey.destination.phase).toBe('failed');
  await expectAlive(vm);
  await expectNothingHeld(vm);
  usable = true;
  return journey;
}

/** Does something once, when the migration enters a phase. */
function at(wanted: SourcePhase, act: (journey: Journey) => void): Pick<JourneyOptions, 'observer'> {
  let done = false;
  return {
    observer: ({ phase, round }, journey) => {
      if (done || phase !== wanted || (phase === 'copying' && round === 0)) return;
      done = true;
      act(journey);
    },
  };
}

const PHASES: SourcePhase[] = ['copying', 'stopping'];

describe('a machine that does not arrive goes on where it was', () => {
  test.each(PHASES)('when the migration is cancelled while %s', async phase => {
    const journey = await failToMove(at(phase, ({ source }) => source?.cancel('a test wanted it so')));
    expect(journey.sourceError?.code).toBe('AEROSTAT_MIGRATION_CANCELLED');
    expect(journey.destinationError?.message).toBe('the migration was cancelled: a test wanted it so');
  });

  test.each(PHASES)('when the network breaks while %s', async phase => {
    const journey = await failToMove(at(phase, failing => failing.cut()));
    expect(journey.sourceError?.code).toBe('AEROSTAT_MIGRATION_FAILED');
  });

  test('when the destination hangs while it stands still, long before that comes back', async () => {
    const journey = await failToMove(at('stopping', failing => failing.hang()));
    expect(journey.sourceError?.message).toMatch(/has taken nothing for 10 s|did not answer ready/);
  });

  test('when it is called back from a destination that hangs', async () => {
    const callBack = (failing: Journey) => {
      failing.hang();
      failing.source?.cancel('a test wanted it so');
    };
    const journey = await failToMove(at('copying', callBack));
    expect(journey.sourceError?.code).toBe('AEROSTAT_MIGRATION_CANCELLED');
  });

  test('when the destination cannot read what it is', async () => {
    const tamper: JourneyOptions['tamper'] = states => states.filter(({ name }) => name !== 'driver');
    const journey = await failToMove({ tamper });
    expect(journey.destinationError?.code).toBe('AEROSTAT_VM_STATE');
    expect(journey.sourceError?.message).toContain('its state driver did not come');
  });

  test('when it was let go, and the destination was lost before it ran there', async () => {
    const journey = await failToMove(at('handing-over', failing => failing.destination.cancel('no room')));
    expect(journey.sourceError?.message).toContain('no room');
  });

  test('and leaves all the same, after all of that', async () => {
    const journey = await Journey.of(vm, { channel: 'hint' });
    expect(journey.sourceError).toBeUndefined();
    await expectAlive(open(journey.there));
  });
});
