import { describe, expect, test } from 'vitest';
import {
  DEFLATE_ON_OOM,
  FREE_PAGE_HINT,
  FREE_PAGE_QUEUE,
  HINTING,
  MUST_TELL_HOST,
  PAGE_LIST,
  PAGE_POISON,
  PAGE_REPORTING,
  STATS_VQ,
} from '../../src/balloon/features.ts';
import {
  DEFAULT_PROFILE,
  DRAFT_NAMES,
  listFormat,
  PROFILE_NAMES,
  profile,
  profileFeatureNames,
  queueRoles,
} from '../../src/balloon/profiles.ts';

const STANDARD = ['free-page-hint', 'page-poison', 'page-reporting'];
const COMMON = ['must-tell-host', 'stats-vq', 'deflate-on-oom'];

describe('the table of profiles', () => {
  test('has the seven generations of the ABI, the standard first, two drafts, and an experiment of ours', () => {
    expect(PROFILE_NAMES).toEqual([
      'virtio',
      'page-bitmap',
      'page-order',
      'page-range',
      'page-chunks',
      'sg',
      'hinting',
      'device-init',
      'hint-ack',
      'shared',
    ]);
    expect(DRAFT_NAMES).toEqual(['device-init', 'hint-ack', 'shared']);
    expect(DEFAULT_PROFILE).toBe('virtio');
  });

  test.each([
    ['virtio', 0b111111n, ['free-page-hint', 'page-poison', 'page-reporting'], 16, 'session', 'extents'],
    ['page-bitmap', 0b11111n, ['page-bitmap', 'misc-vq'], 8, 'request', 'page-bitmap'],
    ['page-order', 0b11111n, ['page-bitmap', 'host-req-vq'], 8, 'request', 'page-heads'],
    ['page-range', 0b11111n, ['page-range', 'host-req-vq'], 8, 'request', 'page-range'],
    ['page-chunks', 0b11111n, ['page-chunks', 'misc-vq'], 8, 'request', 'page-chunks'],
    ['sg', 0b11111n, ['sg', 'free-page-vq'], 12, 'session', 'extents'],
    ['hinting', 0b100111n, ['hinting'], 8, 'hinting', 'address-or-order'],
    [
      'device-init',
      0b11111111n,
      [...STANDARD, 'device-init-reported', 'device-init-on-inflate'],
      16,
      'session',
      'extents',
    ],
    ['hint-ack', 0b1111111n, [...STANDARD, 'hint-wait-on-ack'], 16, 'session', 'extents'],
    ['shared', 0b111111n | (1n << 23n), [...STANDARD, 'shared-allocator'], 16, 'session', 'extents'],
  ])('says what %s has', (name, mask, own, configBytes, kind, format) => {
    const found = profile(name);
    expect(found.name).toBe(name);
    expect(found.featureMask).toBe(mask);
    expect(profileFeatureNames(found, 2n ** 64n - 1n)).toEqual([...COMMON, ...own]);
    expect(found.configBytes).toBe(configBytes);
    expect(found.freePages.kind).toBe(kind);
    expect(found.freePages.format.name).toBe(format);
  });

  test.each(PROFILE_NAMES.map(name => profile(name)))('lists the features of $name by rising bits', found => {
    const masks = found.features.map(feature => feature.mask);
    expect(masks).toEqual([...new Set(masks)].sort((a, b) => Number(a - b)));
  });

  test('knows no other', () => {
    expect(() => profile('virtio-balloon')).toThrow(
      /no balloon ABI is called virtio-balloon; there are virtio,/,
    );
    expect(() => profile('toString')).toThrow(expect.objectContaining({ code: 'AEROSTAT_PROFILE' }));
  });
});

describe('the numbers of the virtqueues', () => {
  test('are dense: a queue whose feature is absent consumes none', () => {
    const virtio = profile('virtio');
    const all = ['inflate', 'deflate', 'stats', 'hint', 'reporting'];
    expect(queueRoles(virtio, virtio.featureMask)).toEqual(all);
    expect(queueRoles(virtio, 0n)).toEqual(['inflate', 'deflate']);
    expect(queueRoles(virtio, PAGE_REPORTING)).toEqual(['inflate', 'deflate', 'reporting']);
    expect(queueRoles(virtio, PAGE_REPORTING | STATS_VQ)).toEqual([
      'inflate',
      'deflate',
      'stats',
      'reporting',
    ]);
    expect(queueRoles(virtio, PAGE_REPORTING | FREE_PAGE_HINT)).toEqual([
      'inflate',
      'deflate',
      'hint',
      'reporting',
    ]);
    expect(queueRoles(virtio, PAGE_POISON | MUST_TELL_HOST | DEFLATE_ON_OOM)).toEqual(['inflate', 'deflate']);
  });

  test.each(['page-bitmap', 'page-order', 'page-range', 'page-chunks'])(
    'have a request queue in %s',
    name => {
      expect(queueRoles(profile(name), STATS_VQ | FREE_PAGE_QUEUE)).toEqual([
        'inflate',
        'deflate',
        'stats',
        'request',
      ]);
      expect(queueRoles(profile(name), FREE_PAGE_QUEUE | PAGE_LIST)).toEqual([
        'inflate',
        'deflate',
        'request',
      ]);
    },
  );

  test('have a hint queue in sg and a hinting queue in hinting', () => {
    expect(queueRoles(profile('sg'), FREE_PAGE_QUEUE)).toEqual(['inflate', 'deflate', 'hint']);
    expect(queueRoles(profile('hinting'), HINTING)).toEqual(['inflate', 'deflate', 'hinting']);
  });

  test('do not count features of the transport', () => {
    expect(queueRoles(profile('virtio'), (1n << 32n) | (1n << 28n))).toEqual(['inflate', 'deflate']);
  });
});

describe('what inflate and deflate buffers hold', () => {
  test.each([
    ['page-bitmap', 'page-bitmap'],
    ['page-order', 'page-order'],
    ['page-range', 'page-range'],
    ['page-chunks', 'page-chunks'],
    ['sg', 'sg'],
  ])('%s: its own lists once they were negotiated, page frame numbers else', (name, format) => {
    expect(listFormat(profile(name), PAGE_LIST).name).toBe(format);
    expect(listFormat(profile(name), FREE_PAGE_QUEUE | STATS_VQ).name).toBe('pfn-array');
  });

  test.each(['virtio', 'hinting'])('%s: page frame numbers, whatever was negotiated', name => {
    expect(listFormat(profile(name), 0n).name).toBe('pfn-array');
    expect(listFormat(profile(name), profile(name).featureMask).name).toBe('pfn-array');
  });
});
