/**
 * What happens to a fleet over some time, whatever places its guests: hosts, guests with what they use, failures of hosts,
 * hosts that are cut off or slow, leaders that die, drains. It is made from a seed.
 */
import type { Random } from '../../guest/random.ts';
import { GIB, MIB } from '../../policy/units.ts';
import { breathing, leaking, rising, sawTooth } from '../policy/demands.ts';

interface TraceGuest {
  readonly name: string;
  readonly sizeBytes: number;
  readonly minBytes: number;
  readonly dirtyBytesPerSecond: number | null;
  readonly obstacle: string | null;
  /** What its programs use. */
  readonly use: (atS: number) => number;
  /** The host that it starts on. */
  readonly home: number;
}

export interface TraceHost {
  readonly name: string;
  readonly memoryBytes: number;
  readonly reserveBytes: number;
  readonly othersBytes: number;
  readonly linkBytesPerSecond: number;
  /** Its reports and answers come seconds late. */
  readonly slow: boolean;
}

/**
 * `crash`: a host loses power, is back after a while, and reports at first the guests that it had. `cut`: hosts are
 * unreachable, and reach no other host. `leader`: the leader dies. `drain`: a host is to be empty, for so long.
 */
export interface FleetEvent {
  readonly atS: number;
  readonly kind: 'crash' | 'cut' | 'leader' | 'drain';
  readonly hosts: readonly number[];
  readonly lastsS: number;
}

export interface FleetTrace {
  readonly seconds: number;
  readonly hosts: readonly TraceHost[];
  readonly guests: readonly TraceGuest[];
  /** In the order of their time. */
  readonly events: readonly FleetEvent[];
}

export interface FleetSize {
  readonly hosts: number;
  readonly guests: number;
  readonly seconds: number;
}

const MINUTE = 60;
/** Guests' need at rest, in parts of what all hosts may give. */
const LOAD = 0.74;
/** Memory of all guests in parts of that of all hosts. */
const OVERCOMMIT = 1.5;
const TEN_GIGABIT = 1.25e9;

export function makeFleetTrace(size: FleetSize, random: Random): FleetTrace {
  const sizes = sizesOf(size.guests, random.split('sizes'));
  const hosts = hostsOf(size, sizes, random.split('hosts'));
  const guests = guestsOf(size, hosts, sizes, random.split('guests'));
  return { seconds: size.seconds, hosts, guests, events: eventsOf(size, random.split('events')) };
}

const sizesOf = (count: number, random: Random): number[] =>
  Array.from({ length: count }, () => (random.chance(0.5) ? 4 : random.chance(0.7) ? 8 : 16) * GIB);

function hostsOf({ hosts }: FleetSize, sizes: readonly number[], random: Random): TraceHost[] {
  const mean = sizes.reduce((sum, size) => sum + size, 0) / OVERCOMMIT / hosts;
  return Array.from({ length: hosts }, (_, index) => {
    const memoryBytes = Math.ceil((mean * [0.75, 1, 1, 1.25][index % 4]) / GIB) * GIB;
    const slow = random.chance(0.05) || index === 3;
    return {
      name: `host${index}`,
      memoryBytes,
      reserveBytes: 0.05 * memoryBytes,
      othersBytes: 0.03 * memoryBytes,
      linkBytesPerSecond: slow ? TEN_GIGABIT / 10 : TEN_GIGABIT,
      slow,
    };
  });
}

function guestsOf(
  size: FleetSize,
  hosts: readonly TraceHost[],
  sizes: readonly number[],
  random: Random,
): TraceGuest[] {
  const homes = homesOf(hosts, sizes.length, random.split('homes'));
  const parts = sizes.map(() => 0.2 + 0.4 * (random.below(1000) / 1000));
  const budget = hosts.reduce(
    (sum, host) => sum + host.memoryBytes - host.reserveBytes - host.othersBytes,
    0,
  );
  const rest = sizes.reduce((sum, bytes, at) => sum + bytes * parts[at], 0);
  const scale = (LOAD * budget) / rest / 1.1;
  const hot = hotTimes(size, random.split('hot'));
  return sizes.map((sizeBytes, at) => {
    const own = random.split(`guest ${at}`);
    const base = Math.min(0.8, parts[at] * scale) * sizeBytes;
    const calm = ownUse(base, sizeBytes, size.seconds, own);
    const times = hot.get(homes[at]);
    const use =
      times === undefined
        ? calm
        : rising(calm, { ...times, to: Math.min(0.9 * sizeBytes, 1.5 * base), rate: 20 * MIB });
    return {
      name: `vm${at}`,
      sizeBytes,
      minBytes: sizeBytes / 8,
      dirtyBytesPerSecond: own.chance(0.05) ? null : own.chance(0.03) ? 1.5e9 : own.below(120) * 1e6,
      obstacle: own.chance(0.04) ? 'it has a device of its host' : null,
      use,
      home: homes[at],
    };
  });
}

/** As many guests as its memory says, by chance: some hosts have more than they should. */
function homesOf(hosts: readonly TraceHost[], count: number, random: Random): number[] {
  const wheel = hosts.flatMap(({ memoryBytes }, index) =>
    Array<number>(Math.round(memoryBytes / GIB)).fill(index),
  );
  return Array.from({ length: count }, () => wheel[random.below(wheel.length)]);
}

/** Most breathe; some work by the minute, some leak, some have an hour of their own. */
function ownUse(base: number, sizeBytes: number, seconds: number, random: Random): (atS: number) => number {
  const kind = random.below(100);
  const high = Math.min(0.85 * sizeBytes, 2 * base);
  if (kind < 70) return breathing(base, random);
  if (kind < 80)
    return sawTooth(
      0.8 * base,
      Math.min(high, 1.3 * base),
      120 + random.below(480),
      random.below(600),
      200 * MIB,
    );
  if (kind < 85) return leaking(0.7 * base, high, 900 + random.below(1200));
  const fromS = random.below(seconds);
  return rising(breathing(base, random), {
    fromS,
    untilS: fromS + 120 + random.below(600),
    to: high,
    rate: 50 * MIB,
  });
}

/** Hosts all of whose first guests have much to do at once, and when. */
function hotTimes(
  { hosts, seconds }: FleetSize,
  random: Random,
): Map<number, { fromS: number; untilS: number }> {
  const times = new Map<number, { fromS: number; untilS: number }>();
  const count = Math.max(2, Math.round((0.06 * hosts * seconds) / (30 * MINUTE)));
  for (let at = 0; at < count; at++) {
    const fromS = 60 + random.below(Math.max(1, seconds - 60));
    times.set(random.below(hosts), { fromS, untilS: fromS + 300 + random.below(600) });
  }
  return times;
}

function eventsOf({ hosts, seconds }: FleetSize, random: Random): FleetEvent[] {
  const events: FleetEvent[] = [];
  const some = (share: number, everyS: number, least: number): number =>
    Math.max(least, Math.round((share * hosts * seconds) / everyS));
  const any = (): number => random.below(seconds);
  const one = (): number => random.below(hosts);
  for (let at = some(0.01, 30 * MINUTE, 3); at > 0; at--)
    events.push({ atS: any(), kind: 'crash', hosts: [one()], lastsS: 80 + random.below(160) });
  for (let at = some(0.01, 30 * MINUTE, 2); at > 0; at--)
    events.push({ atS: any(), kind: 'cut', hosts: [one()], lastsS: 15 + random.below(90) });
  for (let at = some(0.01, 30 * MINUTE, 2); at > 0; at--)
    events.push({ atS: any(), kind: 'drain', hosts: [one()], lastsS: 400 });
  // The network is parted: every other host is alone.
  for (let atS = 400; atS < seconds; atS += 15 * MINUTE) {
    const half = Array.from({ length: hosts }, (_, index) => index).filter(index => index % 2 === 1);
    events.push({ atS, kind: 'cut', hosts: half, lastsS: 60 + random.below(60) });
  }
  for (let atS = 200; atS < seconds; atS += 120 + random.below(240))
    events.push({ atS, kind: 'leader', hosts: [], lastsS: 8 });
  return events.sort((a, b) => a.atS - b.atS);
}
