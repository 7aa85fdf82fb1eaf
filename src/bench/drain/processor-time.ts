/**
 * Where the processor's time goes in a drain, by what a process is there for, and whether the link had something to carry.
 * Read in the namespace of the drain, which has no other processes.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { childrenCpuMs, cpuMsOf } from '../cpu-time.ts';

/** What a process of a drain is there for. */
export type DrainRole = 'sourceCpuMs' | 'destinationCpuMs' | 'fleetCpuMs';

export type RoleTimes = Readonly<Record<DrainRole, number>>;

/** A link that carries less than this share of what it could is idle. */
const IDLE_SHARE = 0.1;
/** Between two looks at the link. */
const LOOK_MS = 50;

/** The role of a process by its command line: a machine that leaves, one that is awaited, agents and their servers. */
function roleOf(pid: number): DrainRole | undefined {
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  if (words.includes('receive')) return 'destinationCpuMs';
  // Of those that have ended this process knows: they were its children.
  if (words.includes('vm')) return 'sourceCpuMs';
  return words.includes('join') || words.some(word => word.endsWith('nats-server'))
    ? 'fleetCpuMs'
    : undefined;
}

/** Since they began, of all processes that there are, and of those that have ended and were started by this one. */
export function roleTimes(): RoleTimes {
  const times = { sourceCpuMs: childrenCpuMs(process.pid), destinationCpuMs: 0, fleetCpuMs: 0 };
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const role = roleOf(Number(name));
      if (role !== undefined) times[role] += cpuMsOf(Number(name));
    } catch {
      // It has just ended.
    }
  }
  return times;
}

export const timesSince = (before: RoleTimes): RoleTimes => {
  const now = roleTimes();
  return {
    sourceCpuMs: now.sourceCpuMs - before.sourceCpuMs,
    destinationCpuMs: now.destinationCpuMs - before.destinationCpuMs,
    fleetCpuMs: now.fleetCpuMs - before.fleetCpuMs,
  };
};

/** Watches the namespace's only link, for how long it has next to nothing to carry. */
export class LinkWatch {
  readonly #bytesPerMs: number;
  readonly #now: () => number;
  readonly #timer = setInterval(() => this.#look(), LOOK_MS);
  #atMs: number;
  #bytes = loopbackBytes();
  #idleMs = 0;

  constructor(bytesPerSecond: number, now: () => number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#now = now;
    this.#atMs = now();
  }

  /** Ends the watch; returns for how long the link was idle. */
  end(): number {
    clearInterval(this.#timer);
    this.#look();
    return this.#idleMs;
  }

  #look(): void {
    const nowMs = this.#now();
    const bytes = loopbackBytes();
    const spentMs = nowMs - this.#atMs;
    if (bytes - this.#bytes < IDLE_SHARE * this.#bytesPerMs * spentMs) this.#idleMs += spentMs;
    this.#atMs = nowMs;
    this.#bytes = bytes;
  }
}

/** What the loopback has received (proc_net(5)). */
function loopbackBytes(): number {
  const line = readFileSync('/proc/self/net/dev', 'utf8')
    .split('\n')
    .find(text => text.trimStart().startsWith('lo:'));
  return Number(line?.split(':')[1].trim().split(/\s+/)[0] ?? 0);
}
