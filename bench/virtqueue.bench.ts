/**
 * What a virtqueue costs a buffer, by kind of ring: the device's part (pop, pushUsed, publish), and both sides. The
 * baseline, in the same run, is a bare loop over typed arrays that loads and stores what a split ring cannot do
 * without. Prints a table.
 */
import { Bench } from 'tinybench';
import type { BenchRow, Measured } from '../src/bench/report.ts';
import { FileBacking } from '../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { createMemfd } from '../src/sys/file.ts';
import { DescriptorChain, SegmentList } from '../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../src/virtio/create.ts';
import {
  IN_ORDER,
  RING_EVENT_IDX,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../src/virtio/features.ts';
import { NO_PEER, runAsProgram, spreadOfTask } from './micro.ts';

const MEMORY_BYTES = 2 ** 24;
/** Where a guest with more than 3 GiB has most of its memory: addresses above 2^31 are the slower ones. */
const MEMORY_START = 2 ** 32;
const SIZE = 256;
const BATCH = 64;
const SEGMENT_BYTES = 1024;
/** Every ring has a part of memory for itself. */
const AREA_BYTES = 2 ** 20;

const KINDS = [
  { name: 'split', features: 0n, segments: 1, indirect: false },
  { name: 'split, event indices', features: RING_EVENT_IDX, segments: 1, indirect: false },
  {
    name: 'split, event indices, in order',
    features: RING_EVENT_IDX | IN_ORDER,
    segments: 1,
    indirect: false,
  },
  { name: 'split, 4 segments', features: RING_EVENT_IDX, segments: 4, indirect: false },
  { name: 'split, indirect, 4 segments', features: RING_INDIRECT_DESC, segments: 4, indirect: true },
  { name: 'packed', features: RING_PACKED, segments: 1, indirect: false },
  { name: 'packed, event indices', features: RING_PACKED | RING_EVENT_IDX, segments: 1, indirect: false },
  { name: 'packed, 4 segments', features: RING_PACKED, segments: 4, indirect: false },
  {
    name: 'packed, indirect, 4 segments',
    features: RING_PACKED | RING_INDIRECT_DESC,
    segments: 4,
    indirect: true,
  },
] as const;

type Kind = (typeof KINDS)[number];

function openMemory(): GuestMemory {
  const backing = new FileBacking(createMemfd({ name: 'bench', size: MEMORY_BYTES }), 0, MEMORY_BYTES);
  const addresses = { guestAddress: MEMORY_START, size: MEMORY_BYTES, userAddress: 0 };
  return new GuestMemory([new MemoryRegion(addresses, backing)]);
}

interface Batch {
  /** The driver adds {@link BATCH} buffers and publishes them. */
  readonly offer: () => void;
  /** The device pops, returns and publishes them, and asks for kicks. */
  readonly serve: () => void;
  /** The driver takes them back. */
  readonly collect: () => void;
}

function batchOf(kind: Kind, memory: GuestMemory, start: number): Batch {
  const config = {
    size: SIZE,
    descriptorArea: start,
    driverArea: start + 0x10000,
    deviceArea: start + 0x20000,
    features: kind.features | VERSION_1,
  };
  const driver = createDriverQueue(config);
  driver.initialize(memory);
  const device = createDeviceQueue(config);
  device.validate(memory);
  const chain = new DescriptorChain();
  const used = { token: 0, written: 0 };
  const segments = new SegmentList();
  for (let i = 0; i < kind.segments; i++) segments.addReadable(start + 0x40000 + i * 4096, SEGMENT_BYTES);
  return {
    offer() {
      for (let i = 0; i < BATCH; i++) {
        driver.addBuffer(memory, segments, i, kind.indirect ? start + 0x80000 + i * 64 : undefined);
      }
      driver.publish(memory);
    },
    serve() {
      while (device.pop(memory, chain)) device.pushUsed(memory, chain, 0);
      device.publish(memory);
      device.requestKicks(memory);
    },
    collect() {
      while (driver.popUsed(memory, used));
    },
  };
}

/** Loads a descriptor and stores a used element per buffer, without looking at anything. */
function bareLoop(memory: GuestMemory): () => void {
  const { u32 } = memory.regions[0].windowAt(0);
  let sum = 0;
  return () => {
    for (let i = 0; i < BATCH; i++) {
      sum = (sum + u32[i * 4] + u32[i * 4 + 1] + u32[i * 4 + 2] + u32[i * 4 + 3]) >>> 0;
      u32[0x8000 + i * 2] = i;
      u32[0x8000 + i * 2 + 1] = sum & 1;
    }
  };
}

const BARE = 'bare loop';

async function measure(): Promise<Measured> {
  const memory = openMemory();
  const bench = new Bench({ time: 300, warmupTime: 150 });
  bench.add(BARE, bareLoop(memory));
  KINDS.forEach((kind, index) => {
    const { offer, serve, collect } = batchOf(kind, memory, MEMORY_START + (index + 1) * AREA_BYTES);
    bench.add(`${kind.name}: device`, serve, { beforeEach: offer, afterEach: collect });
    bench.add(`${kind.name}: both`, () => {
      offer();
      serve();
      collect();
    });
  });
  await bench.run();
  memory.close();

  const bare = spreadOfTask(bench, BARE).median;
  const rows = bench.tasks.map(({ name }): BenchRow => {
    const elapsedMs = spreadOfTask(bench, name);
    return {
      case: name,
      scenario: `${BATCH} buffers in a ring of ${SIZE}`,
      peer: NO_PEER,
      elapsedMs,
      buffersPerSecond: Math.round((BATCH * 1000) / elapsedMs.median),
    };
  });
  const nanoseconds = (milliseconds: number) => Math.round((milliseconds * 1e6) / BATCH);
  console.log(`Rings of ${SIZE}, batches of ${BATCH} buffers; nanoseconds a buffer.`);
  console.table(
    rows.map(({ case: ring, elapsedMs, buffersPerSecond }) => ({
      ring,
      min: nanoseconds(elapsedMs.min),
      median: nanoseconds(elapsedMs.median),
      max: nanoseconds(elapsedMs.max),
      'buffers/s': buffersPerSecond,
      'to bare': (elapsedMs.median / bare).toFixed(1),
    })),
  );
  const ratio = (name: string) => spreadOfTask(bench, name).median / bare;
  return {
    rows,
    ratios: {
      'split.device.toBare': ratio('split: device'),
      'packed.device.toBare': ratio('packed: device'),
    },
  };
}

await runAsProgram(import.meta.url, 'virtqueue', measure);
