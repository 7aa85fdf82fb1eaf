/**
 * Random histories of a guest, its driver and a device that answers when it likes. After every step the host has no
 * page that is not the balloon's, and the guest's bytes are there; at the end every page is accounted for.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { profile as abiOf, type ProfileName } from '../../src/balloon/profiles.ts';
import { GET_UNUSED_PAGES, SHRINK } from '../../src/balloon/request-messages.ts';
import type { Process } from '../../src/guest/process.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';
import { MIB_PAGES, PACKED, SEED, SPLIT, World } from './world.ts';

const SIZE_MIB = 12;
const RUNS = 12;

type Step =
  | { readonly kind: 'target'; readonly pages: number }
  | { readonly kind: 'write'; readonly process: number; readonly from: number; readonly pages: number }
  | { readonly kind: 'unmap'; readonly process: number; readonly from: number; readonly pages: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | {
      readonly kind:
        | 'serve'
        | 'deliver'
        | 'promises'
        | 'rest'
        | 'compact'
        | 'oom'
        | 'shrink'
        | 'ask'
        | 'stop'
        | 'done';
    }
  | { readonly kind: 'reset' | 'renew' | 'replace' };

const pages = fc.integer({ min: 0, max: SIZE_MIB * MIB_PAGES });
const range = {
  process: fc.integer({ min: 0, max: 2 }),
  from: pages,
  pages: fc.integer({ min: 1, max: 600 }),
};

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('target' as const), pages }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('write' as const), ...range }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('unmap' as const), ...range }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 200, 2_000) }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'serve',
        'deliver',
        'promises',
        'rest',
        'compact',
        'oom',
        'shrink',
        'ask',
        'stop',
        'done',
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('reset', 'renew', 'replace') }) },
);

async function play(world: World, processes: Process[], next: Step, profile: ProfileName): Promise<void> {
  const { device, kernel, transport, driver, scheduler } = world;
  switch (next.kind) {
    case 'target':
      device.targetPages = next.pages;
      return;
    case 'write': {
      if (processes[next.process]?.state !== 'running') processes[next.process] = kernel.spawn('worker');
      for (let page = next.from; page < next.from + next.pages; page++) {
        if (!processes[next.process].write(page)) break;
      }
      return;
    }
    case 'unmap':
      for (let page = next.from; page < next.from + next.pages; page++) processes[next.process]?.unmap(page);
      return;
    case 'pass':
      scheduler.advance(next.ms);
      return;
    case 'serve':
      transport.serve();
      return;
    case 'deliver':
      transport.deliver();
      return;
    case 'promises':
      return world.promises();
    case 'rest':
      return world.rest();
    case 'compact':
      kernel.compact();
      return;
    case 'oom':
      kernel.oom.run();
      return;
    case 'shrink':
      kernel.shrinkAll();
      return;
    case 'ask':
      if (abiOf(profile).freePages.kind === 'session') device.hints.begin();
      else
        device.requests.send(
          next.kind === 'ask' && world.scheduler.now() % 2 === 0 ? GET_UNUSED_PAGES : SHRINK,
        );
      return;
    case 'stop':
      device.hints.end();
      return;
    case 'done':
      device.hints.done();
      return;
    case 'reset': {
      if (driver.state !== 'running') return;
      return driver.reset();
    }
    case 'replace': {
      const bases = driver.deviceLost();
      transport.loseDevice();
      await world.promises();
      kernel.oom.run();
      kernel.compact();
      transport.replaceDevice(bases);
      driver.deviceReplaced();
      return;
    }
    case 'renew': {
      if (driver.state !== 'running') return;
      const removed = driver.remove();
      await world.rest();
      await removed;
      return driver.probe();
    }
  }
}

describe.each(EMBEDDED_PROFILES)(`profile %s, seed ${SEED}`, profile => {
  it.each([
    ['split', SPLIT, 'deferred'],
    ['packed', PACKED, 'deferred'],
    ['split', SPLIT, 'immediate'],
  ] as const)('loses no page and no byte in any history (%s ring, %#)', async (_, ringFeatures, mode) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 5, maxLength: 80, size: 'max' }),
        fc.record({
          depth: fc.constantFrom(null, 1, 3),
          pfnsPerBuffer: fc.constantFrom(16, 256),
          orderMax: fc.constantFrom(null, 0),
          sort: fc.constantFrom(null, true, false),
          ahead: fc.boolean(),
          queueSizeMax: fc.constantFrom(256, 8),
          reportingPipelined: fc.boolean(),
        }),
        async (steps, tuning) => {
          const world = new World({
            profile,
            sizeMiB: SIZE_MIB,
            device: { mode },
            driver: { ringFeatures, ...tuning },
            // Two zones, as a large guest has them.
            kernel: { dma32End: 1024 },
          });
          const processes: Process[] = [];
          await world.start();
          for (const next of steps) {
            await play(world, processes, next, profile);
            world.checkSafety();
          }
          for (const process of processes) process?.exit();
          await world.pass(10_000);
          await world.aim(2 * MIB_PAGES);
          await world.pass(10_000);
          expect(world.driver.state).toBe('running');
          await world.driver.settled();
          expect(world.driver.actualPages).toBe(2 * MIB_PAGES);
          world.check();
          const removed = world.driver.remove();
          await world.rest();
          await removed;
          world.exit();
          world.check();
          expect(world.freePages).toBe(world.bootPages);
        },
      ),
      { seed: SEED, numRuns: RUNS },
    );
  });
});
