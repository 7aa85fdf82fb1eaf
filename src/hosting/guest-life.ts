/**
 * What state a guest is in, from what its front-end does with the first ring, and whether it is alive: a front-end that
 * is stopped (SIGSTOP) is seen by the kernel's word for it, one that hangs by what it does not answer.
 */
import { readFileSync } from 'node:fs';
import type { GuestState } from '../control/contract.ts';
import { monotonicMs } from '../sys/poll.ts';

/** A guest that has not answered for so long, and done nothing else, hangs. A busy one takes a second at most. */
const SILENT_MS = 5000;

interface LifeSigns {
  readonly connected: boolean;
  /** The process at the other end of the socket; undefined where that is not known. */
  readonly pid: number | undefined;
  /** When the guest was asked for something that it has not answered; null when it owes nothing. */
  readonly askedMs: number | null;
  /** Kicks so far; they only rise. */
  readonly kicks: number;
}

export class GuestLife {
  #ring: 'none' | 'running' | 'paused' = 'none';
  #askedMs: number | null = null;
  #kicksWhenAsked = 0;

  /** Whether the rings are served. */
  get running(): boolean {
    return this.#ring === 'running';
  }

  started(): void {
    this.#ring = 'running';
  }

  paused(): void {
    this.#ring = 'paused';
  }

  ended(): void {
    this.#ring = 'none';
    this.#askedMs = null;
  }

  state({ connected, pid, askedMs, kicks }: LifeSigns): GuestState {
    if (!connected) return 'waiting';
    if (this.#ring === 'none') return 'no-driver';
    if (this.#ring === 'paused') return 'paused';
    if (askedMs !== this.#askedMs) {
      this.#askedMs = askedMs;
      this.#kicksWhenAsked = kicks;
    }
    const hangs = askedMs !== null && monotonicMs() - askedMs > SILENT_MS && kicks === this.#kicksWhenAsked;
    return hangs || (pid !== undefined && isStopped(pid)) ? 'silent' : 'running';
  }
}

/** Whether every thread of a process is stopped, as SIGSTOP and debuggers do it. False also where that is not known. */
function isStopped(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command's name is in parentheses, and may have any of them in it.
    return 'Tt'.includes(stat.slice(stat.lastIndexOf(')') + 2)[0]);
  } catch {
    return false;
  }
}
