/** A hosted guest whose host dies, over real sockets and a real keeper: another host goes on, and the front-end notices nothing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MUST_TELL_HOST } from '../../src/balloon/features.ts';
import { GuestHost } from '../../src/hosting/guest-host.ts';
import { abandonGuest, leaveGuest } from '../../src/hosting/guest-leaving.ts';
import type { GuestOptions } from '../../src/hosting/options.ts';
import { ThreadTurns } from '../../src/hosting/thread-turns.ts';
import { DescriptorStore, restoredDescriptors, StoreRoom } from '../../src/keeping/descriptor-store.ts';
import { GUEST, GUEST_VERSION } from '../../src/keeping/guest-file.ts';
import { Keeper } from '../../src/keeping/keeper.ts';
import { connectToKeeper, type KeeperLink, type KeptDescriptors } from '../../src/keeping/keeper-link.ts';
import { FILE_NUMBER } from '../../src/keeping/kept-guest.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, createEventFd, OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd, readAt, sealAgainstShrinking, writeAt } from '../../src/sys/file.ts';
import { Mapping } from '../../src/sys/mapping.ts';
import type { Reactor, Watch } from '../../src/sys/poll.ts';
import { connectToServiceManager } from '../../src/sys/service-manager.ts';
import { UnixListener, UnixSocket } from '../../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import {
  F_LOG_ALL,
  F_PROTOCOL_FEATURES,
  LOG_AREA,
  PROTOCOL_FEATURE,
  VRING_STATE,
} from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { IN_ORDER, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { initialState } from '../../src/virtio/queue.ts';
import { stateToVringBase } from '../../src/virtio/vring-base.ts';
import { FIRST_PAGE, HandGuest, pfnList } from '../daemon/hand-guest.ts';
import { RawFrontEnd } from '../daemon/raw-front-end.ts';
import { TestLoop } from '../support/loop.ts';
import { ServiceManager } from '../support/service-manager.ts';
import { payloads, TestRing } from '../vhost-user/conversation.ts';

function mapped(file: OwnedFd): { buffer: Mapping['buffer']; close: () => void } {
  const mapping = Mapping.shared(file.number, 0, PAGE_SIZE);
  return {
    buffer: mapping.buffer,
    close: () => {
      mapping.close();
      file.close();
    },
  };
}

const OPTIONS: GuestOptions = {
  name: 'g',
  fd: 0,
  targetBytes: 0,
  profile: 'virtio',
  discard: 'auto',
  without: [],
  pollIntervalMs: 0,
};

let loop: TestLoop;
let directory: string;
let keeper: Keeper;
let keeperPath: string;
let warnings: string[];
let links: (KeeperLink | DescriptorStore)[];
/** Keeps guests in place of the keeper, where there is one. */
let manager: ServiceManager | undefined;
let guests: HandGuest[];
let processes: Process[];
let listeners: number;

const listener = (): number => UnixListener.bind(join(directory, `listener${listeners++}.sock`)).fd.release();

beforeEach(() => {
  loop = new TestLoop();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  [warnings, links, guests, processes, listeners] = [[], [], [], [], 0];
  keeperPath = join(directory, 'keeper.sock');
  keeper = new Keeper(UnixListener.bind(keeperPath), loop.reactor, message => warnings.push(message));
});

afterEach(() => {
  for (const guest of guests) guest.close();
  for (const link of links) link.close();
  keeper.close();
  manager?.close();
  manager = undefined;
  loop.close();
  rmSync(directory, { recursive: true, force: true });
});

async function takeKept(): Promise<{ link: KeeperLink | DescriptorStore; kept: KeptDescriptors }> {
  const warn = (message: string) => void warnings.push(message);
  if (manager === undefined) return loop.until(connectToKeeper(keeperPath, warn));
  manager.serve();
  const socket = connectToServiceManager({ NOTIFY_SOCKET: manager.path })!;
  return {
    link: new DescriptorStore(socket, StoreRoom.of(manager.environment()), {
      warn,
      later: (delayMs, run, fd) =>
        loop.reactor.waitForRoom(
          delayMs,
          () => {
            run();
            // As the thread does.
            for (const { host } of processes) host.progress();
          },
          fd,
        ),
    }),
    kept: restoredDescriptors(manager.stored.map(({ name, fd }) => [name, fd.duplicate()])),
  };
}

/** A process that hosts guest `g`, and can be killed. */
class Process {
  readonly host: GuestHost;
  readonly #link: KeeperLink | DescriptorStore;
  readonly #watches: Watch[] = [];
  readonly #discards = new MessageChannel();

  private constructor(
    link: KeeperLink | DescriptorStore,
    socket: ConstructorParameters<typeof GuestHost>[1],
    options: GuestOptions,
  ) {
    this.#link = link;
    links.push(link);
    processes.push(this);
    const reactor = {
      watch: (...args: Parameters<Reactor['watch']>) => {
        const watch = loop.reactor.watch(...args);
        this.#watches.push(watch);
        return watch;
      },
      schedule: (...args: Parameters<Reactor['schedule']>) => loop.reactor.schedule(...args),
    } as unknown as Reactor;
    const control = new SharedArrayBuffer(CONTROL_WORDS * 4);
    this.host = new GuestHost(options, socket, {
      reactor,
      turns: new ThreadTurns(),
      discards: new DiscardLink(control, this.#discards.port1, loop.reactor.wakeFd.number),
      keeper: link,
      emit: () => {},
      log: (_, level, message) => {
        if (level === 'warn') warnings.push(message);
      },
    });
  }

  get link(): KeeperLink | DescriptorStore {
    return this.#link;
  }

  /** `socket`: of a front-end that comes now. */
  static async start(socket?: UnixSocket, options = OPTIONS): Promise<Process> {
    const { link, kept: all } = await takeKept();
    const kept = [...(all.get('g') ?? [])].map(([number, fd]) => [number, fd.release()] as const);
    const listening = socket === undefined;
    return new Process(link, { fd: socket?.fd.release() ?? listener(), listening, kept }, options);
  }

  /** One that takes the place of another, which hands over what it has of the guest. */
  static after(other: Process, kept: readonly (readonly [number, number])[]): Process {
    return new Process(other.#link, { fd: listener(), listening: true, kept, handedOver: true }, OPTIONS);
  }

  /** It does nothing any more, and the kernel closes its connection to the keeper. */
  async kill(): Promise<void> {
    processes = processes.filter(other => other !== this);
    for (const watch of this.#watches) watch.stop();
    this.#link.close();
    this.#discards.port1.close();
    await loop.settle();
  }
}

async function connected(
  ringFeatures?: bigint,
  keepsInflight = false,
): Promise<{ process: Process; guest: HandGuest }> {
  const [ours, theirs] = UnixSocket.pair();
  const process = await Process.start(ours);
  const guest = await HandGuest.connect(theirs, {
    loop,
    keepsInflight,
    ...(ringFeatures === undefined ? {} : { ringFeatures, queueSize: 8 }),
  });
  guests.push(guest);
  return { process, guest };
}

describe('a host whose guests a service manager keeps', () => {
  let serving: NodeJS.Timeout;

  beforeEach(() => {
    manager = new ServiceManager(join(directory, 'notify.sock'));
    serving = setInterval(() => manager?.serve(), 1);
  });

  afterEach(() => clearInterval(serving));

  /** From now on the manager takes nothing by itself, and its socket is full. Returns what fills it. */
  function filled({ link }: Process): OwnedFd[] {
    clearInterval(serving);
    const bells: OwnedFd[] = [];
    while (link.hasAll) {
      bells.push(createEventFd());
      link.of('other').keep(bells.length, bells[bells.length - 1]);
    }
    return bells;
  }

  /** The manager has read all that it was told. */
  async function storedOf({ link }: Process): Promise<void> {
    await loop.turnUntil(() => {
      manager!.serve();
      return link.hasAll;
    });
    manager!.serve();
  }

  const onlyTheFileStays = () =>
    loop.turnUntil(() => {
      manager!.serve();
      return manager!.names.join() === 'g/0';
    });

  test('is followed by one that knows the balloon, and no more is stored than is needed', async () => {
    const { process: first, guest } = await connected();
    await guest.inflate(FIRST_PAGE, 300);
    await storedOf(first);
    await first.kill();
    const second = await Process.start();
    expect(warnings).toEqual([]);
    await guest.deflate(FIRST_PAGE, 100);
    await storedOf(second);
    await second.kill();
    const { host } = await Process.start();
    await guest.inflate(FIRST_PAGE + 400, 10);
    expect(host.device.accounts.balloonedPages).toBe(210);
    expect(guest.frontend.connected).toBe(true);
    expect(manager!.suppressed).toBe(0);
    expect(warnings).toEqual([]);
    guest.close();
    guests.length = 0;
    await loop.turnUntil(() => !host.connected);
    await onlyTheFileStays();
  });

  test('that was killed before all was stored is followed by one that names it, and the memory is not touched', async () => {
    const { process, guest } = await connected();
    guest.touch(FIRST_PAGE, 4, 0x5a);
    await guest.inflate(FIRST_PAGE + 100, 10);
    await storedOf(process);
    await process.kill();
    // One that never came there.
    const at = manager!.stored.findIndex(({ name }) => name === 'g/2');
    manager!.stored.splice(at, 1)[0].fd.close();
    const { host } = await Process.start();
    expect(host.connected).toBe(false);
    expect(warnings).toEqual([expect.stringContaining('has not got descriptor 2')]);
    expect(guest.memory.u32(FIRST_PAGE * PAGE_SIZE)).toBe(0x5a5a5a5a);
    await onlyTheFileStays();
  });

  test('leaves a message in the socket until its descriptors are stored, and is killed meanwhile: nothing is lost (failed before: its front-end had to connect again)', async () => {
    const { process, guest } = await connected();
    await guest.inflate(FIRST_PAGE, 10);
    await storedOf(process);
    const bells = filled(process);
    const size = 4 * 2 ** 20;
    const { memoryBytes } = process.host.status();
    const [region] = createSharedMemory({ regions: [{ guestAddress: 2 ** 32, size }] }).regions;
    const added = guest.frontend.addRegion(region);
    await loop.settle();
    expect(process.host.status().memoryBytes).toBe(memoryBytes);
    await process.kill();
    const { host } = await Process.start();
    await loop.until(added);
    expect(warnings).toEqual([]);
    expect(host.status().memoryBytes).toBe(memoryBytes! + size);
    await guest.deflate(FIRST_PAGE, 3);
    expect(host.device.accounts.balloonedPages).toBe(7);
    closeAll(bells);
  });

  test('does not hand one over of which something is still to be stored', async () => {
    const { process, guest } = await connected();
    const bells = filled(process);
    await expect(leaveGuest(process.host)).rejects.toThrow(/has not taken all that is to be stored/);
    await guest.inflate(FIRST_PAGE, 3);
    expect(process.host.device.accounts.balloonedPages).toBe(3);
    await storedOf(process);
    const kept = await loop.until(leaveGuest(process.host));
    const { host } = Process.after(process, kept);
    abandonGuest(process.host);
    await guest.deflate(FIRST_PAGE, 1);
    expect(host.device.accounts.balloonedPages).toBe(2);
    closeAll(bells);
  });
});

describe('a host that hands its guest over', () => {
  test('is followed by one that goes on, and does nothing more to the guest', async () => {
    const { process, guest } = await connected();
    await guest.inflate(FIRST_PAGE, 300);
    process.host.target.set(777 * PAGE_SIZE);
    const kept = await loop.until(leaveGuest(process.host));
    const { host } = Process.after(process, kept);
    abandonGuest(process.host);
    await guest.deflate(FIRST_PAGE + 100, 100);
    await guest.inflate(FIRST_PAGE + 400, 10);
    await guest.writeActual(210);
    expect(host.status()).toMatchObject({
      connected: true,
      balloonedBytes: 210 * PAGE_SIZE,
      actualBytes: 210 * PAGE_SIZE,
      targetBytes: 777 * PAGE_SIZE,
    });
    expect(process.host.device.counters.kicks).toBeLessThan(host.device.counters.kicks + 3);
    expect(guest.frontend.connected).toBe(true);
    expect(warnings).toEqual([]);
  });

  test('has the guest back where the other cannot go on with it, and nothing of it was changed', async () => {
    const { process, guest } = await connected();
    await guest.inflate(FIRST_PAGE, 300);
    const kept = await loop.until(leaveGuest(process.host));
    const file = new OwnedFd(kept.find(([number]) => number === FILE_NUMBER)![1]).duplicate();
    const { buffer, close } = mapped(file);
    const version = new DataView(buffer).getUint32(GUEST.offset.version, true);
    new DataView(buffer).setUint32(GUEST.offset.version, version + 1, true);
    const again = kept.map(([number, fd]) => [number, new OwnedFd(fd).duplicate().release()] as const);
    expect(() => Process.after(process, kept)).toThrow(/its state has version/);
    new DataView(buffer).setUint32(GUEST.offset.version, version, true);
    close();
    abandonGuest(process.host);
    const { host } = Process.after(process, again);
    await guest.deflate(FIRST_PAGE + 100, 100);
    expect(host.device.accounts.balloonedPages).toBe(200);
    expect(guest.frontend.connected).toBe(true);
  });
});

describe('a host that dies', () => {
  test('is followed by one that knows the balloon and how it is steered', async () => {
    const { process, guest } = await connected();
    await guest.inflate(FIRST_PAGE, 300);
    await guest.writeActual(300);
    process.host.target.set(777 * PAGE_SIZE);
    process.host.keeping?.guest.noteDevice();
    await process.kill();
    const { host } = await Process.start();
    expect(host.status()).toMatchObject({
      connected: true,
      balloonedBytes: 300 * PAGE_SIZE,
      actualBytes: 300 * PAGE_SIZE,
      targetBytes: 777 * PAGE_SIZE,
    });
    await guest.deflate(FIRST_PAGE + 100, 100);
    await guest.inflate(FIRST_PAGE + 400, 10);
    expect(host.device.accounts.balloonedPages).toBe(210);
    expect(host.device.counters.badPages).toBe(0);
    expect((await guest.readConfig()).numPages).toBe(777);
    expect(guest.frontend.connected).toBe(true);
    expect(warnings).toEqual([]);
  });

  test.each([
    ['in any order', 0n],
    ['in order', IN_ORDER],
  ])(
    'is followed on packed rings, %s, that have gone round (failed before: none were offered)',
    async (_, order) => {
      const rings = await connected(RING_PACKED | order);
      const { guest } = rings;
      let { process } = rings;
      for (let round = 0; round < 3; round++) {
        const first = FIRST_PAGE + round * 3000;
        await guest.inflate(first, 130 * 20 + round);
        await guest.deflate(first + 10, 5);
        await process.kill();
        process = await Process.start();
      }
      await guest.inflate(FIRST_PAGE + 10, 5);
      expect(process.host.device.accounts.balloonedPages).toBe(3 * 130 * 20 + 3 - 10);
      expect(process.host.device.counters.badBuffers).toBe(0);
      expect(guest.frontend.connected).toBe(true);
    },
  );

  test.each([
    ['split', 0n],
    ['packed', RING_PACKED],
    ['in-order', RING_PACKED | IN_ORDER],
  ])(
    'is followed by one that notes on in memory of the front-end what is in flight, and by one that knows of that alone: %s rings (failed before: no such memory was offered)',
    async (_, rings) => {
      const session = await connected(rings, true);
      const { guest } = session;
      let { process } = session;
      const { frontend } = guest;
      expect(frontend.protocolFeatures & PROTOCOL_FEATURE.INFLIGHT_SHMFD).not.toBe(0n);
      const offer = (role: 'inflate' | 'deflate', first: number, buffers: number) => {
        for (let at = 0; at < buffers; at++) {
          expect(guest.queue(role).add({ out: pfnList(first + at * 10, 10) })).toBe(true);
        }
        guest.queue(role).kick();
      };
      // Rings go round meanwhile, and stand at an odd place.
      await guest.inflate(FIRST_PAGE, 256 * 21);
      await process.kill();
      offer('deflate', FIRST_PAGE, 3);
      process = await Process.start();
      await guest.queue('deflate').returned(3);
      expect(process.host.device.accounts.balloonedPages).toBe(256 * 21 - 30);
      expect(frontend.connected).toBe(true);

      // This one goes with what it was kept by: its front-end has what is in flight, and nothing else has.
      await process.kill();
      offer('deflate', FIRST_PAGE + 30, 2);
      offer('inflate', FIRST_PAGE + 6000, 2);
      keeper.close();
      keeper = new Keeper(UnixListener.bind(join(directory, 'keeper2.sock')), loop.reactor, message =>
        warnings.push(message),
      );
      keeperPath = join(directory, 'keeper2.sock');
      const [ours, theirs] = UnixSocket.pair();
      process = await Process.start(ours);
      await loop.until(frontend.reconnect(theirs));
      await guest.queue('deflate').returned(2);
      await guest.queue('inflate').returned(2);
      const { device } = process.host;
      expect(device.accounts.balloonedPages).toBe(20);
      // Once each, and what it never saw given is no nonsense.
      expect(device.counters).toMatchObject({ badPages: 0, badBuffers: 0, unknownPages: 20 });

      // And so on: it is kept, too.
      await process.kill();
      offer('deflate', FIRST_PAGE + 6000, 1);
      process = await Process.start();
      await guest.queue('deflate').returned(1);
      expect(process.host.device.accounts.balloonedPages).toBe(10);
      expect(guest.brokenRings).toEqual([]);
      expect(warnings.filter(warning => warning.includes('not taken over'))).toEqual([]);
    },
  );

  test('has what came while there was none served by the next', async () => {
    const { process, guest } = await connected();
    await process.kill();
    guest.queue('inflate').add({ out: new Uint8Array(new Uint32Array([FIRST_PAGE]).buffer) });
    guest.queue('inflate').kick();
    const config = guest.readConfig();
    const { host } = await Process.start();
    await config;
    await guest.queue('inflate').returned(1);
    expect(host.device.accounts.balloonedPages).toBe(1);
  });

  test.each([
    ['split', 0n, 'deviceArea'],
    ['packed', RING_PACKED, 'descriptorArea'],
  ] as const)(
    'while its front-end moves the guest is followed by one that logs what it writes into a %s ring (failed before: no log was offered)',
    async (_, rings, written) => {
      const [ours, theirs] = UnixSocket.pair();
      const process = await Process.start(ours);
      const frontEnd = new RawFrontEnd(theirs, loop);
      // Buffers return before their pages are discarded, which nothing here does.
      const features = VERSION_1 | MUST_TELL_HOST | rings;
      await frontEnd.negotiate(features);
      await frontEnd.handOver();
      const ring = new TestRing(frontEnd.memory, 0, features);
      const state = (num: number) => VRING_STATE.encode({ index: 0, num });
      frontEnd.say('SET_VRING_NUM', state(ring.config.size));
      frontEnd.say('SET_VRING_BASE', state(stateToVringBase(features, initialState(features))));
      frontEnd.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
      frontEnd.say('SET_VRING_KICK', payloads.u64(0), [ring.kick]);
      const log = createMemfd({ name: 'vhost-log', size: PAGE_SIZE });
      // No thread is there that would seal it.
      sealAgainstShrinking(log);
      const area = LOG_AREA.encode({ size: PAGE_SIZE, offset: 0 });
      expect(await frontEnd.accepts('SET_LOG_BASE', area, [log])).toBe(true);
      const all = payloads.u64(features | F_PROTOCOL_FEATURES | F_LOG_ALL);
      expect(await frontEnd.accepts('SET_FEATURES', all)).toBe(true);
      expect(await frontEnd.accepts('SET_VRING_ENABLE', state(1))).toBe(true);
      await process.kill();
      const next = await Process.start();
      writeAt(log, 0, new Uint8Array(PAGE_SIZE), 0, PAGE_SIZE);
      ring.offer();
      ring.ringKick();
      await loop.turnUntil(() => ring.collect() === 1);
      const bytes = new Uint8Array(PAGE_SIZE);
      readAt(log, 0, bytes, 0, PAGE_SIZE);
      const page = ring.config[written] / PAGE_SIZE;
      expect((bytes[page >> 3] >> (page & 7)) & 1).toBe(1);
      expect(next.host.status().counters.badRequests).toBe(0);
      log.close();
      ring.close();
      frontEnd.close();
    },
  );

  test('may die before the front-end has said all that it has to say', async () => {
    const [ours, theirs] = UnixSocket.pair();
    let process = await Process.start(ours);
    const guest = HandGuest.connect(theirs, { loop });
    for (let kills = 0; kills < 3; kills++) {
      await process.kill();
      process = await Process.start();
    }
    guests.push(await guest);
    await guests[0].inflate(FIRST_PAGE, 5);
    expect(process.host.device.accounts.balloonedPages).toBe(5);
  });

  test('leaves nothing with the keeper when the front-end goes, but for the guest', async () => {
    const { guest } = await connected();
    expect(keeper.size).toBeGreaterThan(5);
    guest.close();
    guests = [];
    await loop.turnUntil(() => keeper.size === 1);
  });
});

describe('a guest is not taken over', () => {
  async function restarted(options = OPTIONS): Promise<GuestHost> {
    const { host } = await Process.start(undefined, options);
    await loop.settle();
    return host;
  }

  test('that was kept by a daemon of another version, and its memory is not touched', async () => {
    const { process, guest } = await connected();
    guest.touch(FIRST_PAGE, 4, 0x5a);
    await process.kill();
    const path = join(directory, 'keeper.sock');
    const { link, kept } = await loop.until(connectToKeeper(path, () => {}));
    const file = Mapping.shared(kept.get('g')!.get(0)!.number, 0, PAGE_SIZE);
    new DataView(file.buffer).setUint32(GUEST.offset.version, 99, true);
    link.close();
    for (const fd of kept.get('g')!.values()) fd.close();
    await loop.settle();
    expect((await restarted()).connected).toBe(false);
    expect(warnings.join('\n')).toContain(
      `its state has version 99, and this daemon reads versions 1 to ${GUEST_VERSION}`,
    );
    expect(guest.memory.u32(FIRST_PAGE * PAGE_SIZE)).toBe(0x5a5a5a5a);
  });

  test('that is offered another profile now', async () => {
    const { process } = await connected();
    await process.kill();
    expect((await restarted({ ...OPTIONS, profile: 'sg' })).connected).toBe(false);
    expect(warnings.join('\n')).toContain('it speaks profile virtio, and this daemon offers it sg');
  });
});
