/** Inputs of `bench neighbour` that are about the files behind guest memory: what they are, and what else is done to them. */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { FileBacking } from '../../../memory/file-backing.ts';
import { PAGE_SIZE } from '../../../memory/page.ts';
import { GIB, MIB } from '../../../policy/units.ts';
import type { OwnedFd } from '../../../sys/fd.ts';
import { createMemfd } from '../../../sys/file.ts';
import { GATHER_MS } from '../../../threads/discard-link.ts';
import { U64, VRING_STATE } from '../../../vhost-user/protocol.ts';
import { HandFrontEnd, HandRing, type Region, regionMessage } from '../front-end.ts';
import { type HostilePlay, UnplayableError } from '../play.ts';
import type { HostileData } from '../protocol.ts';
import { inflateAndDeflate } from './lists.ts';
import { HOME, LIST_AT } from './rings.ts';

const HUGE_PAGE = 2 * MIB;

/** Writes into a file without end, so much at a time, and holds its lock as long as each takes. */
const WRITER = `
  const { writeSync } = require('node:fs');
  const { workerData: { file, at, bytes } } = require('node:worker_threads');
  const block = Buffer.alloc(bytes, 1);
  for (;;) writeSync(file, block, 0, bytes, at);
`;

/** Makes a file smaller and larger again, until it is sealed. */
const SHRINKER = `
  const { ftruncateSync } = require('node:fs');
  const { parentPort, workerData: { file, bytes, word } } = require('node:worker_threads');
  const at = new Int32Array(word);
  for (;;) {
    Atomics.wait(at, 0, 0);
    try {
      for (;;) {
        ftruncateSync(file, bytes);
        ftruncateSync(file, 0);
      }
    } catch {}
    Atomics.store(at, 0, 0);
  }
`;

/** Puts a ring of the front-end into memory that the daemon took, without touching that memory. */
function startRingIn(frontEnd: HandFrontEnd): void {
  const ring = new HandRing(frontEnd.memory, 0, 64, 0);
  const value = U64.encode({ value: 0n });
  frontEnd.say('SET_VRING_NUM', VRING_STATE.encode({ index: 0, num: 64 }));
  frontEnd.say('SET_VRING_ADDR', ring.addresses());
  frontEnd.say('SET_VRING_KICK', value, [ring.kickFd]);
  frontEnd.say('SET_VRING_ENABLE', VRING_STATE.encode({ index: 0, num: 1 }));
  ring.kick();
  try {
    frontEnd.ask('GET_QUEUE_NUM');
  } finally {
    ring.close();
  }
}

/** Hands `file` over as memory, and a ring in it where the daemon takes it. */
function handOverFile({ socketPath }: HostileData, file: OwnedFd, region: Region): void {
  const frontEnd = new HandFrontEnd(socketPath);
  try {
    frontEnd.negotiate();
    if (frontEnd.accepts('ADD_MEM_REG', regionMessage(region, 0), [file])) startRingIn(frontEnd);
  } finally {
    frontEnd.close();
  }
}

/** Writes into the file again and again, as long as this process lives. */
function keepBusy(file: OwnedFd, at: number, bytes: number): void {
  new Worker(WRITER, { eval: true, workerData: { file: file.number, at, bytes } }).unref();
}

export function lockedFile({ socketPath }: HostileData): HostilePlay {
  const pages = 256;
  const size = 256 * MIB;
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, { guestAddress: GIB, size }]);
  for (let page = 0; page < pages; page++) {
    frontEnd.memory.setU32(LIST_AT + page * 4, GIB / PAGE_SIZE + page);
  }
  const rings = inflateAndDeflate(frontEnd, pages * 4);
  const { fd } = frontEnd.memory.regions[1].backing as FileBacking;
  keepBusy(fd, HOME.size, size);
  return async () => {
    for (const ring of rings) {
      ring.offer(0);
      frontEnd.waitWorkedOff(ring);
      // The punch begins, and waits for the lock.
      await delay(GATHER_MS);
    }
  };
}

export function busyFile({ socketPath }: HostileData): HostilePlay {
  const region = { guestAddress: GIB, size: 256 * MIB };
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME]);
  const file = createMemfd({ name: 'aerostat-busy', size: region.size });
  keepBusy(file, 0, region.size);
  return () => {
    frontEnd.accepts('ADD_MEM_REG', regionMessage(region, 0), [file]);
    frontEnd.accepts('REM_MEM_REG', regionMessage(region, 0));
  };
}

export function shrinkingFile(data: HostileData): HostilePlay {
  const region = { guestAddress: 0, size: 16 * PAGE_SIZE };
  return async () => {
    const file = createMemfd({ name: 'aerostat-shrinking', size: region.size });
    const word = new SharedArrayBuffer(4);
    const workerData = { file: file.number, bytes: region.size, word };
    const worker = new Worker(SHRINKER, { eval: true, workerData });
    await new Promise(resolve => worker.once('online', resolve));
    Atomics.store(new Int32Array(word), 0, 1);
    Atomics.notify(new Int32Array(word), 0);
    try {
      for (let tries = 0; tries < 20; tries++) handOverFile(data, file, region);
    } finally {
      await worker.terminate();
      file.close();
    }
  };
}

const hugeFile = (): OwnedFd =>
  createMemfd({ name: 'aerostat-pool', size: HUGE_PAGE, hugePageSize: HUGE_PAGE });

export function emptyPool(data: HostileData): HostilePlay {
  const region = { guestAddress: 0, size: HUGE_PAGE };
  try {
    hugeFile().close();
  } catch (error) {
    throw new UnplayableError(`this kernel makes no files of huge pages: ${(error as Error).message}`);
  }
  return () => {
    const file = hugeFile();
    try {
      handOverFile(data, file, region);
    } finally {
      file.close();
    }
  };
}
