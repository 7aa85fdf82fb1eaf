/** Migrations over networks that fail: one side has the guest afterwards, or a person is told that neither side knows. */
import dns from 'node:dns';
import { connect } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { MigrationSummary } from '../../src/migration/source-shapes.ts';
import { systemClock } from '../../src/transfer/clock.ts';
import { TransferListener } from '../../src/transfer/listener.ts';
import {
  closeRam,
  contents,
  Leaving,
  type LeavingOptions,
  memoryOf,
  Place,
  Relay,
  residentBytes,
  until,
  writePage,
} from './places.ts';

const PAGES = 700;
/** Not all of them, so that runs have ends. */
const USED = Array.from({ length: PAGES }, (_, slot) => slot).filter(slot => slot % 5 !== 0);

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

interface Journey {
  readonly place: Place;
  readonly relay: Relay;
  readonly leaving: Leaving;
  readonly listener: TransferListener;
}

/** A guest about to leave through a relay for a place. */
async function journey(
  options: Partial<LeavingOptions> = {},
  { inquiryMsMax = 60_000, bytes = PAGES * PAGE_SIZE, used = USED as readonly number[] } = {},
): Promise<Journey> {
  const place = new Place(bytes, inquiryMsMax);
  const listener = await TransferListener.open({
    address: { host: '127.0.0.1', port: 0 },
    accept: inlet => place.destination.accept(inlet),
  });
  const relay = await Relay.open(() => listener.address);
  const ram = memoryOf([{ guestAddress: 0, size: bytes }]);
  for (const slot of used) writePage(ram, slot, slot);
  const leaving = new Leaving(ram, {
    address: relay.address,
    writes: round => (round < 3 ? [1, used.length / 2] : []),
    ...options,
  });
  opened.push(async () => {
    relay.close();
    await listener.close();
    if (place.abandoned === 0) closeRam(place.ram);
    closeRam(ram);
  });
  return { place, relay, leaving, listener };
}

type Outcome = { readonly summary: MigrationSummary } | { readonly error: Error & { code?: string } };

const outcomeOf = ({ leaving }: Journey): Promise<Outcome> =>
  leaving.source.run().then(
    summary => ({ summary }),
    (error: Error) => ({ error }),
  );

/** One side runs the guest, wholly, and the other side never will. */
async function expectOne({ place, leaving }: Journey, outcome: Outcome): Promise<'here' | 'there'> {
  if ('summary' in outcome) {
    await place.destination.outcome;
    expect(place.runs).toBe(1);
    expect(leaving.asked.slice(-2)).toEqual(['stop', 'let go']);
    expect(place.ram && contents(place.ram).equals(contents(leaving.ram))).toBe(true);
    return 'there';
  }
  expect(outcome.error).toMatchObject({ code: 'AEROSTAT_MIGRATION_FAILED' });
  if (leaving.asked.includes('stop')) expect(leaving.asked.at(-1)).toBe('resume');
  expect(place.runs).toBe(0);
  // It learns at once, or when no source has asked for long enough; a place that no source reached still waits.
  if (place.destination.phase !== 'waiting') place.destination.cancel('the test is over');
  expect(place.destination.phase).not.toBe('running');
  return 'here';
}

test('a guest moves over one connection, or several', async () => {
  for (const connections of [1, 3]) {
    const all = await journey({ connections });
    expect(await expectOne(all, await outcomeOf(all))).toBe('there');
    expect(all.relay.wires).toHaveLength(connections);
  }
});

test('a network that delivers in crumbs, late, delivers all the same', async () => {
  const all = await journey({ connections: 2 });
  all.relay.delayMs = 1;
  all.relay.pieceBytes = 30_011;
  expect(await expectOne(all, await outcomeOf(all))).toBe('there');
});

describe('a connection that is cut', () => {
  test('leaves the guest on one side, whatever was just under way', async () => {
    const unhindered = await journey({ connections: 2 });
    await expectOne(unhindered, await outcomeOf(unhindered));
    const { events } = unhindered.relay;
    const seen = { here: 0, there: 0 };
    const random = new Random(Number(process.env.AEROSTAT_SEED ?? 7));
    const late = Array.from({ length: 12 }, (_, i) => events - i);
    const early = Array.from({ length: 15 }, () => random.between(1, events - 12));
    for (const cut of [...late, ...early]) {
      const all = await journey({ connections: 2 });
      all.relay.watch = () => {
        if (all.relay.events !== cut) return true;
        all.relay.reset();
        return false;
      };
      const side = await expectOne(all, await outcomeOf(all));
      seen[side]++;
    }
    expect(seen.here).toBeGreaterThan(0);
    expect(seen.there).toBeGreaterThan(0);
  }, 60_000);

  /** The network breaks at the hand-over, and is still broken when the source has asked for long. */
  async function unknown(inquiryMsMax: number): Promise<Journey> {
    const all = await journey({ inquiryMsMax: 100 }, { inquiryMsMax });
    const { relay, leaving } = all;
    relay.watch = () => {
      if (!leaving.asked.includes('let go')) return true;
      relay.down = true;
      relay.reset();
      return false;
    };
    expect(await outcomeOf(all)).toMatchObject({ error: { code: 'AEROSTAT_MIGRATION_UNKNOWN' } });
    expect(leaving.asked.at(-1)).toBe('let go');
    relay.watch = () => true;
    return all;
  }

  test('at the hand-over, with neither side reached afterwards, leaves the guest where it stands on both sides', async () => {
    const { place, leaving } = await unknown(200);
    await expect(place.destination.outcome).rejects.toThrow('did not ask for the guest');
    expect(await leaving.source.askAgain()).toBe('unreachable');
    expect([place.runs, leaving.asked.at(-1)]).toEqual([0, 'let go']);
  });

  test('and healed in time, is told that the guest runs there', async () => {
    const { relay, place, leaving } = await unknown(60_000);
    relay.down = false;
    expect(await leaving.source.askAgain()).toBe('running');
    expect([place.runs, leaving.asked.at(-1)]).toEqual([1, 'let go']);
  });

  test('and healed when the destination waits for the guest no more, gives it back on the word of a person alone', async () => {
    const { relay, place, leaving } = await unknown(200);
    await expect(place.destination.outcome).rejects.toThrow('did not ask for the guest');
    relay.down = false;
    // It may have run there, and be elsewhere by now.
    expect(await leaving.source.askAgain()).toBe('absent');
    expect([place.runs, leaving.asked.at(-1)]).toEqual([0, 'let go']);
    await leaving.source.recall();
    expect([place.runs, leaving.asked.at(-1)]).toEqual([0, 'resume']);
  });

  test('at the hand-over, to a host whose process has died, gives the guest back', async () => {
    const all = await journey();
    const { relay, leaving, listener } = all;
    relay.watch = () => {
      if (!leaving.asked.includes('let go')) return true;
      relay.refuse();
      relay.reset();
      void listener.close();
      return false;
    };
    expect(await expectOne(all, await outcomeOf(all))).toBe('here');
    expect(leaving.asked).toEqual(['stop', 'let go', 'resume']);
  });
});

describe('a name that stands for several hosts', () => {
  /** From now on `there` has these addresses, in turn. */
  function named(...addresses: readonly string[]): void {
    let asked = 0;
    const lookup = (_: string, { all }: { all?: boolean }, found: (...results: unknown[]) => void) => {
      const address = addresses[asked++ % addresses.length];
      if (all === true) found(null, [{ address, family: 4 }]);
      else found(null, address, 4);
    };
    const spy = vi.spyOn(dns, 'lookup').mockImplementation(lookup as never);
    opened.push(() => spy.mockRestore());
  }
  /** No process listens at this address of this host. */
  const ELSEWHERE = '127.0.0.9';

  test('is asked for once: all connections go where the first one went', async () => {
    const all = await journey({ connections: 3 });
    const { port } = all.relay.address;
    const leaving = new Leaving(all.leaving.ram, { address: { host: 'there', port }, connections: 3 });
    named('127.0.0.1', ELSEWHERE);
    expect(await expectOne({ ...all, leaving }, await outcomeOf({ ...all, leaving }))).toBe('there');
  });

  test('does not take the guest back because another of them refuses the question', async () => {
    const all = await journey();
    const { relay } = all;
    const { port } = relay.address;
    const leaving = new Leaving(all.leaving.ram, { address: { host: 'there', port } });
    named('127.0.0.1', ELSEWHERE);
    let cut = false;
    relay.watch = () => {
      // The guest runs there, and the word of it is lost.
      if (cut || all.place.runs === 0) return true;
      cut = true;
      relay.reset();
      return false;
    };
    expect(await expectOne({ ...all, leaving }, await outcomeOf({ ...all, leaving }))).toBe('there');
    expect(cut).toBe(true);
  });
});

describe('a migration that is called off', () => {
  test('ends with the guest here, at any time before the hand-over', async () => {
    const all = await journey({ onAsked: what => what === 'stop' && expect(cancel()).toBe(true) });
    const cancel = () => all.leaving.source.cancel('the test thought better of it');
    const outcome = await outcomeOf(all);
    expect(outcome).toMatchObject({ error: { code: 'AEROSTAT_MIGRATION_CANCELLED' } });
    expect(all.leaving.asked).toEqual(['stop', 'resume']);
    await expect(all.place.destination.outcome).rejects.toThrow('thought better');
    expect(all.place.runs).toBe(0);
  });

  test('is not, once the guest is being let go', async () => {
    const answers: boolean[] = [];
    const all = await journey({ onAsked: what => what === 'let go' && answers.push(cancel()) });
    const cancel = () => all.leaving.source.cancel('too late');
    expect(await expectOne(all, await outcomeOf(all))).toBe('there');
    expect(answers).toEqual([false]);
  });
});

test('a guest that cannot go on where it was is no reason to leave the destination waiting', async () => {
  const all = await journey({
    onAsked: what => {
      if (what === 'stop') all.leaving.source.cancel('the test thought better of it');
      if (what === 'resume') throw new Error('the guest is dead');
    },
  });
  expect(await outcomeOf(all)).toMatchObject({ error: { message: 'the guest is dead' } });
  await expect(all.place.destination.outcome).rejects.toThrow('thought better');
});

describe('a migration that may send little', () => {
  /** The first section is all that it may send in minutes. */
  const SLOW = { bytesPerSecond: 1000 };
  /** The first round has begun, and waits. */
  const underWay = async ({ leaving }: Journey): Promise<void> => {
    await until(() => leaving.rounds > 0);
    await systemClock.sleep(50);
  };

  test('is called off at once, and the destination hears of it', async () => {
    const all = await journey(SLOW);
    const outcome = outcomeOf(all);
    await underWay(all);
    all.leaving.source.cancel('it takes too long');
    expect(await outcome).toMatchObject({ error: { code: 'AEROSTAT_MIGRATION_CANCELLED' } });
    await expect(all.place.destination.outcome).rejects.toThrow('it takes too long');
  });

  test('hears at once that its destination is gone', async () => {
    const all = await journey(SLOW);
    const outcome = outcomeOf(all);
    await underWay(all);
    all.relay.reset();
    expect(await expectOne(all, await outcome)).toBe('here');
  });
});

test('a network that falls silent under way is noticed, and the guest runs on', async () => {
  // More than the buffers in between can hold: what finds no room is not acknowledged.
  const all = await journey(
    { silenceMsMax: 1000 },
    { bytes: 10_000 * PAGE_SIZE, used: Array.from({ length: 10_000 }, (_, slot) => slot) },
  );
  let bytes = 0;
  all.relay.watch = wire => {
    bytes += wire.forth.at(-1)?.length ?? 0;
    return bytes < 2 ** 20;
  };
  const outcome = await outcomeOf(all);
  expect(await expectOne(all, outcome)).toBe('here');
  expect(outcome).toMatchObject({ error: { message: expect.stringContaining('not heard of for too long') } });
}, 60_000);

test('strangers at the door do not disturb a migration', async () => {
  const all = await journey({ connections: 2, bytesPerSecond: 8e6 });
  const { host, port } = all.listener.address;
  let over = false;
  const strangers = (async () => {
    while (!over) {
      const socket = connect(port, host);
      socket.on('error', () => {});
      socket.write('GET / HTTP/1.1\r\n\r\n');
      await new Promise(resolve => setTimeout(resolve, 2));
    }
  })();
  const outcome = await outcomeOf(all);
  over = true;
  await strangers;
  expect(await expectOne(all, outcome)).toBe('there');
  await until(() => all.listener.connections <= 16);
});

test('a guest of 128 GiB moves for what it holds: neither side touches the rest, and the wire says nothing of it', async () => {
  const bytes = 2 ** 37;
  const slots = bytes / PAGE_SIZE;
  const all = await journey(
    { connections: 2, writes: () => [] },
    { bytes, used: [0, 1, slots / 2, slots - 1] },
  );
  const outcome = await outcomeOf(all);
  expect(outcome).toMatchObject({ summary: { pages: 4, unbackedPages: slots - 4 } });
  await all.place.destination.outcome;
  for (const ram of [all.leaving.ram, all.place.ram]) expect(ram && residentBytes(ram)).toBe(4 * PAGE_SIZE);
  const said = all.relay.wires.flatMap(({ forth }) => forth).reduce((sum, { length }) => sum + length, 0);
  expect(said).toBeLessThan(5 * PAGE_SIZE);
});
