/**
 * One migration of QEMU's, for `bench migrate --peer qemu`: a QEMU that has a guest's memory and another one that waits
 * for it, neither with a processor that does anything. What a guest would do is done here: memory is written through the
 * file that we share with QEMU, and our driver, which reaches the balloon over qtest, names free pages when QEMU asks.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { profile } from '../../balloon/profiles.ts';
import { BalloonDriver } from '../../driver/balloon-driver.ts';
import type { Scheduler } from '../../driver/scheduler.ts';
import { USER_NAME, Use } from '../../embedded/tasks.ts';
import { Guest } from '../../guest/guest.ts';
import type { Process } from '../../guest/process.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../../memory/page.ts';
import { NIL } from '../../memory/page-blocks.ts';
import { Ram } from '../../migration/ram.ts';
import { awaitGuest, migrateAway, type QemuMigrationSummary } from '../../peers/qemu/migration.ts';
import { onQemuEvent } from '../../peers/qemu/qmp-commands.ts';
import { QtestMachine, type QtestMachineOptions } from '../../peers/qemu/qtest-machine.ts';
import { AerostatError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { cpuMsOf } from '../cpu-time.ts';
import { digestOf, fillMemory } from './loopback-memory.ts';

export interface QemuMoveOptions {
  readonly memoryBytes: number;
  readonly connections: number;
  /** May be Infinity, which is what it is when left out. */
  readonly bytesPerSecond?: number;
  readonly downtimeMsMax: number;
  readonly signal: AbortSignal;
}

export interface HintingMoveOptions extends QemuMoveOptions {
  /** What the guest needs of its memory, its kernel included. */
  readonly usedBytes: number;
}

export interface QemuMove {
  /** From the order to migrate until the destination says that the guest runs there. */
  readonly elapsedMs: number;
  /** By QEMU's own account. */
  readonly downtimeMs: number;
  readonly bytes: number;
  /** Of both QEMUs. */
  readonly cpuMs: number;
}

/** Between the source's last word and the destination's. */
const ARRIVAL_MS_MAX = 20_000;
/** Pages that the guest uses in a row: about a millisecond. */
const SLICE_PAGES = 2048;

/** Moves memory of which every page is in use. @throws AerostatError when it arrived changed */
export function moveQemuMemory(options: QemuMoveOptions): Promise<QemuMove> {
  return withQemus(options, {}, async (source, destination) => {
    const ram = new Ram(source.memory);
    fillMemory(ram);
    const moved = await move(source, destination, options);
    checkSame(digestOf(ram) === digestOf(new Ram(destination.memory)));
    return moved;
  });
}

/**
 * Moves a guest that used all of its memory, freed it but for `usedBytes`, and names what is free when it is asked.
 * @throws AerostatError when what it uses arrived changed
 */
export function moveHintingGuest(options: HintingMoveOptions): Promise<QemuMove> {
  const hints = {
    balloon: { 'free-page-hint': 'on', iothread: 'hints' },
    args: ['-object', 'iothread,id=hints'],
  };
  return withQemus(options, hints, async (source, destination) => {
    const guest = await HintingGuest.boot(source, options);
    const moved = await move(source, destination, options);
    checkSame(guest.isIn(destination.memory));
    return moved;
  });
}

async function withQemus(
  { memoryBytes }: QemuMoveOptions,
  machine: Partial<QtestMachineOptions>,
  act: (source: QtestMachine, destination: QtestMachine) => Promise<QemuMove>,
): Promise<QemuMove> {
  const options = { ...machine, memoryBytes, running: true };
  // A source that never had its memory mapped would fault it in page by page while it sends, as none does that has a guest.
  const source = await QtestMachine.start({ ...options, preallocated: true });
  try {
    const args = [...(machine.args ?? []), '-incoming', 'defer'];
    const destination = await QtestMachine.start({ ...options, args });
    try {
      return await act(source, destination);
    } finally {
      await destination.close();
    }
  } finally {
    await source.close();
  }
}

async function move(
  { qemu: source }: QtestMachine,
  { qemu: destination }: QtestMachine,
  { connections, bytesPerSecond = Number.POSITIVE_INFINITY, downtimeMsMax, signal }: QemuMoveOptions,
): Promise<QemuMove> {
  let stopListening = () => {};
  const resumedMs = new Promise<number>(resolve => {
    stopListening = onQemuEvent(destination.qmp, 'RESUME', () => resolve(monotonicMs()));
  });
  try {
    const uri = await awaitGuest(destination.qmp, connections);
    const cpuMs = () => cpuMsOf(source.pid) + cpuMsOf(destination.pid);
    const cpuBeforeMs = cpuMs();
    const startMs = monotonicMs();
    const summary: QemuMigrationSummary = await migrateAway(source.qmp, {
      uri,
      connections,
      downtimeMsMax,
      signal,
      ...(Number.isFinite(bytesPerSecond) ? { bandwidthBytesPerSecond: bytesPerSecond } : {}),
    });
    const late = new AbortController();
    const never = Promise.race([destination.exited, delay(ARRIVAL_MS_MAX, undefined, late)]).then(() => {
      throw destination.endedError('QEMU migrated a guest that does not run at its destination');
    });
    const endMs = await Promise.race([resumedMs, never]).finally(() => late.abort());
    return {
      elapsedMs: endMs - startMs,
      downtimeMs: summary.downtimeMs ?? Number.NaN,
      bytes: summary.transferredBytes,
      cpuMs: cpuMs() - cpuBeforeMs,
    };
  } finally {
    stopListening();
  }
}

function checkSame(same: boolean): void {
  if (!same) throw new AerostatError('AEROSTAT_BENCH', 'memory arrived changed (QEMU)');
}

const scheduler: Scheduler = {
  now: monotonicMs,
  schedule: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

/** The kernel and driver of an embedded guest, and the same use of memory that `bench migrate` makes of one. */
class HintingGuest {
  readonly #memory: GuestMemory;
  readonly #user: Process;

  private constructor(memory: GuestMemory, user: Process) {
    this.#memory = memory;
    this.#user = user;
  }

  static async boot(machine: QtestMachine, { usedBytes, signal }: HintingMoveOptions): Promise<HintingGuest> {
    const { memory } = machine;
    const guest = Guest.boot({ memory, clock: { now: monotonicMs }, seed: 1 });
    const { kernel } = guest;
    const transport = await machine.openBalloon();
    await new BalloonDriver({ kernel, transport, scheduler, profile: profile('virtio') }).probe();
    const user = kernel.spawn(USER_NAME);
    const { totalBytes, freeBytes } = kernel.meminfo();
    const use = new Use(user, Math.floor(Math.max(0, usedBytes - (totalBytes - freeBytes)) / PAGE_SIZE));
    for (; !use.done; await turn(signal)) use.step(SLICE_PAGES);
    const touch = guest.start({ kind: 'touch' });
    for (; !touch.done; await turn(signal)) guest.step(SLICE_PAGES);
    return new HintingGuest(memory, user);
  }

  /** All that the guest uses is there too. */
  isIn(other: GuestMemory): boolean {
    const [here, there] = [new Uint8Array(PAGE_SIZE), new Uint8Array(PAGE_SIZE)];
    for (let index = 0; index < this.#user.extent; index++) {
      const pfn = this.#user.frameOf(index);
      if (pfn === NIL) continue;
      this.#memory.read(gpaOf(pfn), here, 0, PAGE_SIZE);
      other.read(gpaOf(pfn), there, 0, PAGE_SIZE);
      if (Buffer.compare(here, there) !== 0) return false;
    }
    return true;
  }
}

/** Lets QEMU have its answers. */
async function turn(signal: AbortSignal): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
  signal.throwIfAborted();
}
