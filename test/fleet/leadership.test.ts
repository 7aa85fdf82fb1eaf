/** Who leads, with a clock of the test's own: no two at once, a dead one is followed, and one that was away is none. */
import { beforeEach, describe, expect, test } from 'vitest';
import { Leadership, LOOKS_PER_PERIOD } from '../../src/fleet/leadership.ts';
import { FakeBucket } from './fake-bus.ts';

const PERIOD_MS = 1000;
const LOOK_MS = PERIOD_MS / LOOKS_PER_PERIOD;

let nowMs = 0;
let bucket: FakeBucket;
let refusals: string[];

function candidate(host: string): Leadership {
  const leadership = new Leadership({
    bucket,
    host,
    incarnation: `agent-${host}`,
    periodMs: PERIOD_MS,
    now: () => nowMs,
    onRefusal: why => refusals.push(why),
  });
  bucket.watch(entry => leadership.heard(entry));
  return leadership;
}

/** All of them look, at each moment in their order. */
async function pass(ms: number, ...all: Leadership[]): Promise<void> {
  for (const endMs = nowMs + ms; nowMs < endMs; ) {
    nowMs += LOOK_MS;
    for (const one of all) await one.look().catch(() => {});
    expect(all.filter(({ epoch }) => epoch !== null).length).toBeLessThanOrEqual(1);
  }
}

beforeEach(() => {
  nowMs = 10_000;
  bucket = new FakeBucket();
  refusals = [];
});

describe('the leader', () => {
  test('is the first that wrote the key, and stays it by writing it again', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(5 * PERIOD_MS, one, other);
    expect(one.epoch).toBe(1);
    expect(other.leader).toEqual({ host: 'one', epoch: 1 });
    expect(one.elections).toBe(1);
  });

  test('is looked for by one question at a time, and all that ask meanwhile hear how it ended', async () => {
    const one = candidate('one');
    let questions = 0;
    bucket.get = () => {
      questions++;
      return Promise.reject(new Error('no answer'));
    };
    const ends = await Promise.allSettled([one.look(), one.look(), one.look()]);
    expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    expect(questions).toBe(1);
  });

  test('that dies is followed within two periods', async () => {
    const [one, other, third] = [candidate('one'), candidate('other'), candidate('third')];
    await pass(3 * PERIOD_MS, one, other, third);
    await pass(2 * PERIOD_MS, other, third);
    expect(other.epoch).toBeGreaterThan(1);
  });

  test('that dies is followed within two periods also where the store forgot the key', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(3 * PERIOD_MS, one, other);
    bucket.expire('leader');
    await pass(2 * PERIOD_MS, other);
    expect(other.epoch).not.toBeNull();
  });

  test('that was stopped and comes back leads no more, before it has asked any server', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(3 * PERIOD_MS, one, other);
    const epoch = one.epoch as number;
    await pass(3 * PERIOD_MS, other);
    expect(one.epoch).toBeNull();
    expect(other.accepts(epoch)).toBe(false);
    await pass(2 * PERIOD_MS, one, other);
    expect(one.leader).toEqual({ host: 'other', epoch: other.epoch });
  });

  test('without a quorum stops when its lease is over, and no other host follows it meanwhile', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(3 * PERIOD_MS, one, other);
    bucket.silent = true;
    await pass(2 * PERIOD_MS, one, other);
    expect([one.epoch, other.epoch]).toEqual([null, null]);
    bucket.silent = false;
    await pass(PERIOD_MS, one, other);
    expect([one, other].filter(({ epoch }) => epoch !== null)).toHaveLength(1);
  });

  test('whose write was stored and not answered takes the key for its own', async () => {
    const one = candidate('one');
    await pass(2 * PERIOD_MS, one);
    bucket.deaf = true;
    await pass(PERIOD_MS / 2, one);
    bucket.deaf = false;
    await pass(3 * PERIOD_MS, one);
    expect(one.epoch).toBe(1);
    expect(one.elections).toBe(1);
  });

  test('leads not on an answer that comes when its lease is over', async () => {
    const one = candidate('one');
    const { create } = bucket;
    bucket.create = async (key, text) => {
      const revision = await create.call(bucket, key, text);
      nowMs += 2 * PERIOD_MS;
      return revision;
    };
    await one.look();
    expect(one.epoch).toBeNull();
    const { update } = bucket;
    let lateMs = 0;
    bucket.update = async (key, text, revision) => {
      const next = await update.call(bucket, key, text, revision);
      nowMs += lateMs;
      return next;
    };
    await pass(2 * PERIOD_MS, one);
    expect(one.epoch).not.toBeNull();
    lateMs = 2 * PERIOD_MS;
    nowMs += PERIOD_MS;
    await one.look();
    expect(one.epoch).toBeNull();
    lateMs = 0;
    await pass(3 * PERIOD_MS, one);
    expect(one.epoch).not.toBeNull();
  });

  test('is followed where a stranger wrote nonsense into its key', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(2 * PERIOD_MS, one, other);
    await bucket.put('leader', '{"version":1,"host":7}');
    await pass(3 * PERIOD_MS, one, other);
    expect([one, other].filter(({ epoch }) => epoch !== null)).toHaveLength(1);
    expect(refusals.join()).toContain("the leader's key");
  });

  test('that resigns is followed at once', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(2 * PERIOD_MS, one, other);
    await one.resign();
    await pass(2 * PERIOD_MS, other);
    expect(one.epoch).toBeNull();
    expect(other.epoch).not.toBeNull();
  });

  test('cannot be claimed by a number above the revision of the key: no made-up epoch shuts out those that follow', async () => {
    const [one, other] = [candidate('one'), candidate('other')];
    await pass(2 * PERIOD_MS, one, other);
    await bucket.put(
      'leader',
      JSON.stringify({ version: 1, host: 'liar', incarnation: 'x', epoch: Number.MAX_SAFE_INTEGER }),
    );
    await pass(3 * PERIOD_MS, one, other);
    expect([one, other].filter(({ epoch }) => epoch !== null)).toHaveLength(1);
  });
});
