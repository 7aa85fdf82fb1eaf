/**
 * One post-copy of QEMU's, for `bench migrate --peer qemu --postcopy`: a QEMU whose guest (a firmware that writes) runs at its
 * destination at once and gets its memory there. Memory is looked at through its file, by reads that fault nothing in.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_SIZE } from '../../memory/page.ts';
import { Ram } from '../../migration/ram.ts';
import { awaitGuest, migrateAway } from '../../peers/qemu/migration.ts';
import { continueGuest, onQemuEvent } from '../../peers/qemu/qmp-commands.ts';
import { QtestMachine } from '../../peers/qemu/qtest-machine.ts';
import { PACE_AT, WORKING_AT, WRITTEN_AT, writingFirmware } from '../../peers/qemu/writing-firmware.ts';
import { AerostatError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { fillMemory } from './loopback-memory.ts';

interface QemuPostcopyOptions {
  readonly memoryBytes: number;
  /** What the guest writes to over and over: the next power of two counts. */
  readonly workingBytes: number;
  /** Writes that the guest is to do in a millisecond, each to a page. */
  readonly writesPerMs: number;
  readonly bytesPerSecond: number;
  readonly signal: AbortSignal;
}

export interface PostcopyMove {
  /** From the order until all of memory is there. */
  readonly elapsedMs: number;
  /** From the source's guest standing still until the destination's goes on. */
  readonly downtimeMs: number;
  /** The guest's work in a millisecond while memory came, against before. */
  readonly workShare: number;
}

/** How long the guest's work is counted before it moves. */
const WORK_MS = 600;
/** The pace is found in so many steps; the last counts have the least to correct. */
const PACE_STEPS = 4;
const PACE_FIRST = 1000;
/** Between the source's last word and the destination's. */
const ARRIVAL_MS_MAX = 20_000;
/** Every so many pages one is compared: a prime. */
const COMPARE_STEP = 61;

export async function movePostcopyGuest(options: QemuPostcopyOptions): Promise<PostcopyMove> {
  const { memoryBytes, workingBytes } = options;
  const workingPages = 2 ** Math.ceil(Math.log2(workingBytes / PAGE_SIZE));
  const end = WORKING_AT + workingPages * PAGE_SIZE;
  if (end > memoryBytes) {
    const needs = `${Math.ceil(end / 2 ** 20)} MiB`;
    throw new AerostatError('AEROSTAT_BENCH', `the guest of QEMU needs ${needs} of memory for this load`);
  }
  const firmware = writingFirmware(workingPages);
  const source = await QtestMachine.start({ memoryBytes, firmware, preallocated: true });
  try {
    const args = ['-incoming', 'defer'];
    const destination = await QtestMachine.start({ memoryBytes, firmware, running: true, args });
    try {
      return await move(source, destination, options, end);
    } finally {
      await destination.close();
    }
  } finally {
    await source.close();
  }
}

async function move(
  source: QtestMachine,
  destination: QtestMachine,
  { writesPerMs, bytesPerSecond, signal }: QemuPostcopyOptions,
  end: number,
): Promise<PostcopyMove> {
  const here = new Ram(source.memory);
  const there = new Ram(destination.memory);
  fillMemory(here);
  await findPace(source, here, writesPerMs);
  const before = await workIn(here, WORK_MS);
  const moments = new Map<string, number>();
  const note = (name: string) => () => void moments.set(name, monotonicMs());
  let wake = () => {};
  const resumed = new Promise<void>(resolve => {
    wake = resolve;
  });
  let writtenAtStop = 0;
  const listening = [
    onQemuEvent(source.qemu.qmp, 'STOP', note('stop')),
    onQemuEvent(destination.qemu.qmp, 'RESUME', () => {
      note('resume')();
      // Not what the destination has of it: that may be among what is to come.
      writtenAtStop = writtenOf(here);
      wake();
    }),
  ];
  try {
    const uri = await awaitGuest(destination.qemu.qmp, 1, { postcopy: true });
    const startMs = monotonicMs();
    const limits = { bandwidthBytesPerSecond: bytesPerSecond, postcopy: true };
    await migrateAway(source.qemu.qmp, { uri, ...limits, signal });
    const endMs = monotonicMs();
    const written = writtenOf(there);
    const late = new AbortController();
    const never = Promise.race([
      destination.qemu.exited,
      delay(ARRIVAL_MS_MAX, undefined, { signal: late.signal }).catch(() => {}),
    ]).then(() => {
      if (late.signal.aborted) return;
      throw destination.qemu.endedError('QEMU migrated a guest that does not run at its destination');
    });
    await Promise.race([resumed, never]).finally(() => late.abort());
    const [stopMs = Number.NaN, resumeMs = Number.NaN] = [moments.get('stop'), moments.get('resume')];
    checkSame(here, there, end);
    const work = ((written - writtenAtStop) >>> 0) / (endMs - resumeMs);
    return { elapsedMs: endMs - startMs, downtimeMs: resumeMs - stopMs, workShare: work / before };
  } finally {
    for (const stop of listening) stop();
  }
}

/** Has the guest do about so many writes in a millisecond. */
async function findPace(machine: QtestMachine, ram: Ram, writesPerMs: number): Promise<void> {
  let pace = PACE_FIRST;
  for (let step = 0; step < PACE_STEPS; step++) {
    ram.write(PACE_AT / PAGE_SIZE, 1, pageOf(pace), 0);
    if (step === 0) await continueGuest(machine.qemu.qmp);
    const measured = await workIn(ram, WORK_MS / 2);
    pace = Math.min(2 ** 30, Math.max(1, Math.round((pace * measured) / writesPerMs)));
  }
}

async function workIn(ram: Ram, elapsedMs: number): Promise<number> {
  const [startMs, start] = [monotonicMs(), writtenOf(ram)];
  await delay(elapsedMs);
  return ((writtenOf(ram) - start) >>> 0) / (monotonicMs() - startMs);
}

function writtenOf(ram: Ram): number {
  const page = new Uint8Array(PAGE_SIZE);
  ram.read(WRITTEN_AT / PAGE_SIZE, 1, page, 0);
  return new DataView(page.buffer).getUint32(0, true);
}

function pageOf(word: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  new DataView(page.buffer).setUint32(0, word, true);
  return page;
}

/** What the guest does not write to is the same on both sides. @throws AerostatError */
function checkSame(here: Ram, there: Ram, from: number): void {
  const [one, other] = [new Uint8Array(PAGE_SIZE), new Uint8Array(PAGE_SIZE)];
  for (let slot = from / PAGE_SIZE; slot < here.slots; slot += COMPARE_STEP) {
    here.read(slot, 1, one, 0);
    there.read(slot, 1, other, 0);
    if (Buffer.compare(one, other) !== 0) {
      throw new AerostatError('AEROSTAT_BENCH', `page ${slot} arrived changed (QEMU, post-copy)`);
    }
  }
}
