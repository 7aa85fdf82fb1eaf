/**
 * A real kernel's hints are worth what they promise: while a Linux guest is busy, its memory is copied in rounds to a
 * second file, and what it names as free is skipped by the rules of a migration. At a stop, everything in its memory that
 * differs from the copy is replaced by what the copy has, and the guest goes on: with a page too few it would find its
 * files changed, or die.
 *
 * There is no log of what such a guest writes, so each sync stops the guest and compares its memory with what it was at
 * the sync before: a page that is no longer what it was was written. So was one that is no longer what was sent. A page that
 * was written and is what it was at both syncs is missed; it matters only if it was skipped, which is why pages of zeros,
 * the only ones that come again, never are.
 */

import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { decodeShares, MAP_CELLS_MAX } from '../../src/control/memory-map.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { useMemory } from '../../src/peers/linux/workloads.ts';
import { driverModule, driverModuleComplaint } from '../../src/peers/uml/driver-module.ts';
import { UmlGuest } from '../../src/peers/uml/guest.ts';
import type { UmlKernel } from '../../src/peers/uml/kernel.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { describeLinux } from '../support/peers.ts';
import { checksummedFiles, verifyFiles } from './linux/checked-workloads.ts';

const MIB = 2 ** 20;
const GUEST_BYTES = 320 * MIB;
const PAGES = GUEST_BYTES / PAGE_SIZE;
const FILES_BYTES = 64 * MIB;
const TOUCHED_BYTES = 160 * MIB;

vi.setConfig({ testTimeout: 120_000 });

/**
 * Drivers whose hints are trusted so. The kernel's own keeps what it names out of use until DONE; that of linux/ only names
 * it, which the rules of a migration allow. In its fewer rounds it is the same machinery.
 */
const DRIVERS = [
  { title: "the kernel's own driver", device: ['--without', 'reporting'], generation: undefined, rounds: 3 },
  { title: 'the driver of linux/, sg', device: ['--profile', 'sg'], generation: 'sg', rounds: 2 },
] as const;

/** Writes, reads and deletes files all the time; each pass keeps one, under its checksum. */
const BUSY = `mkdir -p /mem/busy && cd /mem/busy && n=0
  while [ ! -e stop ]; do
    dd if=/dev/urandom of=a bs=64k count=64 2>/dev/null; cp a b; rm a
    if [ $((n % 4)) = 0 ]; then mv b keep.$n; md5sum keep.$n >>sums; else rm b; fi
    [ $n -ge 40 ] && { rm -f keep.$((n - 40)); grep -v "keep.$((n - 40))$" sums >s2; mv s2 sums; }
    n=$((n + 1))
  done; md5sum -c sums >/dev/null && echo sound`;

/** The guest's memory by a descriptor of the daemon's. */
function openMemory(pid: number | undefined): number {
  const directory = `/proc/${pid}/fd`;
  for (const name of readdirSync(directory)) {
    const path = `${directory}/${name}`;
    try {
      // The kernel keeps a little more than it was told to.
      if (statSync(path).size >= GUEST_BYTES && /vm_file|\(deleted\)|memfd/.test(readlinkSync(path)))
        return openSync(path, 'r+');
    } catch {
      // It was closed meanwhile.
    }
  }
  throw new Error('the daemon has no guest memory');
}

function readAll(fd: number, into: Buffer): void {
  for (let at = 0; at < GUEST_BYTES; ) at += readSync(fd, into, at, Math.min(GUEST_BYTES - at, 64 * MIB), at);
}

const ZEROS = Buffer.alloc(PAGE_SIZE);

const page = (bytes: Buffer, number: number): Buffer =>
  bytes.subarray(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);

function* differences(a: Buffer, b: Buffer): Generator<number> {
  for (let number = 0; number < PAGES; number++) {
    if (page(a, number).compare(page(b, number)) !== 0) yield number;
  }
}

/** State letters of the guest's processes, the kernel's first. */
function statesOf(leader: number): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(name => {
      try {
        const [, rest] = readFileSync(`/proc/${name}/stat`, 'utf8').split(/\) (?=[A-Za-z] )/);
        const [state, , group] = rest.split(' ');
        return Number(group) === leader ? [state] : [];
      } catch {
        return [];
      }
    });
}

/**
 * The kernel stands still, and so does every process that it traces, as soon as it needs its kernel. What sleeps are
 * helpers of the kernel's, which wait for descriptors and write to no memory of the guest's.
 */
async function stopped(guest: UmlGuest, look: () => void): Promise<void> {
  const { pid } = guest;
  process.kill(pid, 'SIGSTOP');
  try {
    for (let tries = 0; !statesOf(pid).every(state => /^[tTSZX]$/.test(state)); tries++) {
      if (tries > 2000) throw new Error(`its processes do not stand still: ${statesOf(pid)}`);
      await delay(2);
    }
    look();
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

async function hintedPages(daemon: DaemonProcess): Promise<Uint8Array> {
  await daemon.control.hint('g', { action: 'start' });
  await daemon.untilGuest('g', ({ hint }) => hint.state === 'stopped');
  const hinted = new Uint8Array(PAGES);
  const { memoryBytes } = await daemon.control.guest('g');
  for (let first = 0; first < (memoryBytes ?? 0) / PAGE_SIZE; first += MAP_CELLS_MAX) {
    const map = await daemon.control.map('g', {
      fromBytes: first * PAGE_SIZE,
      bytes: MAP_CELLS_MAX * PAGE_SIZE,
    });
    expect(map.cellBytes).toBe(PAGE_SIZE);
    const shares = decodeShares(map.layers.hinted ?? '', map.bytes / PAGE_SIZE);
    // The device is given all but the kernel's own first pages; file and addresses count alike.
    expect(map.regions).toHaveLength(1);
    const start = map.regions[0].guestAddress / PAGE_SIZE + first;
    for (const [cell, share] of shares.entries()) if (start + cell < PAGES) hinted[start + cell] = share;
  }
  return hinted;
}

const driverFor = async (kernel: UmlKernel, generation: string | undefined) =>
  generation === undefined
    ? { kernel }
    : {
        kernel: { ...kernel, balloonModule: await driverModule(kernel) },
        moduleParameters: [`generation=${generation}`],
      };

describeLinux('a copy of a busy Linux guest without what it hints', kernel => {
  test.for(DRIVERS)(
    'has every page that the guest needs: the guest goes on with it ($title)',
    async ({ device, generation, rounds }, { skip }) => {
      const complaint = generation === undefined ? undefined : driverModuleComplaint(kernel);
      if (complaint !== undefined) skip(complaint.message);
      const driver = await driverFor(kernel, generation);
      const daemon = await DaemonProcess.start(['g'], device);
      let guest: UmlGuest | undefined;
      let memory: number | undefined;
      const copy: OwnedFd = createMemfd({ name: 'copy', size: GUEST_BYTES });
      try {
        guest = await UmlGuest.boot({
          memoryBytes: GUEST_BYTES,
          sockets: [daemon.socketOf('g')],
          ...driver,
        });
        memory = openMemory(daemon.child.pid);
        await checksummedFiles(guest, FILES_BYTES);
        // Written to and freed: the host holds it, the guest does not need it, and it is not zeros, so that the copy lacks it visibly.
        const write = `dd if=/dev/urandom of=/mem/touched bs=1M count=${TOUCHED_BYTES / MIB}`;
        await guest.check(`${write} && rm /mem/touched`, { timeoutMs: 60_000 });
        const busy = guest.run(BUSY, { timeoutMs: 100_000 });
        // Whatever fails first is what is told.
        busy.catch(() => {});

        const image = Buffer.alloc(GUEST_BYTES);
        const before = Buffer.alloc(GUEST_BYTES);
        const now = Buffer.alloc(GUEST_BYTES);
        const fd = memory;
        let [sent, skipped, races] = [0, 0, 0];
        let dirty = new Set(Array.from({ length: PAGES }, (_, number) => number));
        let lastSkipped = new Set<number>();
        await stopped(guest, () => readAll(fd, before));
        for (let round = 0; round < rounds; round++) {
          // Hints count from the sync on; what is written later is in the log of the next one.
          const hinted = await hintedPages(daemon);
          const skippedNow = new Set<number>();
          const sentNow: number[] = [];
          for (const number of dirty) {
            if (hinted[number] > 0 && page(before, number).compare(ZEROS) !== 0) {
              skippedNow.add(number);
              continue;
            }
            readSync(fd, page(image, number), 0, PAGE_SIZE, number * PAGE_SIZE);
            writeSync(copy.number, page(image, number), 0, PAGE_SIZE, number * PAGE_SIZE);
            sentNow.push(number);
          }
          skipped += skippedNow.size;
          lastSkipped = new Set([...lastSkipped, ...skippedNow]);
          await stopped(guest, () => readAll(fd, now));
          sent += sentNow.length;
          const changed = sentNow.filter(number => page(image, number).compare(page(now, number)) !== 0);
          dirty = new Set([...differences(before, now), ...changed]);
          for (const number of dirty) if (lastSkipped.has(number)) races++;
          now.copy(before);
        }
        let replaced = 0;
        await stopped(guest, () => {
          // The last sync, and all that is left: the guest hints no more.
          readAll(fd, now);
          for (const number of new Set([...dirty, ...differences(before, now)])) {
            page(now, number).copy(page(image, number));
            writeSync(copy.number, page(now, number), 0, PAGE_SIZE, number * PAGE_SIZE);
          }
          for (const number of differences(image, now)) {
            replaced++;
            writeSync(fd, page(image, number), 0, PAGE_SIZE, number * PAGE_SIZE);
          }
        });
        await daemon.control.hint('g', { action: 'done' });
        // It works on with what was copied.
        await delay(500);
        await guest.check(': >/mem/busy/stop');
        expect((await busy).output.trim()).toBe('sound');
        await verifyFiles(guest);
        await useMemory(guest, TOUCHED_BYTES / 2);
        await verifyFiles(guest);
        console.info(
          `Linux image: ${PAGES} pages, ${sent} sent in ${rounds} rounds, ${skipped} skipped as hinted, ${races} written after that, ` +
            `${replaced} different at the stop, and free`,
        );
        // Most of what was written once and freed was never sent, and so the copy differs in it.
        expect(skipped).toBeGreaterThan(TOUCHED_BYTES / PAGE_SIZE / 2);
        expect(replaced).toBeGreaterThan(TOUCHED_BYTES / PAGE_SIZE / 2);
      } finally {
        if (memory !== undefined) closeSync(memory);
        copy.close();
        await guest?.shutdown();
        await daemon.stop();
      }
    },
  );
});
