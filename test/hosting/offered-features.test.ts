import { expect, test } from 'vitest';
import { FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_REPORTING, STATS_VQ } from '../../src/balloon/features.ts';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import { offeredFeatures, removableFeature } from '../../src/hosting/offered-features.ts';
import {
  IN_ORDER,
  RING_EVENT_IDX,
  RING_FEATURES,
  RING_PACKED,
  VERSION_1,
} from '../../src/virtio/features.ts';

test.each(PROFILE_NAMES)('%s is offered whole unless something is left out', name => {
  const { profile: abi, balloon, rings } = offeredFeatures(name, []);
  expect(abi.name).toBe(name);
  expect(balloon).toBe(abi.featureMask);
  // A queue on which the device keeps a buffer cannot return all in order.
  const inOrder = abi.freePages.kind === 'request' ? 0n : IN_ORDER;
  expect(rings).toBe((RING_FEATURES & ~IN_ORDER) | inOrder | VERSION_1);
});

test('features are left out by their names, by those of their queues, and rings by theirs', () => {
  const { balloon, rings } = offeredFeatures('virtio', [
    'reporting',
    'free-page-hint',
    'stats',
    'ring-packed',
  ]);
  const all = profile('virtio').featureMask;
  expect(balloon).toBe(all & ~(PAGE_REPORTING | FREE_PAGE_HINT | STATS_VQ));
  expect(rings & RING_PACKED).toBe(0n);
  expect(rings & RING_EVENT_IDX).toBe(RING_EVENT_IDX);
  expect(offeredFeatures('virtio', ['must-tell-host', 'must-tell-host']).balloon).toBe(all & ~MUST_TELL_HOST);
});

test('a guest that is kept for another daemon is not asked for its allocator, which the next would know nothing of', () => {
  const { profile: abi, balloon } = offeredFeatures('shared', [], true);
  const lending = abi.features.find(({ queue }) => queue === 'shared')?.mask ?? 0n;
  expect(lending).not.toBe(0n);
  expect(balloon).toBe(abi.featureMask & ~lending);
  expect(offeredFeatures('virtio', [], true)).toEqual(offeredFeatures('virtio', []));
});

test('VERSION_1 stays, whatever is left out: there is no older device', () => {
  expect(() => offeredFeatures('virtio', ['version-1'])).toThrow(/no feature version-1/);
});

test('a name that means nothing in the profile is refused with all that mean something', () => {
  expect(() => offeredFeatures('hinting', ['reporting'])).toThrow(
    /profile hinting has no feature reporting.*ring-packed/,
  );
  expect(() => offeredFeatures('warp', [])).toThrow(/no balloon ABI is called warp/);
  expect(removableFeature(profile('virtio'), 'hint')).toBe(FREE_PAGE_HINT);
});
