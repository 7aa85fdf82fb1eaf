/** What a leader remembers between plans, at its beginning and when its clock begins anew. Orders are followed in ledger.ts. */
import type { PlacementMemory } from './types.ts';

/** In a time: it has not happened. */
export const NOT_YET = -1;

export const newPlacementMemory = (): PlacementMemory => ({
  version: 1,
  sinceMs: NOT_YET,
  atMs: NOT_YET,
  hosts: [],
  orders: [],
  moves: [],
  failures: [],
});

/**
 * The memory as it is at `atMs`: where the clock began anew, everything is as long ago as it was. A leader without one
 * begins now.
 */
export function memoryAt(memory: PlacementMemory, atMs: number): PlacementMemory {
  if (memory.sinceMs === NOT_YET) return { ...memory, sinceMs: atMs, atMs };
  if (atMs >= memory.atMs) return { ...memory, atMs };
  const by = atMs - memory.atMs;
  const moved = (ms: number): number =>
    ms === NOT_YET ? NOT_YET : ms + by === NOT_YET ? NOT_YET - 1 : ms + by;
  return {
    version: 1,
    sinceMs: moved(memory.sinceMs),
    atMs,
    hosts: memory.hosts.map(host => ({ ...host, seenMs: moved(host.seenMs), shortMs: moved(host.shortMs) })),
    orders: memory.orders.map(order => ({ ...order, atMs: moved(order.atMs), seenMs: moved(order.seenMs) })),
    moves: memory.moves.map(move => ({ ...move, atMs: moved(move.atMs) })),
    failures: memory.failures.map(failure => ({ ...failure, atMs: moved(failure.atMs) })),
  };
}
