/**
 * How guests are steered, in files that outlive the daemon: one for each guest, replaced whole. It is what a daemon that starts
 * without a keeper knows of its guests. What was in their balloons is not in it, for no program but the guest knows.
 */
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DISCARD_MODES, type DiscardMode, type GuestChanges } from '../control/contract.ts';
import { POLL_INTERVAL_MS_MAX, TARGET_BYTES_MAX } from '../control/limits.ts';
import { SILENCE_RULES } from '../control/policy.ts';
import type { GuestOptions, LogRecord } from '../hosting/options.ts';
import { replaceFile } from '../sys/replaced-file.ts';
import { integer, naturalNumber, nullable, oneOf, record, type ValueOf } from '../sys/shape.ts';

const VERSION = 1;
/** A lease that was renewed is written again when the file is so far behind: policies renew every second or two. */
const LEASE_BEHIND_MS = 30_000;
const FILE_BYTES_MAX = 4096;
/** A person who orders something waits so long at most until it is on disk, and so does the end of the daemon. */
const WRITTEN_MS_MAX = 1000;

const targetBytes = integer(0, TARGET_BYTES_MAX);
const discard = oneOf<DiscardMode>(DISCARD_MODES);
const pollIntervalMs = integer(0, POLL_INTERVAL_MS_MAX);

const STEERING = record({
  version: oneOf([VERSION]),
  /** What was ordered last; of the two targets there is one at most. */
  targetBytes: nullable(targetBytes),
  memoryBytes: nullable(naturalNumber),
  discard: nullable(discard),
  pollIntervalMs: nullable(pollIntervalMs),
  /** Of a policy's target; its end by the wall clock. */
  lease: nullable(record({ untilMs: naturalNumber, onSilence: oneOf(SILENCE_RULES) })),
  /** What the daemon was started with; what has become another since counts instead of what was ordered before. */
  started: record({ targetBytes, discard, pollIntervalMs }),
});

type Saved = ValueOf<typeof STEERING>;
export type KeptSteering = Omit<Saved, 'version' | 'started'>;

const NOTHING: KeptSteering = {
  targetBytes: null,
  memoryBytes: null,
  discard: null,
  pollIntervalMs: null,
  lease: null,
};

type Started = Saved['started'];

export class SteeringFiles {
  readonly #directory: string;
  readonly #log: (record: LogRecord) => void;
  readonly #guests = new Map<string, { readonly started: Started; readonly steering: KeptSteering }>();
  /** Guests whose files are to be written: one after the other, so that a disk that hangs has one of Node's threads. */
  readonly #behind = new Set<string>();
  readonly #warned = new Set<string>();
  #writing: Promise<void> | undefined;

  readonly #writtenMsMax: number;

  /** @throws when the directory cannot be made */
  constructor(directory: string, log: (record: LogRecord) => void, writtenMsMax = WRITTEN_MS_MAX) {
    this.#writtenMsMax = writtenMsMax;
    this.#directory = join(directory, 'guests');
    this.#log = log;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
  }

  /**
   * How a guest is to be steered that is started with these options; what is written of it from now on is written with them.
   * A file that makes no sense here is named, and set aside.
   */
  read({ name, targetBytes, discard, pollIntervalMs }: GuestOptions): KeptSteering {
    const started = { targetBytes, discard, pollIntervalMs };
    const saved = this.#read(name);
    const steering = saved === undefined ? NOTHING : stillOrdered(saved, started);
    this.#guests.set(name, { started, steering });
    return steering;
  }

  /** The guest did as it was told. Resolves when that is on disk, or does not come there in time. */
  async ordered(guest: string, changes: GuestChanges): Promise<void> {
    const before = this.#guests.get(guest);
    if (before === undefined) return;
    this.#set(guest, before.started, changed(before.steering, changes));
    // A policy orders it again.
    if (changes.lease === undefined) await this.settled();
  }

  /** All leases last for so long from now on. */
  renewed(forMs: number): void {
    const untilMs = Date.now() + forMs;
    for (const [guest, { started, steering }] of this.#guests) {
      const { lease } = steering;
      if (lease === null || untilMs - lease.untilMs < LEASE_BEHIND_MS) continue;
      this.#set(guest, started, { ...steering, lease: { ...lease, untilMs } });
    }
  }

  /** The guest was sent away: another one that is called like it has nothing to do with it. */
  forget(guest: string): void {
    this.#guests.delete(guest);
    this.#behind.delete(guest);
    rmSync(this.#pathOf(guest), { force: true });
  }

  /** Resolves when nothing is being written any more, or a disk that hangs was waited for long enough. */
  async settled(): Promise<void> {
    if (this.#writing === undefined) return;
    await Promise.race([this.#writing, delay(this.#writtenMsMax, undefined, { ref: false })]);
  }

  #read(guest: string): Saved | undefined {
    const path = this.#pathOf(guest);
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') this.#warn(guest, `is not used, for it cannot be read: ${message}`);
      return undefined;
    }
    try {
      return parse(text);
    } catch (error) {
      renameSync(path, `${path}.refused`);
      this.#warn(guest, `is not used: ${(error as Error).message}; it lies in ${path}.refused now`);
      return undefined;
    }
  }

  #set(guest: string, started: Started, steering: KeptSteering): void {
    this.#guests.set(guest, { started, steering });
    this.#behind.add(guest);
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    // What comes meanwhile is visited, too.
    for (const guest of this.#behind) {
      this.#behind.delete(guest);
      await this.#write(guest);
    }
    this.#writing = undefined;
  }

  async #write(guest: string): Promise<void> {
    const { started, steering } = this.#guests.get(guest)!;
    const saved: Saved = { version: VERSION, ...steering, started };
    try {
      await replaceFile(this.#pathOf(guest), `${JSON.stringify(saved)}\n`, { durable: true });
      this.#warned.delete(guest);
      // It was sent away meanwhile.
      if (!this.#guests.has(guest)) this.forget(guest);
    } catch (error) {
      if (!this.#warned.has(guest))
        this.#warn(guest, `is behind, for it cannot be written: ${(error as Error).message}`);
      this.#warned.add(guest);
    }
  }

  #pathOf(guest: string): string {
    return join(this.#directory, `${guest}.json`);
  }

  #warn(guest: string, why: string): void {
    const message = `the file of how it is steered, ${this.#pathOf(guest)}, ${why}`;
    this.#log({ level: 'warn', guest, message });
  }
}

/** @throws Error that says what is wrong with it */
function parse(text: string): Saved {
  if (text.length > FILE_BYTES_MAX) throw new Error('it is too large');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('it is damaged');
  }
  const { version } = (value ?? {}) as { readonly version?: unknown };
  if (typeof version === 'number' && version !== VERSION) {
    throw new Error(`it has version ${version}, and this daemon reads version ${VERSION}`);
  }
  const fault = STEERING.fault(value, 'it');
  if (fault !== null) throw new Error(`it is damaged (${fault})`);
  const saved = value as Saved;
  if (saved.targetBytes !== null && saved.memoryBytes !== null)
    throw new Error('it is damaged (two targets)');
  return saved;
}

/** What was ordered, but for what the daemon is started otherwise with now: that was said later. */
function stillOrdered({ version: _, started: before, ...steering }: Saved, now: Started): KeptSteering {
  return {
    ...steering,
    ...(before.targetBytes === now.targetBytes ? {} : { targetBytes: null, memoryBytes: null, lease: null }),
    ...(before.discard === now.discard ? {} : { discard: null }),
    ...(before.pollIntervalMs === now.pollIntervalMs ? {} : { pollIntervalMs: null }),
  };
}

function changed(before: KeptSteering, changes: GuestChanges): KeptSteering {
  const { discard, pollIntervalMs, targetBytes = null, memoryBytes = null, lease } = changes;
  const aims = targetBytes !== null || memoryBytes !== null;
  return {
    ...before,
    ...(discard === undefined ? {} : { discard }),
    ...(pollIntervalMs === undefined ? {} : { pollIntervalMs }),
    ...(aims ? { targetBytes, memoryBytes, lease: lease === undefined ? null : lasting(lease) } : {}),
  };
}

const lasting = ({ forMs, onSilence }: NonNullable<GuestChanges['lease']>) => ({
  untilMs: Date.now() + forMs,
  onSilence,
});
