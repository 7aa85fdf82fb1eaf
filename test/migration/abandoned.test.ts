/** A source whose destination is gone looks for it for as long as it takes, unless its own program ends. */
import { describe, expect, test } from 'vitest';
import { runUntil } from '../../src/bench/migrate/interruptible.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Convergence } from '../../src/migration/convergence.ts';
import { SoftwareDirtyLog } from '../../src/migration/dirty-log.ts';
import { MigrationError } from '../../src/migration/errors.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { MigrationSource } from '../../src/migration/source.ts';
import type { DestinationAnswer, Link, SourceMessage } from '../../src/migration/source-link.ts';
import { FEATURE_POSTCOPY } from '../../src/migration/stream/messages.ts';
import { deferred } from '../../src/sys/deferred.ts';
import { systemClock } from '../../src/transfer/clock.ts';

const SLOTS = 64;
const GONE = new MigrationError('the connection to the destination is gone');
const ANSWERS: Partial<Record<SourceMessage['kind'], DestinationAnswer['kind']>> = {
  memory: 'welcome',
  end: 'ready',
  go: 'running',
};

/** In post-copy, to a destination that takes the guest over and is gone then. `lost` resolves when it is looked for. */
function toNowhere() {
  const bytes = SLOTS * PAGE_SIZE;
  const region = new MemoryRegion({ guestAddress: 0, size: bytes, userAddress: 0 }, new HeapBacking(bytes));
  const lost = deferred();
  const gone = deferred<never>();
  gone.promise.catch(() => {});
  const answers: DestinationAnswer['kind'][] = [];
  let opened = 0;
  const link: Link = {
    send: async ({ kind }) => {
      if (kind === 'go') gone.reject(GONE);
      const answer = ANSWERS[kind];
      if (answer !== undefined) answers.push(answer);
    },
    sendPages: async () => {},
    listen: () => {},
    interrupt: () => {},
    progress: () => ({ pages: 0, zeroPages: 0, zeroPagesSent: 0, resentPages: 0, bytes: 0 }),
    answer: async () => {
      const kind = answers.shift();
      if (kind === undefined) throw GONE;
      return { kind, features: FEATURE_POSTCOPY } as DestinationAnswer;
    },
    broken: gone.promise,
    waitingSinceMs: undefined,
    useFeatures: () => {},
    close: () => {},
  };
  const dirty = new SlotBitmap(SLOTS);
  const source = new MigrationSource({
    id: new Uint8Array(16),
    ram: new Ram(new GuestMemory([region])),
    machine: {
      stop: async () => void dirty.set(0, SLOTS),
      resume: async () => {},
      throttle: async () => {},
      save: async () => [],
      handOver: async () => {},
    },
    log: new SoftwareDirtyLog(SLOTS),
    dirty,
    sent: new SlotBitmap(SLOTS),
    connector: {
      open: async () => {
        if (++opened === 1) return link;
        lost.resolve();
        throw GONE;
      },
      inquire: async () => 'absent',
    },
    connections: 1,
    convergence: new Convergence({ downtimeMsMax: 300, roundsMax: 1, autoConverge: false }),
    postcopy: { afterRound: 0 },
    clock: systemClock,
    observer: ({ phase }) => {
      if (phase === 'post-copy-paused') lost.resolve();
    },
  });
  return { source, lost: lost.promise };
}

describe('a migration of a bench whose destination is gone', () => {
  test('ends when the bench is interrupted', async () => {
    const { source, lost } = toNowhere();
    const interrupt = new AbortController();
    const over = runUntil(source, interrupt.signal);
    await lost;
    expect(source.postcopy?.broken).toMatch(/is gone/);
    interrupt.abort();
    await expect(over).rejects.toThrow('the bench was interrupted');
  });

  test('does not begin where it was interrupted before', async () => {
    const { source } = toNowhere();
    await expect(runUntil(source, AbortSignal.abort())).rejects.toThrow('the bench was interrupted');
    expect(source.postcopy).toBeNull();
  });

  test('ends as soon as the guest was let go, where it was interrupted in between', async () => {
    const { source } = toNowhere();
    source.abandon('the bench was interrupted');
    await expect(source.run()).rejects.toThrow('the bench was interrupted');
  });
});
