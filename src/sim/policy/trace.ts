/**
 * What happens to a host and its guests over some time, whatever a policy does: how much memory their programs want, what
 * files they read, what the host itself uses, and what goes wrong. A trace is made from a seed. Traces by name are in
 * traces.ts.
 */
import { kernelFloor, reserveOf } from '../../policy/settings.ts';
import type { Settings } from '../../policy/types.ts';

/** What a guest's programs and files want at one moment. */
export interface Demand {
  /** Memory of programs and of the kernel. */
  programsBytes: number;
  /** Files that are read again and again. */
  cacheBytes: number;
  /** How often a page of them is read, a second. */
  accesses: number;
  /** What programs were promised; Hyper-V's guests report it. */
  committedBytes: number;
}

export interface GuestSpec {
  readonly name: string;
  readonly memoryBytes: number;
  readonly swapBytes: number;
  readonly deflateOnOom: boolean;
  /** Whether it reports free pages. */
  readonly reporting: boolean;
  /** Whether it answers for statistics. */
  readonly statistics: boolean;
  /** Bytes a second that its balloon takes from free memory. */
  readonly inflateRate: number;
  /** How long a page takes that is not in memory, in seconds. */
  readonly pageSeconds: number;
  readonly demand: (atS: number, into: Demand) => void;
}

export type EventKind =
  | 'reboot'
  /** Its balloon takes nothing from now on. */
  | 'stuck'
  | 'unstuck'
  /** Its statistics stay what they are. */
  | 'freeze'
  | 'thaw'
  /** It says that it has nothing available, or all of its memory. */
  | 'claim-full'
  | 'claim-empty'
  | 'honest'
  /** It stands still: its balloon moves neither way, and it says nothing. */
  | 'hang'
  | 'resume'
  /** Its memory is doubled. */
  | 'plug';

export interface TraceEvent {
  readonly atS: number;
  readonly guest: number;
  readonly kind: EventKind;
}

/** A rise that memory has to be recalled for. */
export interface Burst {
  readonly guest: number;
  readonly atS: number;
  readonly untilS: number;
  readonly toBytes: number;
}

export interface Trace {
  readonly name: string;
  readonly title: string;
  readonly seconds: number;
  readonly guests: readonly GuestSpec[];
  readonly totalBytes: number;
  /** What the host's own programs use, and files that it reads. */
  readonly others: (atS: number) => { readonly usedBytes: number; readonly cacheBytes: number };
  readonly events: readonly TraceEvent[];
  readonly bursts: readonly Burst[];
  readonly settings: Settings;
  /** A guest is to be started with so much memory. */
  readonly reservation?: { readonly atS: number; readonly bytes: number };
  /** The policy is killed, and started anew half a minute later without its memory. */
  readonly killedAtS?: number;
  /** The clock jumps by so much. */
  readonly clockSteps?: readonly { readonly atS: number; readonly byMs: number }[];
}

/** What a guest's kernel keeps for itself. */
export const watermarkOf = (memoryBytes: number): number => kernelFloor(memoryBytes) / 4;

export interface Character {
  /** Memory of all guests beside what they may have together. */
  readonly overcommit: number;
  /** Whether floors and working sets fit at every moment: then nothing need be killed. */
  readonly feasible: boolean;
  /** Whether all guests may have all of their memory at every moment. */
  readonly fits: boolean;
}

const CHARACTER_STEP_S = 5;

/** What a trace asks of a host, by looking at all of it. */
export function characterOf(trace: Trace): Character {
  const { guests, totalBytes, seconds, settings, others, reservation } = trace;
  const demand: Demand = { programsBytes: 0, cacheBytes: 0, accesses: 0, committedBytes: 0 };
  const host = { totalBytes, availableBytes: totalBytes, freeBytes: totalBytes, reservedBytes: 0 };
  const reserve = reserveOf(settings, host);
  const all = guests.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  let feasible = true;
  let least = Number.POSITIVE_INFINITY;
  for (let atS = 0; atS < seconds; atS += CHARACTER_STEP_S) {
    const reserved = reservation !== undefined && atS >= reservation.atS ? reservation.bytes : 0;
    const budget = totalBytes - reserve - others(atS).usedBytes - reserved;
    least = Math.min(least, budget);
    let needed = 0;
    for (const { memoryBytes, demand: ask } of guests) {
      ask(atS, demand);
      const floor = Math.max(kernelFloor(memoryBytes), memoryBytes / 4);
      needed += Math.max(floor, demand.programsBytes + watermarkOf(memoryBytes));
    }
    if (needed > budget) feasible = false;
  }
  return { overcommit: all / least, feasible, fits: all <= least };
}
