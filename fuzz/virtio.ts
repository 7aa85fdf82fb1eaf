/**
 * Device queues over guest memory that holds arbitrary bytes. The first bytes choose the kind of queue, its features,
 * size and position; the rest is what the guest has in its memory, 1 KiB at a time, changed between batches.
 * A queue may find faults in buffers, and may throw {@link VirtqueueError}; anything else is a finding.
 */
import { HeapBacking } from '../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { BUFFER_BYTES_MAX, DescriptorChain } from '../src/virtio/chain.ts';
import { createDeviceQueue } from '../src/virtio/create.ts';
import {
  IN_ORDER,
  RING_EVENT_IDX,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../src/virtio/features.ts';
import { type DeviceQueue, VirtqueueError } from '../src/virtio/queue.ts';
import { stateFromVringBase, stateToVringBase } from '../src/virtio/vring-base.ts';

/** Two regions that touch, so that buffers and tables may span them, and nothing behind. */
const REGION_BYTES = 4096;
const ROUND_BYTES = 1024;
const HEADER_BYTES = 6;
/** Small queues, all of whose parts fit into what one round writes. */
const SIZES_SPLIT = [1, 2, 4, 8, 16];
const SIZE_PACKED_MAX = 16;

const memory = new GuestMemory(
  [0, REGION_BYTES].map(
    guestAddress =>
      new MemoryRegion(
        { guestAddress, size: REGION_BYTES, userAddress: guestAddress },
        new HeapBacking(REGION_BYTES),
      ),
  ),
);
const chain = new DescriptorChain();
const copied = new Uint8Array(64);

const OPTIONS = [RING_PACKED, RING_EVENT_IDX, RING_INDIRECT_DESC, IN_ORDER];

export function target(bytes: Uint8Array): void {
  if (bytes.length < HEADER_BYTES) return;
  const header = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const choice = header.getUint8(0);
  const features = OPTIONS.reduce(
    (set, bit, index) => ((choice & (1 << index)) === 0 ? set : set | bit),
    VERSION_1,
  );
  const packed = (features & RING_PACKED) !== 0n;
  const size = packed ? 1 + (header.getUint8(1) % SIZE_PACKED_MAX) : SIZES_SPLIT[header.getUint8(1) % 5];
  const config = { size, features, descriptorArea: 0, driverArea: 256, deviceArea: 512 };
  memory.fill(0, 0, 2 * REGION_BYTES);
  try {
    const queue = createDeviceQueue(config, stateFromVringBase(memory, config, header.getUint32(2, true)));
    queue.validate(memory);
    for (let from = HEADER_BYTES; from < bytes.length; from += ROUND_BYTES) {
      memory.write(0, bytes, from, Math.min(ROUND_BYTES, bytes.length - from));
      serve(queue);
    }
    const base = stateToVringBase(features, queue.save());
    createDeviceQueue(config, stateFromVringBase(memory, config, base));
  } catch (error) {
    if (!(error instanceof VirtqueueError)) throw error;
  }
}

function serve(queue: DeviceQueue): void {
  queue.suppressKicks(memory);
  let popped = 0;
  while (queue.pop(memory, chain)) {
    popped++;
    expect(popped <= queue.size, 'more buffers than the queue has entries');
    checkChain(queue.size);
    chain.read(memory, 0, copied, 0, copied.length);
    queue.pushUsed(memory, chain, chain.write(memory, 0, copied));
  }
  queue.publish(memory);
  queue.requestKicks(memory);
}

function checkChain(size: number): void {
  expect(chain.count <= size, 'more segments than entries');
  expect(chain.fault === undefined || chain.count === 0, 'a fault with segments');
  expect(chain.fault !== undefined || chain.count > 0, 'neither a fault nor segments');
  expect(chain.descriptorCount >= 1 && chain.descriptorCount <= size, 'a length that no list has');
  let total = 0;
  for (let index = 0; index < chain.count; index++) {
    expect(memory.contains(chain.address(index), chain.length(index)), 'a segment outside memory');
    expect(chain.isWritable(index) || index === 0 || !chain.isWritable(index - 1), 'segments out of order');
    total += chain.length(index);
  }
  expect(total <= BUFFER_BYTES_MAX, 'too many bytes');
  expect(total === chain.readableBytes + chain.writableBytes, 'sums that are wrong');
}

function expect(condition: boolean, finding: string): void {
  if (!condition) throw new Error(finding);
}

/** One target for each kind of ring: the bit that chooses it is not the input's. */
export const targets: Record<string, (bytes: Uint8Array) => void> = {
  'virtio-split': bytes => target(withKind(bytes, 0)),
  'virtio-packed': bytes => target(withKind(bytes, 1)),
};

function withKind(bytes: Uint8Array, kind: 0 | 1): Uint8Array {
  const input = bytes.slice();
  if (input.length > 0) input[0] = (input[0] & ~1) | kind;
  return input;
}
