/**
 * One guest of the daemon in the test's own thread: what a guest that gives no rest may set off beyond its own device.
 * What whole daemons do about such guests is fairness.test.ts's, hostile-guest.test.ts's and hostile-front-end.test.ts's.
 */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { STATS_VQ } from '../../src/balloon/features.ts';
import { HINT_ID_MIN } from '../../src/balloon/hint-session.ts';
import type { GuestEventType } from '../../src/control/contract.ts';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { guestOperations } from '../../src/hosting/guest-operations.ts';
import { RETRY_MS_MIN, STUCK_MS, SWINGS_MAX } from '../../src/hosting/target-watch.ts';
import { closeAll, createEventFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { U64 } from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { FIRST_PAGE, HandGuest, PFNS_PER_BUFFER, pfnList } from '../daemon/hand-guest.ts';
import { RawFrontEnd } from '../daemon/raw-front-end.ts';
import { clockAhead } from '../support/clock-ahead.ts';
import { hostGuest } from '../support/host-guest.ts';
import { TestLoop } from '../support/loop.ts';

const { change } = guestOperations;

let openBefore: number;
let loop: TestLoop;
let discards: MessageChannel;
let host: GuestHost;
let socket: UnixSocket;
const told: GuestEventType[] = [];
const details = new Map<GuestEventType, unknown>();
const lines: string[] = [];
const MIB = 2 ** 20;

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
  discards = new MessageChannel();
  told.length = 0;
  lines.length = 0;
  const [ours, theirs] = UnixSocket.pair();
  socket = theirs;
  host = hostGuest(
    { loop, socket: ours, discards: discards.port1 },
    {},
    {
      emit: (_, type, detail) => {
        told.push(type);
        details.set(type, detail);
      },
      log: (_, _level, message) => lines.push(message),
    },
  );
});

afterEach(async () => {
  await host.close();
  closeAll([socket.fd]);
  discards.port1.close();
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

test('a ring that is always full and always kicked has one turn at a time', () => {
  let served = 0;
  host.device.serveQueue = () => {
    served++;
    return true;
  };
  const turns = 20;
  for (let turn = 0; turn < turns; turn++) {
    host.rings.serve(0);
    loop.reactor.turn(0);
  }
  // The first kick, and what goes on.
  expect(served).toBe(turns + 1);
  host.device.serveQueue = () => {
    served++;
    return false;
  };
  loop.reactor.turn(0);
  loop.reactor.turn(0);
  expect(served).toBe(turns + 2);
  host.rings.serve(0);
  expect(served).toBe(turns + 3);
});

test.each([
  ['never read its configuration is told of', false],
  ['read its configuration is not', true],
] as const)('a guest that gives memory away unasked, whose front-end %s', async (_, reads) => {
  const guest = await HandGuest.connect(socket, { loop });
  try {
    if (reads) await guest.readConfig();
    const inflate = guest.queue('inflate');
    // Half of its memory, which no target asks for.
    for (let pages = 0; pages < guest.memory.size / 4096 / 2; pages += PFNS_PER_BUFFER) {
      await inflate.exchange({ out: pfnList(FIRST_PAGE + pages, PFNS_PER_BUFFER) });
    }
    expect(lines.some(line => line.includes('config_size=16'))).toBe(!reads);
  } finally {
    guest.close();
  }
});

/** What QEMU says when it makes its generic device, before its guest has a driver. */
async function setUpRings(frontEnd: RawFrontEnd, count: number): Promise<void> {
  frontEnd.say('SET_OWNER');
  await frontEnd.ask('GET_FEATURES');
  const { value } = U64.read(await frontEnd.ask('GET_PROTOCOL_FEATURES'));
  frontEnd.say('SET_PROTOCOL_FEATURES', U64.encode({ value }));
  for (let index = 0; index < count; index++) {
    const call = createEventFd();
    frontEnd.say('SET_VRING_CALL', U64.encode({ value: BigInt(index) }), [call]);
    call.close();
  }
  await frontEnd.ask('GET_FEATURES');
}

test.each([
  [4, true],
  [5, false],
] as const)(
  'a front-end that makes %i rings before there is a driver is told of them: %s',
  async (rings, told) => {
    const frontEnd = new RawFrontEnd(socket, loop);
    try {
      await setUpRings(frontEnd, rings);
      const clock = clockAhead();
      expect(lines.some(line => line.includes('num_vqs'))).toBe(false);
      clock.pass(3000);
      loop.reactor.turn(0);
      expect(lines.some(line => line.includes('num_vqs=5'))).toBe(told);
    } finally {
      vi.restoreAllMocks();
      frontEnd.close();
    }
  },
);

test('statistics that come without end are told of now and then, the last ones too', async () => {
  const startMs = performance.now();
  const guest = await HandGuest.connect(socket, { loop });
  try {
    const stats = guest.queue('stats');
    stats.add({ out: new Uint8Array(10) });
    stats.kick();
    const samples = 400;
    for (let count = 1; count < samples; count++) await stats.exchange({ out: new Uint8Array(10) });
    await loop.turnUntil(() => host.status().counters.statsBuffers === samples);
    // All that was told by now, and what is still to come.
    const intervals = (performance.now() - startMs) / 50;
    expect(told.filter(type => type === 'statistics').length).toBeLessThanOrEqual(intervals + 2);
    const before = told.length;
    await stats.exchange({ out: new Uint8Array(10) });
    await loop.turnUntil(() => told.length > before);
    expect(told.at(-1)).toBe('statistics');
  } finally {
    guest.close();
  }
});

test('an actual that goes to and fro around the target is told of now and then', async () => {
  const startMs = performance.now();
  const guest = await HandGuest.connect(socket, { loop });
  try {
    change(host, { targetBytes: MIB });
    await guest.writeActual(256);
    // At once, when it is there for the first time, and that it is.
    expect(told.slice(-2)).toEqual(['actual', 'target-reached']);
    for (let count = 0; count < 400; count++) await guest.writeActual((count % 2) * 256);
    expect(told.filter(type => type === 'target-reached')).toHaveLength(1);
    const intervals = (performance.now() - startMs) / 50;
    expect(told.filter(type => type === 'actual').length).toBeLessThanOrEqual(intervals + 3);
  } finally {
    guest.close();
  }
});

test('a guest with pages of 64 KiB reaches a target that is no multiple of them', async () => {
  const guest = await HandGuest.connect(socket, { loop });
  try {
    change(host, { targetBytes: MIB + 4096 });
    await guest.writeActual(256);
    expect(told.slice(-2)).toEqual(['actual', 'target-reached']);
    expect(host.status()).toMatchObject({
      targetBytes: MIB + 4096,
      progress: { reachedMs: expect.any(Number) },
    });
  } finally {
    guest.close();
  }
});

/** Statistics, of which tag 6 is what is available. */
function available(bytes: number): Uint8Array {
  const sample = new DataView(new ArrayBuffer(10));
  sample.setUint16(0, 6, true);
  sample.setBigUint64(2, BigInt(bytes), true);
  return new Uint8Array(sample.buffer);
}

describe('a target', () => {
  let guest: HandGuest;

  beforeEach(async () => {
    guest = await HandGuest.connect(socket, { loop });
  });

  afterEach(() => {
    guest.close();
    vi.restoreAllMocks();
  });

  const memoryBytes = () => host.status().memoryBytes ?? 0;

  test('above the memory of the guest is refused, and nothing else changes with it', () => {
    const before = host.status().discard;
    const changes = { targetBytes: memoryBytes() + 4096, discard: 'per-page', force: true } as const;
    expect(() => change(host, changes)).toThrow(/its balloon cannot hold/);
    expect(host.status()).toMatchObject({ targetBytes: 0, discard: before });
  });

  test('above what the guest can spare is refused unless it is forced', async () => {
    // Nothing is known of a guest that sent no statistics; but all of it is too much for any.
    expect(() => change(host, { targetBytes: memoryBytes() })).toThrow(/next to nothing .* --force/);
    const stats = guest.queue('stats');
    stats.add({ out: available(4 * MIB) });
    stats.kick();
    await loop.turnUntil(() => host.status().counters.statsBuffers === 1);
    change(host, { targetBytes: 2 * MIB });
    expect(() => change(host, { targetBytes: 5 * MIB, discard: 'per-page' })).toThrow(/can spare .* --force/);
    expect(host.status()).toMatchObject({ targetBytes: 2 * MIB, discard: 'none' });
    change(host, { targetBytes: 5 * MIB, force: true });
    expect(host.status()).toMatchObject({ targetBytes: 5 * MIB, shownTargetBytes: 5 * MIB });
  });

  test('that the guest cannot hold is lowered for its driver, and tried again later', async () => {
    const clock = clockAhead();
    const wished = 8 * MIB;
    change(host, { targetBytes: wished });
    const low = 1024;
    await guest.writeActual(low);
    for (let turn = 0; turn < SWINGS_MAX; turn++) {
      await guest.writeActual(low + 256);
      await guest.writeActual(low);
    }
    const swinging = host.status();
    expect(swinging).toMatchObject({ targetBytes: wished, stuck: { swings: true } });
    expect(swinging.shownTargetBytes).toBeLessThan(low * 4096);
    expect((await guest.readConfig()).numPages * 4096).toBe(swinging.shownTargetBytes);
    expect(details.get('stuck')).toMatchObject({ targetBytes: wished, swings: true });
    clock.pass(RETRY_MS_MIN + 1000);
    await loop.turnUntil(() => host.status().shownTargetBytes === wished);
    expect((await guest.readConfig()).numPages * 4096).toBe(wished);
  });

  test('to which the guest comes no nearer is stuck, and told to be once', async () => {
    const clock = clockAhead();
    change(host, { targetBytes: 8 * MIB });
    await guest.writeActual(1024);
    expect(host.status().stuck).toBeNull();
    clock.pass(STUCK_MS + 1000);
    await loop.turnUntil(() => told.includes('stuck'));
    expect(host.status().stuck).toMatchObject({ swings: false, retryInMs: null });
    expect(details.get('stuck')).toMatchObject({ actualBytes: 4 * MIB, targetBytes: 8 * MIB });
    clock.pass(10 * STUCK_MS);
    loop.reactor.turn(0);
    await guest.writeActual(1024);
    expect(told.filter(type => type === 'stuck')).toHaveLength(1);
    await guest.writeActual(1300);
    expect(host.status().stuck).toBeNull();
  });
});

/** Another stretch of memory for a guest, which begins at `guestAddress`. */
function moreMemory(guestAddress: number, size: number) {
  const memory = createSharedMemory({ regions: [{ guestAddress, size }] });
  const [region] = memory.regions;
  memory.remove(region);
  return region;
}

test('a target that says what the guest keeps follows memory that is added and removed', async () => {
  const before = 16 * MIB;
  // Before the guest is there as well.
  change(host, { memoryBytes: 48 * MIB });
  expect(host.status()).toMatchObject({ targetBytes: 0, wishedMemoryBytes: 48 * MIB });
  const guest = await HandGuest.connect(socket, { loop });
  try {
    expect(guest.memory.size).toBe(48 * MIB + before);
    expect((await guest.readConfig()).numPages * 4096).toBe(before);
    const region = moreMemory(2 ** 30, 32 * MIB);
    await loop.until(guest.frontend.addRegion(region));
    await loop.turnUntil(() => host.status().targetBytes === before + 32 * MIB);
    expect((await guest.readConfig()).numPages * 4096).toBe(before + 32 * MIB);
    await guest.inflate(2 ** 30 / 4096, 256);
    await loop.until(guest.frontend.removeRegion(region));
    region.close();
    await loop.turnUntil(() => host.status().targetBytes === before);
    expect(host.status()).toMatchObject({
      memoryPlace: 'memory',
      wishedMemoryBytes: 48 * MIB,
      balloonedBytes: 0,
      removedBytes: MIB,
    });
    expect(() => change(host, { memoryBytes: 65 * MIB })).toThrow(/has 64M of memory and cannot keep 65M/);
    expect(() => change(host, { memoryBytes: 32 * MIB, targetBytes: 0 })).toThrow(/name one/);
    expect(() => change(host, { targetBytes: 0, persist: true })).toThrow(/no domain of libvirt/);
    // A target of the balloon's stays where it is.
    change(host, { targetBytes: 4 * MIB });
    await loop.until(guest.frontend.addRegion(moreMemory(2 ** 30, 32 * MIB)));
    await loop.turnUntil(() => host.status().memoryBytes === 96 * MIB);
    expect(host.status()).toMatchObject({ targetBytes: 4 * MIB, wishedMemoryBytes: null });
  } finally {
    guest.close();
  }
});

test('a target from before the guest that is above its memory takes nothing from it, and says so', async () => {
  change(host, { targetBytes: 2 ** 40 });
  const guest = await HandGuest.connect(socket, { loop });
  try {
    expect(host.status()).toMatchObject({ targetBytes: 2 ** 40, shownTargetBytes: 0 });
    expect((await guest.readConfig()).numPages).toBe(0);
    expect(host.status().lastError).toMatch(/target of 1T is not followed: the guest has .* of memory/);
  } finally {
    guest.close();
  }
});

test('status names the features that the driver took, and not all that are offered', async () => {
  const guest = await HandGuest.connect(socket, { loop, without: STATS_VQ });
  try {
    const { features } = host.status();
    expect(features).toContain('must-tell-host');
    expect(features).not.toContain('stats-vq');
  } finally {
    guest.close();
  }
});

test('a target is told as what the device could take of it', async () => {
  change(host, { targetBytes: 2 ** 45 });
  expect(details.get('target')).toEqual({ targetBytes: host.status().targetBytes });
});

test('a sample says what the balloon held then, and lists show how large the pieces are', async () => {
  const guest = await HandGuest.connect(socket, { loop });
  try {
    await guest.inflate(FIRST_PAGE, 64);
    expect(host.status().granularityBytes).toBe(64 * 4096);
    const stats = guest.queue('stats');
    stats.add({ out: new Uint8Array(10) });
    stats.kick();
    await loop.turnUntil(() => host.status().counters.statsBuffers === 1);
    await guest.inflate(FIRST_PAGE + 64, 16);
    expect(host.statistics.sample).toMatchObject({ balloonedBytes: 64 * 4096 });
    expect(host.status()).toMatchObject({ balloonedBytes: 80 * 4096, granularityBytes: 16 * 4096 });
  } finally {
    guest.close();
  }
});

test('unknown requests are one kind of trouble for the log, whatever their numbers', async () => {
  const frontEnd = new RawFrontEnd(socket, loop);
  try {
    await frontEnd.negotiate();
    for (let request = 1000; request < 1100; request++) expect(await frontEnd.accepts(request)).toBe(false);
    expect(lines.filter(line => line.includes('is unknown'))).toHaveLength(1);
    expect(host.status().counters.badRequests).toBe(100);
  } finally {
    frontEnd.close();
  }
});

describe('a hint session', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  test('that is not ended is ended after its limit, and holds memory until then', async () => {
    const clock = clockAhead();
    const guest = await HandGuest.connect(socket, { loop });
    try {
      const { commandId } = host.hints.order('start', 60_000);
      const id = new Uint8Array(new Uint32Array([commandId ?? 0]).buffer);
      await guest.queue('hint').exchange({ out: id });
      await guest.queue('hint').exchange({ in: [[FIRST_PAGE * 4096, MIB]] });
      expect(host.hints.status).toMatchObject({ state: 'running', heldBytes: MIB });
      host.hints.order('stop', 60_000);
      expect(host.hints.status).toMatchObject({ state: 'stopped', heldBytes: MIB });
      expect(host.hints.status.endsInMs).toBeLessThanOrEqual(60_000);
      clock.pass(61_000);
      await loop.turnUntil(() => host.hints.status.state === 'done');
      expect(host.hints.status).toMatchObject({ heldBytes: 0, endsInMs: null });
      expect((await guest.readConfig()).freePageHintCommandId).toBe(1);
      expect(lines.at(-1)).toMatch(/was ended by the daemon/);
    } finally {
      guest.close();
    }
  });

  test('of a migration is not ended by the limit of the one before', async () => {
    const clock = clockAhead();
    const guest = await HandGuest.connect(socket, { loop });
    try {
      host.hints.order('start', 1000);
      const id = host.device.hints.begin();
      clock.pass(2000);
      for (let turn = 0; turn < 5; turn++) loop.reactor.turn(0);
      expect(host.hints.status).toMatchObject({ commandId: id, state: 'requested', endsInMs: null });
    } finally {
      guest.close();
    }
  });
});

test('the first hint session of a daemon has an id that the one before it did not use', () => {
  const first = host.device.hints.begin();
  expect(first).toBeGreaterThanOrEqual(HINT_ID_MIN);
  // One in a thousand million would be bad luck.
  expect(first).not.toBe(HINT_ID_MIN);
  expect(host.device.hints.begin()).toBe(first + 1);
});

test('a silent policy’s target stays or is released as its order says, and is told of', async () => {
  const clock = clockAhead();
  try {
    for (const [onSilence, left] of [
      ['keep', 8 * MIB],
      ['release', 0],
    ] as const) {
      told.length = 0;
      guestOperations.change(host, { targetBytes: 8 * MIB, lease: { forMs: 60_000, onSilence } });
      expect(host.status().targetOwner).toMatchObject({ by: 'policy', lapsed: false });
      clock.pass(61_000);
      await loop.turnUntil(() => told.includes('policy'));
      expect(host.status()).toMatchObject({ targetBytes: left, targetOwner: { by: 'policy', lapsed: true } });
      expect(details.get('policy')).toEqual({ silent: true, released: onSilence === 'release' });
      clock.pass(1000);
      loop.reactor.turn(0);
    }
  } finally {
    vi.restoreAllMocks();
  }
});

test('a target that follows the guest’s memory stays the policy’s whose order it was', async () => {
  change(host, { memoryBytes: 48 * MIB, lease: { forMs: 60_000, onSilence: 'keep' } });
  const guest = await HandGuest.connect(socket, { loop });
  try {
    expect(host.status()).toMatchObject({ targetBytes: 16 * MIB, targetOwner: { by: 'policy' } });
    await loop.until(guest.frontend.addRegion(moreMemory(2 ** 30, 32 * MIB)));
    await loop.turnUntil(() => host.status().targetBytes === 48 * MIB);
    expect(host.status().targetOwner).toMatchObject({ by: 'policy', lapsed: false });
    change(host, { memoryBytes: 64 * MIB });
    expect(host.status().targetOwner).toMatchObject({ by: 'person' });
  } finally {
    guest.close();
  }
});

test('a lease is of a target', () => {
  expect(() => guestOperations.change(host, { lease: { forMs: 1, onSilence: 'keep' } })).toThrow(
    'name the target',
  );
});
