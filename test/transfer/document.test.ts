/**
 * docs/migration-stream.md taken at its word: both sides of the stream written anew from what that page says, with nothing of
 * src/migration, against ours.
 */
import { createCipheriv, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { TransferListener } from '../../src/transfer/listener.ts';
import {
  closeRam,
  contents,
  Leaving,
  memoryOf,
  Place,
  Relay,
  residentBytes,
  STATE,
  until,
  writePage,
} from './places.ts';

const PAGE = 4096;
const TYPE = {
  hello: 1,
  memory: 2,
  pages: 3,
  zeroPages: 4,
  round: 5,
  state: 6,
  end: 7,
  go: 8,
  welcome: 16,
  ready: 17,
  running: 18,
  refused: 19,
};

function checksum(section: Buffer): Buffer {
  const blank = Buffer.from(section);
  blank.fill(0, 16, 24);
  const gmac = createCipheriv('aes-128-gcm', Buffer.from('aerostat stream!'), Buffer.alloc(12));
  gmac.setAAD(blank);
  gmac.final();
  return gmac.getAuthTag().subarray(0, 8);
}

interface Section {
  readonly type: number;
  readonly payload: Buffer;
}

/** Flag 1: who does not know the type may pass over the section. */
const OPTIONAL = 2;

/** One direction of one connection, taken apart; what is left over at the end is lost. */
function sectionsOf(bytes: Buffer): Section[] {
  const sections: Section[] = [];
  let sequence = 0;
  for (let at = 0; at + 24 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    if (at + 24 + length > bytes.length) break;
    const section = bytes.subarray(at, at + 24 + length);
    const flags = section.readUInt16LE(2);
    expect([0, OPTIONAL]).toContain(flags);
    expect(section.readUInt32LE(8)).toBe(sequence++);
    expect(section.subarray(16, 24)).toEqual(checksum(section));
    at += section.length;
    // Of a type that this reader does not know.
    if (flags === OPTIONAL) continue;
    sections.push({ type: section.readUInt16LE(0), payload: section.subarray(24) });
  }
  return sections;
}

const le16 = (value: number) => Buffer.from(new Uint16Array([value]).buffer);
const le32 = (...values: number[]) => Buffer.from(new Uint32Array(values).buffer);
const le64 = (...values: number[]) => Buffer.from(new BigUint64Array(values.map(BigInt)).buffer);
const text = (words: string) => Buffer.concat([le16(Buffer.byteLength(words)), Buffer.from(words)]);

function* runsIn(bytes: Buffer): Generator<number> {
  for (let at = 0; at < bytes.length; at += 8) {
    const [slot, count] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    expect(count).toBeGreaterThan(0);
    for (let page = 0; page < count; page++) yield slot + page;
  }
}

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function placeFor(bytes: number) {
  const place = new Place(bytes);
  const accept = place.destination.accept.bind(place.destination);
  const listener = await TransferListener.open({ address: { host: '127.0.0.1', port: 0 }, accept });
  opened.push(async () => {
    await listener.close();
    closeRam(place.ram);
  });
  return { place, listener };
}

test('who reads what our source sends, as the document says, has the guest', async () => {
  const connections = 3;
  // Several stripes, two regions with a hole between them.
  const regions = [
    { guestAddress: 0, size: 8192 * PAGE },
    { guestAddress: 2 ** 32, size: 20_000 * PAGE },
  ];
  const ram = memoryOf(regions);
  const slots = 28_192;
  const used = Array.from({ length: Math.ceil(slots / 61) }, (_, index) => index * 61);
  for (const slot of used) writePage(ram, slot, slot);
  const { listener, place } = await placeFor(slots * PAGE);
  const relay = await Relay.open(() => listener.address);
  const zeroed = 61 * 100;
  const leaving = new Leaving(ram, {
    address: relay.address,
    connections,
    writes: round => {
      // A page that was sent becomes zeros: there is a section for that.
      if (round === 2) {
        ram.clear(zeroed, 1);
        leaving.log.add(zeroed, 1);
      }
      // Too many for the guest to be stopped after the first round.
      return round === 1 ? used : round === 2 ? [61, 8192, slots - 1] : [];
    },
  });
  opened.push(async () => {
    relay.close();
    closeRam(ram);
  });
  await leaving.source.run();
  await place.destination.outcome;

  const memory = Buffer.alloc(slots * PAGE);
  const state: Buffer[] = [];
  const order: number[] = [];
  let zeroes = 0;
  for (const [number, { forth }] of relay.wires.entries()) {
    const [hello, ...rest] = sectionsOf(Buffer.concat(forth));
    const names = [le16(1), le16(0), le16(number), le16(connections), le32(0)];
    expect(hello.type).toBe(TYPE.hello);
    expect(hello.payload.subarray(0, 20)).toEqual(Buffer.concat([Buffer.from('AEROSTAT'), ...names]));
    expect(hello.payload).toHaveLength(36);
    const totals = { pages: 0, zeroPages: 0 };
    for (const { type, payload } of rest) {
      if (number === 0) order.push(type);
      else expect([TYPE.pages, TYPE.zeroPages, TYPE.end]).toContain(type);
      if (type === TYPE.memory) {
        const shapes = regions.flatMap(({ guestAddress, size }) => [guestAddress, size, PAGE]);
        expect(payload).toEqual(Buffer.concat([le32(2), le64(...shapes)]));
      } else if (type === TYPE.pages) {
        const count = payload.readUInt32LE(0);
        let at = 4;
        for (const slot of runsIn(payload.subarray(4 + count * PAGE))) {
          expect(Math.floor(slot / 8192) % connections).toBe(number);
          payload.copy(memory, slot * PAGE, at, at + PAGE);
          at += PAGE;
        }
        expect([at, count >= 1 && count <= 256]).toEqual([4 + count * PAGE, true]);
        totals.pages += count;
      } else if (type === TYPE.zeroPages) {
        for (const slot of runsIn(payload)) {
          memory.fill(0, slot * PAGE, (slot + 1) * PAGE);
          totals.zeroPages++;
          zeroes++;
        }
      } else if (type === TYPE.state) {
        expect(payload.subarray(0, 9)).toEqual(Buffer.concat([text('guest'), le16(1)]));
        state.push(payload.subarray(9));
      } else if (type === TYPE.end) {
        expect(payload).toEqual(le64(totals.pages, totals.zeroPages));
      }
    }
  }
  expect(zeroes).toBe(1);
  expect(memory.equals(contents(ram))).toBe(true);
  expect(Buffer.concat(state)).toEqual(Buffer.from(STATE));
  expect(order[0]).toBe(TYPE.memory);
  expect(order.slice(-2)).toEqual([TYPE.end, TYPE.go]);
  expect(order.filter(type => type === TYPE.round).length).toBeGreaterThan(2);
  const answers = relay.wires.map(({ back }) => sectionsOf(Buffer.concat(back)).map(({ type }) => type));
  expect(answers).toEqual([[TYPE.welcome, TYPE.ready, TYPE.running], [], []]);
});

/** A connection of a source written from the document alone. */
class Scribe {
  readonly socket: Socket;
  #sequence = 0;
  #heard = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', bytes => {
      this.#heard = Buffer.concat([this.#heard, bytes]);
    });
    opened.push(() => socket.destroy());
  }

  static async to({ host, port }: { host: string; port: number }): Promise<Scribe> {
    const socket = connect(port, host);
    await once(socket, 'connect');
    return new Scribe(socket);
  }

  say(type: number, ...parts: readonly Buffer[]): void {
    const payload = Buffer.concat(parts);
    const section = Buffer.concat([
      ...[le16(type), le16(0), le32(payload.length, this.#sequence++, 0), Buffer.alloc(8)],
      payload,
    ]);
    checksum(section).copy(section, 16);
    this.socket.write(section);
  }

  hello(id: Buffer, purpose: number, number: number, connections: number): void {
    const numbers = [le16(1), le16(purpose), le16(number), le16(connections), le32(0)];
    this.say(TYPE.hello, Buffer.from('AEROSTAT'), ...numbers, id);
  }

  /** The types that were answered, once there are so many. */
  async heard(count: number): Promise<number[]> {
    await until(() => sectionsOf(this.#heard).length >= count);
    return sectionsOf(this.#heard).map(({ type }) => type);
  }
}

test('who sends a guest as the document says, and asks for it when the last answer was lost, is understood', async () => {
  const { place, listener } = await placeFor(64 * PAGE);
  const id = randomBytes(16);
  const [first, second] = [await Scribe.to(listener.address), await Scribe.to(listener.address)];
  first.hello(id, 0, 0, 2);
  first.say(TYPE.memory, le32(1), le64(0, 64 * PAGE, PAGE));
  expect(await first.heard(1)).toEqual([TYPE.welcome]);
  second.hello(id, 0, 1, 2);
  first.say(TYPE.round, le32(1));
  const pages = [5, 6, 40].map(slot => Buffer.alloc(PAGE, slot));
  first.say(TYPE.pages, le32(3), ...pages, le32(5, 2), le32(40, 1));
  first.say(TYPE.zeroPages, le32(6, 1), le32(50, 14));
  first.say(TYPE.state, text('guest'), le16(0), Buffer.from(STATE.subarray(0, 10)));
  first.say(TYPE.state, text('guest'), le16(1), Buffer.from(STATE.subarray(10)));
  second.say(TYPE.end, le64(0, 0));
  first.say(TYPE.end, le64(3, 15));
  expect(await first.heard(2)).toEqual([TYPE.welcome, TYPE.ready]);
  // `go` is lost with all connections.
  first.socket.destroy();
  second.socket.destroy();
  const asking = await Scribe.to(listener.address);
  asking.hello(id, 1, 0, 1);
  expect(await asking.heard(1)).toEqual([TYPE.running]);
  expect([place.runs, place.states.map(({ name }) => name)]).toEqual([1, ['guest']]);
  const expected = Buffer.alloc(64 * PAGE);
  expected.fill(5, 5 * PAGE, 6 * PAGE);
  expected.fill(40, 40 * PAGE, 41 * PAGE);
  if (place.ram === undefined) throw new Error('no memory');
  expect(contents(place.ram).equals(expected)).toBe(true);
  expect(residentBytes(place.ram)).toBe(2 * PAGE);
  // Who asks for another guest is refused, and told why in two texts.
  const other = await Scribe.to(listener.address);
  other.hello(randomBytes(16), 1, 0, 1);
  expect(await other.heard(1)).toEqual([TYPE.refused]);
});
