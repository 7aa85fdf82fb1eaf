/** A genuine migration is recorded on its way; then the real receiver is told it again, changed. */
import { connect, type Socket } from 'node:net';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { SECTION_HEADER } from '../../src/migration/stream/section.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { TransferListener } from '../../src/transfer/listener.ts';
import { mutate } from '../support/mutate.ts';
import {
  closeRam,
  contents,
  Leaving,
  memoryOf,
  Place,
  Relay,
  residentBytes,
  until,
  writePage,
} from './places.ts';

const PAGES = 96;
const MEMORY_MAX = PAGES * PAGE_SIZE;
const REGIONS = [
  { guestAddress: 0, size: MEMORY_MAX / 2 },
  { guestAddress: 2 ** 32, size: MEMORY_MAX / 2 },
];

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

/** The receiver, one destination after the other behind the same port. */
class Receiver {
  place = new Place(MEMORY_MAX);
  readonly listener: TransferListener;

  private constructor(listener: TransferListener) {
    this.listener = listener;
  }

  static async open(): Promise<Receiver> {
    let receiver: Receiver | undefined;
    const listener = await TransferListener.open({
      address: { host: '127.0.0.1', port: 0 },
      accept: inlet => (receiver as Receiver).place.destination.accept(inlet),
    });
    receiver = new Receiver(listener);
    opened.push(() => listener.close());
    return receiver;
  }
}

/** Bytes of a genuine migration over one connection: up to where it waits for an answer, up to the next, and the rest. */
let parts: readonly Buffer[] = [];

beforeAll(async () => {
  const receiver = await Receiver.open();
  const relay = await Relay.open(() => receiver.listener.address);
  const ram = memoryOf(REGIONS);
  for (let slot = 0; slot < PAGES; slot += 3) writePage(ram, slot, slot);
  const leaving = new Leaving(ram, {
    address: relay.address,
    writes: round => (round < 3 ? [round, 50 + round, PAGES - 1] : []),
  });
  await leaving.source.run();
  await receiver.place.destination.outcome;
  const arrived = receiver.place.ram;
  expect(arrived && contents(arrived).equals(contents(ram))).toBe(true);
  const stream = Buffer.concat(relay.wires[0].forth);
  parts = cut(stream);
  closeRam(ram);
  closeRam(arrived);
  relay.close();
  for (const close of opened.splice(0).reverse()) await close();
});

/** Behind `memory`, and before `go`. */
function cut(stream: Buffer): Buffer[] {
  const ends: number[] = [];
  for (let at = 0; at < stream.length; ) {
    at += SECTION_HEADER.size + stream.readUInt32LE(at + SECTION_HEADER.offset.length);
    ends.push(at);
  }
  const [, memoryEnd] = ends;
  const beforeGo = ends[ends.length - 2];
  return [stream.subarray(0, memoryEnd), stream.subarray(memoryEnd, beforeGo), stream.subarray(beforeGo)];
}

/** Tells the receiver these parts as a source would, which waits for an answer after each; then hangs up. */
async function tell(receiver: Receiver, told: readonly Buffer[]): Promise<void> {
  const { address } = receiver.listener;
  const socket = await new Promise<Socket>((resolve, reject) => {
    const made = connect(address.port, address.host, () => resolve(made));
    made.once('error', reject);
  });
  let over = false;
  let heard = 0;
  socket.on('data', () => heard++);
  socket.on('error', () => {});
  socket.once('close', () => {
    over = true;
  });
  socket.once('end', () => {
    over = true;
  });
  for (const [index, part] of told.entries()) {
    if (over) break;
    socket.write(part);
    // One that waits for more than it will get says nothing; a source would wait for ever, and we go on.
    for (let tries = 0; heard === index && !over && tries < 10; tries++) await tick();
  }
  socket.end();
  await until(() => receiver.listener.connections === 0);
  socket.destroy();
}

const tick = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 1));

/** Whatever came, there is no guest, there was no more memory than a guest's, and nothing of it is left. */
async function expectHarmless(receiver: Receiver, descriptors: number): Promise<void> {
  const { place } = receiver;
  if (place.destination.phase !== 'waiting') {
    await until(() => place.failure !== undefined || place.runs > 0);
  }
  expect(place.runs).toBe(0);
  expect(place.created.length).toBeLessThanOrEqual(1);
  for (const size of place.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
  if (place.failure !== undefined) {
    expect(place.failure).toBeInstanceOf(AerostatError);
    expect(place.abandoned).toBe(1);
  }
  expect(openDescriptorCount()).toBe(descriptors);
}

test('a recorded migration brings its guest again', async () => {
  const receiver = await Receiver.open();
  await tell(receiver, parts);
  expect(receiver.place.runs).toBe(1);
  const { ram } = receiver.place;
  expect(ram && residentBytes(ram)).toBeLessThanOrEqual(MEMORY_MAX);
  closeRam(ram);
});

describe('a migration that is told again', () => {
  test('up to anywhere but its end brings no guest', async () => {
    const receiver = await Receiver.open();
    const descriptors = openDescriptorCount();
    const [first, second] = parts;
    for (let share = 0; share < 20; share++) {
      for (const told of [
        [first.subarray(0, (first.length * share) / 20)],
        [first, second.subarray(0, (second.length * share) / 20)],
      ]) {
        receiver.place = new Place(MEMORY_MAX);
        await tell(receiver, told);
        await expectHarmless(receiver, descriptors);
      }
    }
  });

  test('without waiting for answers is refused', async () => {
    const receiver = await Receiver.open();
    const descriptors = openDescriptorCount();
    await tell(receiver, [Buffer.concat(parts)]);
    await expectHarmless(receiver, descriptors);
    expect(receiver.place.failure).toMatchObject({ code: 'AEROSTAT_MIGRATION_STREAM' });
  });

  test('that says go and nothing else before, or go twice, starts one guest at most', async () => {
    const receiver = await Receiver.open();
    const descriptors = openDescriptorCount();
    const [first, second, go] = parts;
    await tell(receiver, [first, go]);
    await expectHarmless(receiver, descriptors);
    receiver.place = new Place(MEMORY_MAX);
    await tell(receiver, [first, second, go, go]);
    expect(receiver.place.runs).toBe(1);
    closeRam(receiver.place.ram);
  });

  const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_404);

  test(`changed in a thousand ways brings errors and no guest (seed ${SEED})`, {
    timeout: 120_000,
  }, async () => {
    const receiver = await Receiver.open();
    const descriptors = openDescriptorCount();
    const random = new Random(SEED);
    let refused = 0;
    for (let i = 0; i < 1000; i++) {
      // What comes before `go` must be refused before it. Headers are few among so many bytes of pages.
      const told = parts.slice();
      const which = random.chance(0.3) ? 0 : 1;
      told[which] = change(parts[which], random);
      if (told[which].equals(parts[which])) continue;
      receiver.place = new Place(MEMORY_MAX);
      await tell(receiver, told);
      try {
        await expectHarmless(receiver, descriptors);
      } catch (error) {
        throw new Error(`seed ${SEED}, change ${i}`, { cause: error });
      }
      if (receiver.place.failure !== undefined) refused++;
    }
    // The others were not even taken for a migration.
    expect(refused).toBeGreaterThan(500);
  });
});

/** Two stretches in each other's place, or any other change, often of a section's header. */
function change(bytes: Buffer, random: Random): Buffer {
  if (random.chance(1 / 6)) {
    const [low, high] = [headerIn(bytes, random), headerIn(bytes, random)].sort((a, b) => a - b);
    return Buffer.concat([bytes.subarray(high), bytes.subarray(low, high), bytes.subarray(0, low)]);
  }
  return mutate(bytes, random, random.chance(0.5) ? headerIn(bytes, random) : undefined);
}

/** Where in `bytes` one of its sections begins, give or take a field. */
function headerIn(bytes: Buffer, random: Random): number {
  const starts: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    starts.push(at);
    at += SECTION_HEADER.size + bytes.readUInt32LE(at + SECTION_HEADER.offset.length);
  }
  return starts[random.below(starts.length)] + random.below(SECTION_HEADER.size);
}
