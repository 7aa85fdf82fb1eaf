/**
 * Our front-end and driver-side queue against a back-end of another project: qemu-storage-daemon exports
 * a file as a block device, and we read and write its sectors (VIRTIO 1.4, 5.2).
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { ProcessGroup } from '../../src/peers/process-group.ts';
import { missingPrograms, requireProgram } from '../../src/peers/programs.ts';
import { SystemError } from '../../src/sys/error.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { struct } from '../../src/sys/struct.ts';
import {
  FRONTEND_PROTOCOL_FEATURES,
  type FrontendOptions,
  VhostUserFrontend,
} from '../../src/vhost-user/frontend-session.ts';
import { PROTOCOL_FEATURE } from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { createDriverQueue } from '../../src/virtio/create.ts';
import {
  hasFeature,
  RING_EVENT_IDX,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../../src/virtio/features.ts';
import type { DriverQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS } from '../../src/virtio/transport.ts';
import { TestLoop } from '../support/loop.ts';
import { describePeer } from '../support/peers.ts';

const MIB = 2 ** 20;
const SECTOR = 512;
const DISK_SECTORS = 2048;
const REQUEST_IN = 0;
const REQUEST_OUT = 1;
const STATUS_OK = 0;

const REQUEST = struct('virtio_blk_req', 16, { type: ['u32', 0], sector: ['u64', 8] });

const QUEUE_SIZE = 64;
const DESCRIPTOR_AREA = 0x1000;
const DRIVER_AREA = 0x3000;
const DEVICE_AREA = 0x4000;
const REQUESTS = 0x8000;
/** Above 4 GiB, in a region of its own, so that translation has something to do. */
const DATA = 2 ** 32 + 0x10_0000;

const missing = missingPrograms('qemu-storage-daemon');

describePeer('a front-end of qemu-storage-daemon', missing, () => {
  let directory: string;
  let daemon: ProcessGroup | undefined;
  let loop: TestLoop;
  let memory: GuestMemory;
  let openBefore: number;
  const disk = Uint8Array.from({ length: DISK_SECTORS * SECTOR }, (_, i) => (i * 31 + (i >>> 9)) & 0xff);

  const socketPath = () => join(directory, 'disk.sock');
  const imagePath = () => join(directory, 'disk.img');

  beforeEach(() => {
    openBefore = openDescriptorCount();
    directory = mkdtempSync(join(tmpdir(), 'aerostat-storage-'));
    writeFileSync(imagePath(), disk);
    loop = new TestLoop();
    memory = createSharedMemory({
      regions: [
        { guestAddress: 0, size: 4 * MIB },
        { guestAddress: 2 ** 32, size: 4 * MIB },
      ],
    });
  });

  afterEach(async () => {
    await stopDaemon();
    memory.close();
    loop.close();
    rmSync(directory, { recursive: true, force: true });
    expect(openDescriptorCount()).toBe(openBefore);
  });

  async function startDaemon(): Promise<void> {
    daemon = await ProcessGroup.start(
      requireProgram('qemu-storage-daemon'),
      [
        ...['--blockdev', `driver=file,node-name=disk,filename=${imagePath()}`],
        ...[
          '--export',
          `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socketPath()},writable=on,num-queues=2`,
        ],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
  }

  async function stopDaemon(): Promise<void> {
    const stopping = daemon;
    daemon = undefined;
    stopping?.kill();
    await stopping?.exited;
  }

  /** The socket appears a moment after the process. */
  async function connect(options: Partial<FrontendOptions> = {}): Promise<VhostUserFrontend> {
    for (;;) {
      try {
        return await loop.until(
          VhostUserFrontend.connect(socketPath(), { reactor: loop.reactor, memory, ...options }),
        );
      } catch (error) {
        if (!(error instanceof SystemError) || daemon?.ended !== false) throw error;
      }
      await loop.settle();
    }
  }

  /** The steps of 3.1.1, with one queue. */
  async function start(frontend: VhostUserFrontend, wanted: bigint): Promise<DriverQueue> {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;
    await loop.until(frontend.reset());
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER));
    const features = (await loop.until(frontend.getFeatures())) & wanted;
    await loop.until(frontend.setFeatures(features));
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK));
    const config: QueueConfig = {
      size: QUEUE_SIZE,
      descriptorArea: DESCRIPTOR_AREA,
      driverArea: DRIVER_AREA,
      deviceArea: DEVICE_AREA,
      features,
    };
    const queue = createDriverQueue(config);
    queue.initialize(memory);
    await loop.until(frontend.enableQueue(0, config));
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK));
    return queue;
  }

  /** Offers a request; header and status byte lie at a place of their own for each token. */
  function offer(queue: DriverQueue, token: number, type: number, sector: number, length: number): void {
    const header = REQUESTS + token * 32;
    memory.write(header, REQUEST.encode({ type, sector }));
    memory.fill(header + REQUEST.size, 0xff, 1);
    const list = new SegmentList();
    list.addReadable(header, REQUEST.size);
    if (type === REQUEST_OUT) list.addReadable(dataOf(token), length);
    else list.addWritable(dataOf(token), length);
    list.addWritable(header + REQUEST.size, 1);
    expect(queue.addBuffer(memory, list, token)).toBe(true);
  }

  const dataOf = (token: number): number => DATA + token * 8192;

  /** Publishes, kicks, and takes `count` buffers back, by interrupt. */
  async function complete(frontend: VhostUserFrontend, queue: DriverQueue, count: number): Promise<number[]> {
    const used = { token: 0, written: 0 };
    const tokens: number[] = [];
    const take = () => {
      do {
        while (queue.popUsed(memory, used)) tokens.push(used.token);
      } while (queue.requestInterrupts(memory));
    };
    const stopListening = frontend.onInterrupt(take);
    if (queue.publish(memory)) frontend.kick(0);
    take();
    await loop.turnUntil(() => tokens.length >= count);
    stopListening();
    for (const token of tokens)
      expect(memory.u16(REQUESTS + token * 32 + REQUEST.size) & 0xff).toBe(STATUS_OK);
    return tokens;
  }

  function dataAt(token: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    memory.read(dataOf(token), bytes, 0, length);
    return bytes;
  }

  async function readsSectors(frontend: VhostUserFrontend, queue: DriverQueue): Promise<void> {
    // More requests than the ring has room for at once, so that indices wrap more than once.
    for (let round = 0; round < 16; round++) {
      for (let token = 0; token < 16; token++) {
        offer(queue, token, REQUEST_IN, (round * 16 + token) * 8, 4096);
      }
      const tokens = await complete(frontend, queue, 16);
      expect(tokens.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => i));
      for (let token = 0; token < 16; token++) {
        const from = (round * 16 + token) * 4096;
        expect(Buffer.compare(dataAt(token, 4096), disk.subarray(from, from + 4096))).toBe(0);
      }
    }
  }

  const ringKinds: [string, bigint][] = [
    ['a split ring', 0n],
    ['a split ring with event indices', RING_EVENT_IDX],
    ['a split ring with all that is offered', RING_EVENT_IDX | RING_INDIRECT_DESC],
    ['a packed ring', RING_PACKED],
  ];

  it.for(ringKinds)('reads its sectors over %s', async ([, wanted], { skip }) => {
    await startDaemon();
    const frontend = await connect();
    const offered = await loop.until(frontend.getFeatures());
    if (hasFeature(wanted, RING_PACKED) && !hasFeature(offered, RING_PACKED)) {
      frontend.close();
      skip('qemu-storage-daemon offers no packed rings');
    }
    const queue = await start(frontend, VERSION_1 | wanted);
    await readsSectors(frontend, queue);
    frontend.close();
  });

  it('reads the capacity and writes a sector', async () => {
    await startDaemon();
    const frontend = await connect();
    expect(await loop.until(frontend.queueSizeMax(1))).toBeGreaterThan(0);
    expect(await loop.until(frontend.queueSizeMax(2))).toBe(0);
    const config = await loop.until(frontend.readConfig(0, 8));
    expect(new DataView(config.buffer, config.byteOffset).getBigUint64(0, true)).toBe(BigInt(DISK_SECTORS));

    const queue = await start(frontend, VERSION_1);
    const bytes = Uint8Array.from({ length: SECTOR }, (_, i) => 255 - (i & 0xff));
    memory.write(dataOf(0), bytes);
    offer(queue, 0, REQUEST_OUT, 7, SECTOR);
    await complete(frontend, queue, 1);
    frontend.close();
    await stopDaemon();
    expect(new Uint8Array(readFileSync(imagePath())).subarray(7 * SECTOR, 8 * SECTOR)).toEqual(bytes);
  });

  it('pauses and goes on, and starts over after a reset', async () => {
    await startDaemon();
    const frontend = await connect();
    const queue = await start(frontend, VERSION_1 | RING_EVENT_IDX);
    await readsSectors(frontend, queue);
    await loop.until(frontend.pause());
    await loop.until(frontend.resume());
    await readsSectors(frontend, queue);
    await readsSectors(frontend, await start(frontend, VERSION_1));
    frontend.close();
  });

  it('goes on with another daemon after the first was killed', async () => {
    await startDaemon();
    const frontend = await connect({ reconnects: true });
    const queue = await start(frontend, VERSION_1 | RING_EVENT_IDX);
    await readsSectors(frontend, queue);
    let lost: Error | undefined;
    frontend.onDisconnect(reason => {
      lost = reason;
    });
    await stopDaemon();
    await loop.turnUntil(() => lost !== undefined);
    expect(frontend.connected).toBe(false);
    // What the driver asks for while no back-end is there is done by the next one.
    offer(queue, 0, REQUEST_IN, 5, SECTOR);
    queue.publish(memory);
    frontend.kick(0);

    rmSync(socketPath(), { force: true });
    await startDaemon();
    for (;;) {
      try {
        await loop.until(frontend.reconnect(socketPath()));
        break;
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        await loop.settle();
      }
    }
    await complete(frontend, queue, 1);
    expect(dataAt(0, SECTOR)).toEqual(disk.slice(5 * SECTOR, 6 * SECTOR));
    await readsSectors(frontend, queue);
    frontend.close();
  });

  it.each([
    ['one table instead of slots', FRONTEND_PROTOCOL_FEATURES & ~PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS],
    ['no acknowledgements', FRONTEND_PROTOCOL_FEATURES & ~PROTOCOL_FEATURE.REPLY_ACK],
  ])('gets along with %s', async (_, protocolFeatures) => {
    await startDaemon();
    const frontend = await connect({ protocolFeatures });
    await readsSectors(frontend, await start(frontend, VERSION_1));
    frontend.close();
  });
});
