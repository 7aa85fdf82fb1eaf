/** The parts of a balloon device: a feature with a queue of its own is a line here. */
import type { DeviceCounters } from './counters.ts';
import { HintChannel } from './hint-channel.ts';
import { Inflation } from './inflation.ts';
import type { PartWorld } from './part.ts';
import { Reporting } from './reporting.ts';
import { RequestChannel } from './request-channel.ts';
import { SharedAllocator } from './shared-allocator.ts';
import { StatisticsQueue } from './statistics-queue.ts';

export const createDeviceParts = (world: PartWorld) => ({
  inflation: new Inflation(world),
  statistics: new StatisticsQueue(world),
  hints: new HintChannel(world),
  requests: new RequestChannel(world),
  reporting: new Reporting(world),
  shared: new SharedAllocator(world),
});

export type DeviceParts = ReturnType<typeof createDeviceParts>;

type KeysOf<Union> = Union extends unknown ? keyof Union : never;

/** The device's counters and those of all parts, by name. */
export type DeviceFigures = Readonly<DeviceCounters> &
  Readonly<Record<KeysOf<DeviceParts[keyof DeviceParts]['counters']>, number>>;

/** All of them at this moment; what two parts count under one name is one figure. */
export function figuresOf(counters: DeviceCounters, parts: DeviceParts): DeviceFigures {
  const figures: Record<string, number> = { ...counters };
  for (const part of Object.values(parts)) {
    for (const [name, count] of Object.entries<number>(part.counters)) {
      figures[name] = (figures[name] ?? 0) + count;
    }
  }
  return figures as unknown as DeviceFigures;
}
