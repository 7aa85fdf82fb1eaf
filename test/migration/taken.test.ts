/** What is under way when a guest is stopped is what it waits for: the source stops it when the destination has taken the rest. */
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Convergence } from '../../src/migration/convergence.ts';
import { SoftwareDirtyLog } from '../../src/migration/dirty-log.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { MigrationSource } from '../../src/migration/source.ts';
import type { DestinationAnswer, Link } from '../../src/migration/source-link.ts';
import { FEATURE_AHEAD, FEATURE_POSTCOPY, FEATURE_RECALL } from '../../src/migration/stream/messages.ts';

const SLOTS = 64;
const CONNECTIONS = 2;

/** A destination that agrees to `features`, and answers what it is asked when `backlog` is over. */
function slowDestination(features: number, backlog: () => Promise<void>) {
  const said: string[] = [];
  const answers: DestinationAnswer['kind'][] = ['welcome'];
  let recalls = 0;
  const say = (kind: string, index: number): void => {
    said.push(kind);
    if (kind === 'rehearse') answers.push('rehearsed');
    if (kind === 'recall' && ++recalls % CONNECTIONS === 0) answers.push('recalled');
    if (kind === 'end' && index === 0) answers.push('ready');
    if (kind === 'go') answers.push('running');
  };
  const link = (index: number): Link => ({
    send: async ({ kind }) => say(kind, index),
    sendPages: async () => say('pages', index),
    listen: () => {},
    interrupt: () => {},
    progress: () => ({ pages: 0, zeroPages: 0, zeroPagesSent: 0, resentPages: 0, bytes: 0 }),
    answer: async () => {
      while (answers.length === 0) await turn();
      const kind = answers.shift() as DestinationAnswer['kind'];
      if (kind === 'recalled') await backlog();
      return { kind, features } as DestinationAnswer;
    },
    broken: new Promise(() => {}),
    waitingSinceMs: undefined,
    useFeatures: () => {},
    close: () => {},
  });
  return { said, link };
}

async function move(features: number, postcopy?: { readonly afterRound: number }) {
  const bytes = SLOTS * PAGE_SIZE;
  const region = new MemoryRegion({ guestAddress: 0, size: bytes, userAddress: 0 }, new HeapBacking(bytes));
  const ram = new Ram(new GuestMemory([region]));
  let nowMs = 0;
  const { said, link } = slowDestination(features, async () => {
    nowMs += 1000;
  });
  const convergence = new Convergence({ downtimeMsMax: 300, roundsMax: 2, autoConverge: false });
  const source = new MigrationSource({
    id: new Uint8Array(16),
    ram,
    machine: {
      stop: async () => void said.push('stop'),
      resume: async () => {},
      throttle: async () => {},
      save: async () => [],
      saveAhead: async () => [],
      handOver: async () => {},
    },
    log: new SoftwareDirtyLog(SLOTS),
    dirty: new SlotBitmap(SLOTS),
    sent: new SlotBitmap(SLOTS),
    connector: { open: async index => link(index), inquire: async () => 'absent' },
    connections: CONNECTIONS,
    convergence,
    postcopy,
    clock: {
      nowMs: () => nowMs,
      sleep: (_, signal) => new Promise(resolve => signal?.addEventListener('abort', () => resolve())),
    },
  });
  const { downtimeMs } = await source.run();
  return { said, downtimeMs };
}

describe('a source whose destination tells what it has taken', () => {
  /** What is said between the last pages that are sent while the guest runs and its stop. */
  const lastWords = (said: readonly string[]): readonly string[] => {
    const running = said.slice(0, said.indexOf('stop'));
    return running.slice(running.lastIndexOf('pages') + 1);
  };

  test('stops its guest when that has taken all of the last round, and not before', async () => {
    const { said, downtimeMs } = await move(FEATURE_AHEAD | FEATURE_RECALL);
    expect(lastWords(said)).toEqual(['recall', 'recall']);
    // What it waits for with the guest running is no part of the downtime.
    expect(downtimeMs).toBe(0);
  });

  test('in post-copy too', async () => {
    const { said } = await move(FEATURE_AHEAD | FEATURE_RECALL | FEATURE_POSTCOPY, { afterRound: 2 });
    expect(lastWords(said).slice(0, 2)).toEqual(['recall', 'recall']);
  });

  test('asks nothing of a destination that tells it nothing', async () => {
    const { said } = await move(0);
    expect(said).not.toContain('recall');
    expect(said).toContain('stop');
  });
});
