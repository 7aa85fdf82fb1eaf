/** The destination told by hand what connections brought, at moments that a stream does not choose. */
import { describe, expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { MigrationDestination } from '../../src/migration/destination.ts';
import type { DestinationMessage, Inlet } from '../../src/migration/destination-link.ts';
import { Ram } from '../../src/migration/ram.ts';
import { FEATURE_RECALL, type Hello } from '../../src/migration/stream/messages.ts';
import { StreamError } from '../../src/migration/stream/section.ts';
import { honest, sealed, Victim } from './victim.ts';

const PAGES = 8;
const ID = new Uint8Array(16).fill(3);
const REGIONS = [{ guestAddress: 0, size: PAGES * PAGE_SIZE, pageSize: PAGE_SIZE }];
const MEMORY: DestinationMessage = { kind: 'memory', regions: REGIONS };

const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** A machine that does what it is asked only when it is let, and a destination for it. */
class Place {
  readonly asked: string[] = [];
  readonly waiting: (() => void)[] = [];
  readonly destination: MigrationDestination;

  constructor() {
    const slowly = (what: string) => (): Promise<void> => {
      this.asked.push(what);
      return new Promise(resolve => this.waiting.push(resolve));
    };
    const ram = new Ram(
      new GuestMemory(
        REGIONS.map(
          ({ guestAddress, size }) =>
            new MemoryRegion({ guestAddress, size, userAddress: 0 }, new HeapBacking(size)),
        ),
      ),
    );
    this.destination = new MigrationDestination({
      machine: {
        createMemory: slowly('createMemory'),
        load: slowly('load'),
        run: slowly('run'),
        unload: slowly('unload'),
        abandon: slowly('abandon'),
      },
      ramOf: () => ram,
      memoryBytesMax: PAGES * PAGE_SIZE,
      clock: { nowMs: () => 0, sleep: () => new Promise(() => {}) },
    });
  }

  /** The machine has done all that it was asked. */
  async done(): Promise<void> {
    await settle();
    for (const resolve of this.waiting.splice(0)) resolve();
    await settle();
  }

  connect(hello: Partial<Hello> = {}): Visit {
    const visit = new Visit(this.destination);
    visit.say({
      kind: 'hello',
      hello: { id: ID, purpose: 'migrate', connection: 0, connections: 1, features: 0, ...hello },
    });
    return visit;
  }

  /** One connection, and a guest that has come over it and waits for `go`. */
  async ready(): Promise<Visit> {
    const visit = this.connect();
    visit.say(MEMORY);
    await this.done();
    visit.say({ kind: 'end' });
    await this.done();
    expect(this.destination.phase).toBe('ready');
    return visit;
  }
}

class Visit implements Inlet {
  readonly replies: string[] = [];
  /** Why it was refused. */
  why = '';
  closed = false;
  readonly say: (message: DestinationMessage) => void;

  constructor(destination: MigrationDestination) {
    this.say = destination.accept(this);
  }

  receiveLate(): void {}

  receiveInto(): void {}

  async reply(reply: Parameters<Inlet['reply']>[0]): Promise<void> {
    if (reply.kind !== 'spent') this.replies.push(reply.kind);
    if (reply.kind === 'refused') this.why = reply.message;
  }

  close(): void {
    this.closed = true;
  }
}

test('memory is made once, however often it is asked for before it is there', async () => {
  const place = new Place();
  const visit = place.connect();
  visit.say(MEMORY);
  visit.say(MEMORY);
  await place.done();
  expect(place.asked.filter(what => what === 'createMemory')).toEqual(['createMemory']);
  expect(place.destination.phase).toBe('failed');
  await place.done();
  await expect(place.destination.outcome).rejects.toThrow('memory came again');
});

describe('a stop that the source calls off', () => {
  const RECALLABLE = { features: FEATURE_RECALL, connections: 2 };

  /** Two connections over which pages may come. */
  async function receiving(): Promise<{ place: Place; first: Visit; second: Visit }> {
    const place = new Place();
    const first = place.connect(RECALLABLE);
    first.say(MEMORY);
    await place.done();
    const second = place.connect({ ...RECALLABLE, connection: 1 });
    expect(first.replies).toEqual(['welcome']);
    return { place, first, second };
  }

  const end = (...visits: Visit[]) => {
    for (const visit of visits) visit.say({ kind: 'end' });
  };
  const recall = (...visits: Visit[]) => {
    for (const visit of visits) visit.say({ kind: 'recall' });
  };
  const state = (visit: Visit) =>
    visit.say({ kind: 'state', name: 'guest', last: true, bytes: new Uint8Array(3) });

  test('is taken back when all connections have said so, and can be tried again', async () => {
    const { place, first, second } = await receiving();
    state(first);
    end(first, second);
    await place.done();
    expect(first.replies.splice(0)).toEqual(['welcome', 'ready']);
    recall(second);
    await place.done();
    expect([first.replies, place.destination.phase]).toEqual([[], 'ready']);
    recall(first);
    expect(place.destination.phase).toBe('recalling');
    await place.done();
    expect([first.replies.splice(0), place.asked.at(-1)]).toEqual([['recalled'], 'unload']);
    // The same state comes again, and is no second one.
    state(first);
    end(second, first);
    await place.done();
    first.say({ kind: 'go' });
    await place.done();
    await place.destination.outcome;
    expect(first.replies).toEqual(['ready', 'running']);
    expect(place.asked.filter(what => what !== 'createMemory')).toEqual(['load', 'unload', 'load', 'run']);
  });

  test('while the machine is loaded has it loaded, then taken down, and never ready', async () => {
    const { place, first, second } = await receiving();
    end(first, second);
    await settle();
    expect(place.destination.phase).toBe('loading');
    recall(first, second);
    await place.done();
    await place.done();
    expect([first.replies, place.asked.slice(-2)]).toEqual([
      ['welcome', 'recalled'],
      ['load', 'unload'],
    ]);
    expect(place.destination.phase).toBe('receiving');
  });

  test('before it has ended costs the machine nothing, and is answered', async () => {
    const { place, first, second } = await receiving();
    end(second);
    recall(first, second);
    await settle();
    expect([first.replies, place.asked]).toEqual([['welcome', 'recalled'], ['createMemory']]);
    // What ended before the recall has ended no more.
    end(first);
    expect(place.destination.phase).toBe('receiving');
  });

  test('is none where that was not agreed on, and none after go', async () => {
    const place = new Place();
    const early = await place.ready();
    recall(early);
    expect(early.why).toMatch(/recall came while ready/);
    const { place: there, first, second } = await receiving();
    end(first, second);
    await there.done();
    first.say({ kind: 'go' });
    recall(first, second);
    await there.done();
    await there.destination.outcome;
    expect(there.asked.at(-1)).toBe('run');
    expect(first.why).toMatch(/recall/);
  });

  test('is not asked about meanwhile: who asks gives the guest up there', async () => {
    const { place, first, second } = await receiving();
    end(first, second);
    await place.done();
    recall(first, second);
    const inquiry = place.connect({ purpose: 'inquire' });
    await place.done();
    await place.done();
    expect(inquiry.replies).toEqual(['refused']);
    await expect(place.destination.outcome).rejects.toThrow('not all here');
  });

  test('sends no go before all has come anew', async () => {
    const { place, first, second } = await receiving();
    end(first, second);
    await place.done();
    recall(first, second);
    first.say({ kind: 'go' });
    await place.done();
    await place.done();
    expect([place.asked.includes('run'), place.destination.phase]).toEqual([false, 'failed']);
    await expect(place.destination.outcome).rejects.toThrow('go came while recalling');
  });
});

test('the source hears that the guest runs before those who wait for it have their turn', async () => {
  const victim = new Victim();
  let heard: string[] = [];
  const waited = victim.destination.outcome.then(() => {
    heard = [...victim.replies];
  });
  await victim.feed(sealed(honest()));
  await waited;
  expect(heard).toEqual(['welcome', 'ready', 'running']);
});

test('the guest is run once, though go comes again while it starts', async () => {
  const place = new Place();
  const visit = await place.ready();
  visit.say({ kind: 'go' });
  visit.say({ kind: 'go' });
  await place.done();
  await place.done();
  expect(place.asked.filter(what => what === 'run')).toEqual(['run']);
  await place.destination.outcome;
});

test('a source that asks while the guest starts hears that it runs, and starts it no second time', async () => {
  const place = new Place();
  const visit = await place.ready();
  visit.say({ kind: 'go' });
  visit.say({ kind: 'closed', error: new Error('the network is gone') });
  const inquiry = place.connect({ purpose: 'inquire' });
  await settle();
  expect(inquiry.replies).toEqual([]);
  await place.done();
  await place.done();
  expect(inquiry.replies).toEqual(['running']);
  expect(place.asked.filter(what => what === 'run')).toEqual(['run']);
});

test('the destination cannot call the guest off once the source has let it go', async () => {
  const place = new Place();
  const visit = await place.ready();
  visit.say({ kind: 'go' });
  expect(place.destination.cancel('not wanted')).toBe(false);
  visit.say({ kind: 'cancel', reason: 'not wanted' });
  await place.done();
  await place.destination.outcome;
  expect(place.destination.phase).toBe('running');
});

test('an inquiry while the guest starts is answered by what came of it', async () => {
  const place = new Place();
  const visit = await place.ready();
  visit.say({ kind: 'closed', error: undefined });
  const [first, second] = [place.connect({ purpose: 'inquire' }), place.connect({ purpose: 'inquire' })];
  await place.done();
  await place.done();
  expect([first.replies, second.replies]).toEqual([['running'], ['running']]);
  expect(place.asked.filter(what => what === 'run')).toEqual(['run']);
});

test('a source that asks under another name hears that no such guest is here, and disturbs no migration', async () => {
  const place = new Place();
  const visit = await place.ready();
  const stranger = place.connect({ purpose: 'inquire', id: new Uint8Array(16) });
  await settle();
  expect([stranger.replies, stranger.closed]).toEqual([['refused'], true]);
  expect(place.destination.phase).toBe('ready');
  visit.say({ kind: 'go' });
  await place.done();
  await place.destination.outcome;
  // Nor is it once another guest runs: who asked would give up its own for it.
  const late = place.connect({ purpose: 'inquire', id: new Uint8Array(16) });
  await settle();
  expect([late.replies, late.closed]).toEqual([['refused'], true]);
});

test('a second guest is sent away in words for people, and the first one is not disturbed', async () => {
  const place = new Place();
  const visit = await place.ready();
  const other = { id: new Uint8Array(16).fill(9) };
  const early = place.connect(other);
  visit.say({ kind: 'go' });
  await place.done();
  await place.destination.outcome;
  // Also one that runs here and is sent to where it is.
  const late = place.connect(other);
  await settle();
  expect(early.why).toBe('another guest is on its way; each needs an `aerostat receive` of its own');
  expect(late.why).toBe('a guest runs here already; each needs an `aerostat receive` of its own');
  expect([early.closed, late.closed, place.destination.phase]).toEqual([true, true, 'running']);
});

test('a guest that is too large is refused with both sizes, before anything is made', async () => {
  const place = new Place();
  const visit = place.connect();
  visit.say({ kind: 'memory', regions: [{ guestAddress: 0, size: 2 ** 40, pageSize: PAGE_SIZE }] });
  await settle();
  expect(visit.why).toBe('a guest of 1048576 MiB, and this destination takes 1 MiB at most');
  expect(place.asked).toEqual(['abandon']);
});

test.each([
  ['between two sections', undefined],
  ['in the middle of one', new StreamError('truncated', 'it ends in the middle of a section')],
])('a source that dies %s is gone, and talked no nonsense', async (_, error) => {
  const place = new Place();
  const visit = place.connect();
  visit.say(MEMORY);
  await place.done();
  visit.say({ kind: 'closed', error });
  await place.done();
  await expect(place.destination.outcome).rejects.toThrow(/^the source is gone/);
});
