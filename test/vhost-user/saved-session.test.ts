/** A session that is saved to bytes and descriptors, and another one that goes on with them. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { closeAll, createEventFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { CONFIG_BYTES_MAX } from '../../src/vhost-user/protocol.ts';
import {
  decodeSession,
  encodeSession,
  type SavedRegion,
  type SavedRing,
  type SavedSession,
  type SessionState,
  SessionStateError,
} from '../../src/vhost-user/saved-session.ts';
import { RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { mutate } from '../support/mutate.ts';
import { type Conversation, conversations, MIB, payloads } from './conversation.ts';
import { RingDevice } from './ring-device.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_802);

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u64 = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const bits = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const size = fc.integer({ min: 0, max: 32_768 });
const bytesOf = (max: number) =>
  fc.uint8Array({ minLength: CONFIG_BYTES_MAX, maxLength: CONFIG_BYTES_MAX, max });
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });

const region: fc.Arbitrary<Omit<SavedRegion, 'file'>> = fc.record({
  guestAddress: u64,
  size: u64,
  userAddress: u64,
  fileOffset: u64,
});
const config = fc.record({ size, features: bits, descriptorArea: u64, driverArea: u64, deviceArea: u64 });
const log = fc.record({ size: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), fileOffset: u64 });
const inflight = fc.record({
  size: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  fileOffset: u64,
  queues: u32,
  entries: u32,
});
const ring: fc.Arbitrary<Omit<SavedRing, 'kick' | 'call' | 'error'>> = fc
  .record({
    size,
    base: u32,
    enabled: fc.boolean(),
    addresses: optional(fc.record({ descriptorTable: u64, availRing: u64, usedRing: u64 })),
    place: optional(fc.record({ config, base: u32, unreturnedBase: u32 })),
    runs: fc.boolean(),
    logged: fc.boolean(),
    noted: fc.boolean(),
  })
  .map(({ runs, ...rest }) => ({ ...rest, runs: runs && rest.place !== undefined }));

/** Any state, whose descriptors are in any order, and how many there are. */
const states = fc
  .record({
    features: optional(bits),
    protocolFeatures: bits,
    status: fc.integer({ min: 0, max: 255 }),
    owned: fc.boolean(),
    configBytes: bytesOf(255),
    configWritten: bytesOf(1),
    regions: fc.array(region, { maxLength: 10 }),
    rings: fc.array(ring, { maxLength: 7 }),
    log: optional(log),
    logsAll: fc.boolean(),
    inflight: optional(inflight),
    present: fc.infiniteStream(fc.boolean()),
  })
  .map(({ present, ...state }): { state: SessionState; fds: number } => {
    let fds = 0;
    const some = () => (present.next().value === true ? fds++ : undefined);
    return {
      state: {
        ...state,
        regions: state.regions.map(each => ({ ...each, file: some() })),
        rings: state.rings.map(each => ({ ...each, kick: some(), call: some(), error: some() })),
        channel: some(),
        log: state.log && { ...state.log, file: some() },
        logDoorbell: some(),
        inflight: state.inflight && { ...state.inflight, file: some() },
      },
      fds,
    };
  });

describe('the bytes of a session', () => {
  test('say all of it', () => {
    fc.assert(
      fc.property(states, ({ state, fds }) => {
        expect(decodeSession(encodeSession(state, fds), fds)).toEqual(state);
      }),
      { seed: SEED },
    );
  });

  test('are refused by a typed error or say something, whatever was done to them', () => {
    const random = new Random(SEED);
    fc.assert(
      fc.property(states, fc.integer({ min: 0, max: 1 }), ({ state, fds }, more) => {
        const bytes = mutate(Buffer.from(encodeSession(state, fds)), random);
        try {
          decodeSession(bytes, fds + more);
          expect(more).toBe(0);
        } catch (error) {
          expect(error).toBeInstanceOf(SessionStateError);
        }
      }),
      { seed: SEED, numRuns: 500 },
    );
  });
});

const open = conversations();

/** Saves what `from` has said, as its back-end does when the device has settled. */
function save(from: Conversation): SavedSession {
  from.session.suspend();
  return from.session.save(from.channel?.duplicate());
}

describe.each([
  ['split', VERSION_1],
  ['packed', VERSION_1 | RING_PACKED],
])('a session with a %s ring', (_, features) => {
  test('goes on in another one, which takes the next buffer', () => {
    const former = open();
    const driver = former.start(features);
    driver.offer(2);
    former.device.serveQueue(0);
    expect(driver.collect()).toBe(2);
    driver.offer(3);
    const saved = save(former);
    const { device, session, refused } = open();
    session.load(saved);
    expect(device.takeCalls()).toEqual([`region+ 0x0`, `features 0x${features.toString(16)}`]);
    expect(device.running.size).toBe(0);
    session.resume();
    expect(device.served[0]).toBe(3);
    expect(driver.collect()).toBe(3);
    expect(refused).toEqual([]);
    // Told that it goes on, not that another driver begins.
    expect(device.takeCalls()).toEqual(['start 0']);
  });

  test('takes buffers again that the former device had kept', () => {
    const former = open();
    former.device.keeps.add(0);
    const driver = former.start(features);
    driver.offer(2);
    former.device.serveQueue(0);
    expect(former.device.served[0]).toBe(2);
    expect(driver.collect()).toBe(0);
    const saved = save(former);
    const { device, session } = open();
    session.load(saved);
    session.resume();
    expect(device.served[0]).toBe(2);
    expect(driver.collect()).toBe(2);
  });

  test('goes on where it is when no other takes it over', () => {
    const former = open();
    const driver = former.start(features);
    closeAll(save(former).fds);
    driver.offer();
    expect(former.device.served[0]).toBe(0);
    former.session.resume();
    expect(former.device.served[0]).toBe(1);
    expect(driver.collect()).toBe(1);
    expect(former.device.takeCalls()).toEqual(['suspend 0', 'resume 0']);
  });
});

test('what was loaded says the same when it is saved', () => {
  const former = open({
    regions: [
      { guestAddress: 0, size: MIB },
      { guestAddress: 4 * MIB, size: MIB },
    ],
  });
  former.start();
  former.say('SET_BACKEND_REQ_FD', undefined, { fds: [createEventFd()] });
  former.say('SET_VRING_ENABLE', payloads.state(0, 0));
  former.say('SET_CONFIG', payloads.config(4, 4, Uint8Array.of(1, 2, 3, 4)));
  const saved = save(former);
  const other = open();
  other.session.load({ bytes: saved.bytes, fds: saved.fds });
  expect(other.channel).toBeDefined();
  const again = save(other);
  expect(again.bytes).toEqual(saved.bytes);
  expect(again.fds).toHaveLength(saved.fds.length);
  closeAll(again.fds);
});

test('a ring that the front-end had disabled stays so', () => {
  const former = open();
  former.start();
  former.say('SET_VRING_ENABLE', payloads.state(0, 0));
  const other = open();
  other.session.load(save(former));
  other.session.resume();
  expect(other.device.running.size).toBe(0);
  other.say('SET_VRING_ENABLE', payloads.state(0, 1));
  expect(other.device.takeCalls()).toContain('start 0');
});

describe('a session is refused and leaves the new one as it was', () => {
  const refusal = (tamper: (saved: SavedSession) => SavedSession, device = new RingDevice()) => {
    const former = open();
    former.start();
    const other = open({ device });
    expect(() => other.session.load(tamper(save(former)))).toThrow(SessionStateError);
    // A front-end that connects anew is served as ever.
    other.start().offer();
    device.serveQueue(0);
    expect(device.served[0]).toBe(1);
  };

  test('that has lost a descriptor', () => {
    refusal(({ bytes, fds }) => {
      closeAll([fds[0]]);
      return { bytes, fds: fds.slice(1) };
    });
  });

  test('whose kick is a file', () => {
    refusal(({ bytes, fds }) => {
      const kick = fds.length - 3;
      closeAll([fds[kick]]);
      return { bytes, fds: fds.with(kick, createMemfd({ name: 'aerostat-test', size: MIB })) };
    });
  });

  test('whose memory is a doorbell', () => {
    refusal(({ bytes, fds }) => {
      closeAll([fds[0]]);
      return { bytes, fds: [createEventFd(), ...fds.slice(1)] };
    });
  });

  test('of a device with other features or rings', () => {
    refusal(saved => saved, new RingDevice({ features: 0x1_0000_0000n, queueCount: 2 }));
  });

  test('that is damaged anywhere', () => {
    const random = new Random(SEED);
    const former = open();
    former.start();
    former.session.suspend();
    for (let run = 0; run < 60; run++) {
      const { bytes, fds } = former.session.save(undefined);
      const { session } = open();
      try {
        session.load({ bytes: mutate(Buffer.from(bytes), random), fds });
        session.resume();
      } catch (error) {
        expect(error).toBeInstanceOf(SessionStateError);
      }
    }
  });
});
