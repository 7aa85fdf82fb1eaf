/**
 * A queue's state as vhost and vhost-user carry it: the one 32-bit number of SET_VRING_BASE and GET_VRING_BASE.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { hasFeature, RING_PACKED } from './features.ts';
import { RING_HEADER } from './layout.ts';
import {
  checkConfig,
  checkMemory,
  type QueueConfig,
  type QueueState,
  VirtqueueError,
  WRAP,
} from './queue.ts';

/** Split: the next available index. Packed: that position in the low half, the next used one in the high half. */
export function stateToVringBase(features: bigint, state: QueueState): number {
  if (!hasFeature(features, RING_PACKED)) return state.nextAvail;
  return state.nextAvail + state.nextUsed * 2 ** 16;
}

/**
 * The inverse. A split base does not say what was used last: that is read from the used ring, as back-ends do.
 * @throws VirtqueueError when `base` is no position in this queue, or the queue lies outside guest memory
 */
export function stateFromVringBase(memory: GuestMemory, config: QueueConfig, base: number): QueueState {
  checkConfig(config);
  checkMemory(config, memory);
  if (!Number.isInteger(base) || base < 0 || base > 0xffff_ffff) {
    throw new VirtqueueError(`base ${base} is no 32-bit number`);
  }
  if (hasFeature(config.features, RING_PACKED)) {
    const state = { nextAvail: base % 2 ** 16, nextUsed: Math.floor(base / 2 ** 16) };
    for (const position of [state.nextAvail, state.nextUsed]) {
      if (position % WRAP >= config.size) {
        throw new VirtqueueError(
          `base 0x${base.toString(16)} names a descriptor beyond its ${config.size} entries`,
        );
      }
    }
    return state;
  }
  if (base > 0xffff) throw new VirtqueueError(`base ${base} is no 16-bit available index`);
  return { nextAvail: base, nextUsed: usedIndexOf(memory, config) };
}

/**
 * What a split ring says was used last. A packed one does not say it.
 * @throws VirtqueueError for a packed ring, and when the queue lies outside guest memory
 */
export function usedIndexOf(memory: GuestMemory, config: QueueConfig): number {
  if (hasFeature(config.features, RING_PACKED)) {
    throw new VirtqueueError('its positions are in no packed ring, and were not kept');
  }
  checkConfig(config);
  checkMemory(config, memory);
  return memory.atomicLoadU16(config.deviceArea + RING_HEADER.offset.index);
}
