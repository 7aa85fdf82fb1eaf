/**
 * That a policy lives and which targets are its, in a file of the runtime directory that is replaced with every decision. Who
 * reads it knows when a policy is silent, also one that was killed, and of guests whose hypervisors know no leases. What
 * becomes of their targets then is guard.ts's.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { SILENCE_RULES } from '../control/policy.ts';
import { ReplacedFile } from '../sys/replaced-file.ts';

/** A policy that is silent for longer is told of: so long do its leases last. */
export const LEASE_PERIODS = 2;

const HeldTargetSchema = z.strictObject({
  name: z.string(),
  /** The monitor of its QEMU; null for the guest of a daemon, which knows the lease itself. */
  monitor: z.string().nullable(),
  targetBytes: z.number(),
  /** All memory is the guest's again, since the policy was silent. */
  released: z.boolean(),
});
export type HeldTarget = z.output<typeof HeldTargetSchema>;

const HeartbeatSchema = z.strictObject({
  version: z.literal(1),
  pid: z.int().positive(),
  /** Where it answers. */
  api: z.string(),
  /** Of its newest decision, by the clock that all processes of the machine share, and for people. */
  atMs: z.number(),
  wallMs: z.number(),
  periodMs: z.number().positive(),
  onSilence: z.enum(SILENCE_RULES),
  dryRun: z.boolean(),
  decisions: z.number(),
  moves: z.number(),
  guests: z.array(HeldTargetSchema),
});
export type Heartbeat = z.output<typeof HeartbeatSchema>;

/** A clock that is behind began anew with the machine. */
export const isSilent = ({ atMs, periodMs }: Heartbeat, nowMs: number): boolean =>
  nowMs < atMs || nowMs - atMs > LEASE_PERIODS * periodMs;

/** Wall clock at which its leases end or ended. */
export const leaseEndMs = ({ wallMs, periodMs }: Heartbeat): number => wallMs + LEASE_PERIODS * periodMs;

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Undefined where there is none, or none that makes sense. */
export function readHeartbeat(path: string): Heartbeat | undefined {
  try {
    return HeartbeatSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return undefined;
  }
}

const FILE_NAME = /^policy-\d+\.beat$/;

const pathsIn = (directory: string): string[] => {
  try {
    return readdirSync(directory)
      .filter(name => FILE_NAME.test(name))
      .map(name => join(directory, name));
  } catch {
    return [];
  }
};

/** Of all policies that run here, and of those that were killed, until another one starts. */
export const readHeartbeats = (directory: string): Heartbeat[] =>
  pathsIn(directory).flatMap(path => readHeartbeat(path) ?? []);

type Beat = Omit<Heartbeat, 'version' | 'pid' | 'api'>;

interface HeartbeatOptions {
  readonly directory: string;
  readonly api: string;
  /** Called once, when it first has targets of monitors that are to be released when it is silent. */
  readonly onRelease?: (path: string) => void;
}

export class HeartbeatFile {
  readonly #file: ReplacedFile;
  readonly #options: HeartbeatOptions;
  #isTold = false;

  /** Takes the place of those that are gone: what they left is this one's to decide on now. */
  constructor(options: HeartbeatOptions) {
    const { directory } = options;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const path of pathsIn(directory)) {
      const left = readHeartbeat(path);
      if (left === undefined || !isAlive(left.pid) || left.api === options.api) rmSync(path, { force: true });
    }
    this.#options = options;
    this.#file = new ReplacedFile(join(directory, `policy-${process.pid}.beat`), { durable: false });
  }

  beat(beat: Beat): void {
    const { api, onRelease } = this.#options;
    const heartbeat: Heartbeat = { version: 1, pid: process.pid, api, ...beat };
    this.#file.write(() => JSON.stringify(heartbeat));
    const releases = beat.onSilence === 'release' && beat.guests.some(({ monitor }) => monitor !== null);
    if (this.#isTold || !releases) return;
    this.#isTold = true;
    onRelease?.(this.#file.path);
  }

  /** The policy ends in order. What its leases hold is released as is due; else nothing is left to tell. */
  async close(onSilence: Heartbeat['onSilence']): Promise<void> {
    await this.#file.close();
    if (onSilence === 'keep' || !this.#isTold) rmSync(this.#file.path, { force: true });
  }
}
