/** What `aerostat doctor` finds: each finding by what causes it, and nothing where nothing is known. */
import { describe, expect, test } from 'vitest';
import { type GuestStatus, type HostStatus, statusOf } from '../../src/control/contract.ts';
import { diagnose } from '../../src/control/diagnosis.ts';
import { GIB, guestStatus, MIB } from '../server/fake-control.ts';

type Patient = Parameters<typeof diagnose>[0];

const HOST: HostStatus = {
  totalBytes: 64 * GIB,
  availableBytes: 40 * GIB,
  sharedBytes: 0,
  swapTotalBytes: 0,
  swapFreeBytes: 0,
  pressure: { some10Percent: 0, some60Percent: 0, full10Percent: 0, full60Percent: 0 },
};

const FEATURES = ['stats-vq', 'deflate-on-oom', 'page-reporting'] as const;
const SOUND = guestStatus('web', { features: FEATURES });
const SAMPLE = {
  ageMs: 1000,
  balloonedBytes: 0,
  statistics: { totalBytes: 4 * GIB, availableBytes: 2 * GIB, oomKills: 0 },
} as unknown as Patient['samples'][string];

const found = (change: Partial<Patient>): string[] =>
  diagnose({ host: HOST, guests: [SOUND], samples: { web: SAMPLE }, failures: new Map(), ...change }).map(
    ({ weight, guest, id }) => `${weight} ${guest ?? 'host'} ${id}`,
  );
const ofGuest = (guest: Partial<Parameters<typeof guestStatus>[1]>) =>
  found({ guests: [{ ...SOUND, ...guest } as GuestStatus] });

describe('a diagnosis', () => {
  test('finds nothing in a sound host with a sound guest, and nothing in what is not known', () => {
    expect(found({})).toEqual([]);
    const unknown = { totalBytes: null, availableBytes: null, swapTotalBytes: null, pressure: null };
    expect(found({ host: { ...HOST, ...unknown }, guests: [statusOf('web', { connected: true })] })).toEqual(
      [],
    );
  });

  test.each<[string, Partial<HostStatus>]>([
    ['danger host host-memory-low', { availableBytes: GIB }],
    [
      'danger host host-pressure',
      { pressure: { some10Percent: 9, some60Percent: 7, full10Percent: 0, full60Percent: 0 } },
    ],
    ['danger host overcommitted-without-swap', { totalBytes: 3 * GIB, availableBytes: 2 * GIB }],
    ['note host overcommitted', { totalBytes: 3 * GIB, availableBytes: 2 * GIB, swapTotalBytes: GIB }],
  ])('of a host: %s', (finding, host) => {
    expect(found({ host: { ...HOST, ...host } })).toEqual([finding]);
  });

  test.each<[string, Parameters<typeof ofGuest>[0]]>([
    ['cost web no-reporting', { features: ['stats-vq', 'deflate-on-oom'] }],
    [
      'danger web no-deflate-on-oom',
      { features: ['stats-vq', 'page-reporting'], balloonedBytes: GIB, actualBytes: GIB },
    ],
    ['cost web no-statistics', { features: ['deflate-on-oom', 'page-reporting'] }],
    ['cost web silent', { state: 'silent' }],
    ['cost web no-driver', { state: 'no-driver', features: [] }],
    ['note web unsealed-memory', { memorySealed: false }],
    [
      'danger web no-deflate-on-oom',
      {
        features: ['stats-vq', 'page-reporting'],
        targetOwner: { by: 'policy', untilMs: null, lapsed: false },
      },
    ],
    ['cost web memory-on-disk', { memoryPlace: 'disk' }],
    [
      'cost web incomplete-huge-pages',
      { balloonedBytes: 100 * MIB, actualBytes: 100 * MIB, incompleteBytes: 50 * MIB },
    ],
    ['cost web balloon-not-given', { actualBytes: GIB, balloonedBytes: 0 }],
    ['note web stuck', { stuck: { sinceMs: 0, forMs: 1, swings: false, retryInMs: null } }],
    ['danger web swings', { stuck: { sinceMs: 0, forMs: 1, swings: true, retryInMs: 5 } }],
  ])('of a guest: %s', (finding, guest) => {
    expect(ofGuest(guest)).toEqual([finding]);
  });

  test('of a daemon that is about to have no descriptors, and whose guests nothing keeps', () => {
    const daemon = { descriptors: { open: 900, max: 1024 }, kept: false };
    expect(found({ daemon })).toEqual(['danger host descriptors-low', 'note host no-keeper']);
    expect(found({ daemon: { descriptors: { open: 60, max: 1024 }, kept: true } })).toEqual([]);
    expect(found({ daemon: { descriptors: null, kept: null } })).toEqual([]);
  });

  test('of discards that fail says why, where that is known', () => {
    const counters = { ...guestStatus('web').counters, punchFailures: 3 };
    const [{ what }] = diagnose({
      host: HOST,
      guests: [{ ...SOUND, counters, lastError: 'EOPNOTSUPP' }],
      samples: { web: SAMPLE },
      failures: new Map(),
    });
    expect(what).toMatch(/could not be given back to the host, 3 times \(EOPNOTSUPP\)/);
  });

  test('of what a guest says: it is in need, it killed, its word is old', () => {
    const saying = (statistics: object, ageMs: number | null = 1000) =>
      found({ samples: { web: { ...SAMPLE, ageMs, statistics: { ...SAMPLE.statistics, ...statistics } } } });
    expect(saying({ availableBytes: 64 * MIB })).toEqual(['danger web guest-memory-low']);
    expect(saying({ oomKills: 2 })).toEqual(['note web killed-for-memory']);
    expect(saying({ availableBytes: 64 * MIB }, 600_000)).toEqual(['note web old-statistics']);
    expect(found({ samples: {} })).toEqual(['note web old-statistics']);
  });

  test('of a guest without a balloon names what gives it one; of one that cannot be reached, the reason', () => {
    const bare = statusOf('web', {
      state: 'waiting',
      memoryBytes: GIB,
      lastError: 'its QEMU has no balloon',
    });
    const [{ id, remedy }] = diagnose({ host: HOST, guests: [bare], samples: {}, failures: new Map() });
    expect(id).toBe('no-balloon');
    expect(remedy).toContain("<memballoon model='virtio'");
    expect(found({ failures: new Map([['web', new Error('refused')]]) })).toEqual(['cost web unreachable']);
  });

  test('has what is dangerous first, and the host before its guests', () => {
    const guests = [
      guestStatus('a', { features: [] }),
      guestStatus('b', { features: [], balloonedBytes: GIB, actualBytes: GIB }),
    ];
    const host = { ...HOST, availableBytes: GIB };
    const all = diagnose({ host, guests, samples: {}, failures: new Map() });
    expect(all.slice(0, 3).map(({ weight, guest }) => [weight, guest])).toEqual([
      ['danger', null],
      ['danger', 'b'],
      ['cost', 'a'],
    ]);
    expect(new Set(all.map(({ what }) => what.endsWith('.')))).toEqual(new Set([true]));
  });
});
