/**
 * A peer's program as the leader of a process group of its own. Such programs start further processes
 * (User Mode Linux runs every guest program as one), so the group is what gets killed and what must be gone
 * in the end: on request, when the leader ends, and when our own process ends, even by SIGKILL (lifeline.ts).
 */
import { type ChildProcess, type SpawnOptions, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { AerostatError } from '../sys/error.ts';
import { guarded } from './lifeline.ts';
import { programsNamed } from './programs.ts';

type Stdio = Exclude<StdioOptions, string>;

interface ProcessGroupOptions extends Omit<SpawnOptions, 'detached' | 'stdio'> {
  /** Three or more; pipes unless given. */
  readonly stdio?: Readonly<Stdio>;
  /** The program's own directory, which is removed if our process is killed; else its owner removes it. */
  readonly directory?: string;
}

const STANDARD_STREAMS: Stdio = ['pipe', 'pipe', 'pipe'];

export interface ProcessExit {
  /** The exit code, or null when a signal ended the process. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How long killed processes may take to vanish: the kernel may first have gigabytes of theirs to free. */
const VANISH_MS_MAX = 10_000;
const VANISH_POLL_MS = 5;

const living = new Set<ProcessGroup>();
let exitHooked = false;

function killLivingAtExit(): void {
  if (exitHooked) return;
  exitHooked = true;
  process.on('exit', () => {
    for (const group of living) group.kill();
  });
}

/** Process ids of a group's members that still run; zombies hold nothing and do not count. */
export function processesOfGroup(group: number): number[] {
  const pids: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    let status: string;
    try {
      status = readFileSync(`/proc/${name}/stat`, 'latin1');
    } catch {
      continue; // It ended between the two calls.
    }
    // "pid (name) state parent group …"; the name may hold spaces and parentheses.
    const [state, , pgrp] = status.slice(status.lastIndexOf(')') + 2).split(' ');
    if (Number(pgrp) === group && state !== 'Z' && state !== 'X') pids.push(Number(name));
  }
  return pids;
}

export class ProcessGroup {
  readonly leader: ChildProcess;
  /** The leader's process id, which is also the group's id. */
  readonly pid: number;
  /** Settles when the leader ended and what it left of its group is killed and gone; never rejects. */
  readonly exited: Promise<ProcessExit>;
  #ended = false;

  private constructor(leader: ChildProcess, pid: number) {
    this.leader = leader;
    this.pid = pid;
    living.add(this);
    killLivingAtExit();
    this.exited = new Promise(resolve => {
      leader.once('exit', (code, signal) => {
        this.kill();
        this.#ended = true;
        living.delete(this);
        this.#gone().then(() => resolve({ code, signal }));
      });
    });
  }

  /** @throws AerostatError AEROSTAT_SPAWN when the program cannot be started */
  static async start(
    program: string,
    args: readonly string[],
    { directory, ...options }: ProcessGroupOptions,
  ): Promise<ProcessGroup> {
    const [path] = programsNamed(program, (options.env ?? process.env).PATH);
    // Else the shell that is to start it would complain, on the standard error of the program.
    if (path === undefined) {
      throw new AerostatError('AEROSTAT_SPAWN', `cannot start ${program}: there is no such program`);
    }
    const stdio = [...(options.stdio ?? STANDARD_STREAMS)];
    const lifeline = stdio.push('pipe') - 1;
    const leader = spawn(...guarded(path, args, lifeline, directory), { ...options, stdio, detached: true });
    try {
      if (leader.pid === undefined) await once(leader, 'spawn');
    } catch (cause) {
      throw new AerostatError('AEROSTAT_SPAWN', `cannot start ${program}: ${String(cause)}`, { cause });
    }
    // Nothing is ever said on it; that it breaks is how a group ends.
    leader.stdio[lifeline]?.on('error', () => {});
    return new ProcessGroup(leader, leader.pid!);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Kills the whole group at once. Idempotent. */
  kill(): void {
    // Once the leader is reaped and the group empty, its number may be another group's.
    if (this.#ended) return;
    try {
      process.kill(-this.pid, 'SIGKILL');
    } catch {
      // ESRCH: the group is empty.
    }
  }

  async #gone(): Promise<void> {
    const deadline = performance.now() + VANISH_MS_MAX;
    while (performance.now() < deadline && processesOfGroup(this.pid).length > 0) await delay(VANISH_POLL_MS);
  }
}
