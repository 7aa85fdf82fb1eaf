/** The page knows which guests take requests as the profiles do. */
import { expect, test } from 'vitest';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import { REQUEST_ABIS, requestObstacle } from '../../web/src/requests.ts';
import { guestStatus } from '../server/fake-control.ts';

test.each(PROFILE_NAMES)('a guest of %s takes requests if its ABI has a queue for them', name => {
  const { features, freePages } = profile(name);
  const queue = features.find(feature => feature.queue === 'request');
  expect(REQUEST_ABIS.get(name)).toBe(queue?.name);
  const guest = guestStatus('vm1', { profile: name, features: features.map(feature => feature.name) });
  expect(requestObstacle(guest) === undefined).toBe(freePages.kind === 'request');
});

test('a guest whose driver did not take the queue takes none', () => {
  const guest = guestStatus('vm1', { profile: 'page-chunks', features: ['stats-vq'] });
  expect(requestObstacle(guest)).toMatch(/misc-vq/);
});

test('a guest that is not there, or tells nothing, takes none', () => {
  expect(requestObstacle(guestStatus('vm1', { connected: false }))).toMatch(/No guest/);
  expect(requestObstacle({ ...guestStatus('vm1'), features: null })).toMatch(/hypervisor/);
});
