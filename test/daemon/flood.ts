/** A guest that gives its device no rest, from a thread of its own so that the test can do something meanwhile. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { createEventFd } from '../../src/sys/fd.ts';
import { AVAIL_ELEMENT, DESCRIPTOR, RING_HEADER } from '../../src/virtio/layout.ts';
import { payloads } from '../vhost-user/conversation.ts';
import { PFNS_PER_BUFFER, pfnList } from './hand-guest.ts';
import type { RawFrontEnd } from './raw-front-end.ts';

const SIZE = 64;
const RING = { size: SIZE, features: 0n, descriptorArea: 0, driverArea: 0x1000, deviceArea: 0x2000 };
const LIST = 0x1_0000;
const FIRST_PAGE = 512;

/**
 * Kicks all the time and, with `refill`, offers all buffers of the ring again as soon as they come back. It writes
 * into guest memory as into the file that it is.
 */
const PROGRAM = `
  const { readSync, writeSync } = require('node:fs');
  const { workerData: { kick, file, availAt, usedAt, size, refill, stop } } = require('node:worker_threads');
  const stopped = new Int32Array(stop);
  const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
  const index = Buffer.alloc(2);
  while (Atomics.load(stopped, 0) === 0) {
    if (refill) {
      readSync(file, index, 0, 2, usedAt);
      index.writeUInt16LE((index.readUInt16LE() + size) & 0xffff);
      writeSync(file, index, 0, 2, availAt);
    }
    try { writeSync(kick, one); } catch {}
  }
`;

/** Starts the inflate ring of `frontEnd`, and floods the device until the returned function is called. */
export async function flood(
  frontEnd: RawFrontEnd,
  { refill }: { readonly refill: boolean },
): Promise<() => Promise<void>> {
  const { memory } = frontEnd;
  const list = pfnList(FIRST_PAGE, PFNS_PER_BUFFER);
  memory.write(LIST, list);
  for (let head = 0; head < SIZE; head++) {
    const descriptor = { address: LIST, length: list.length, flags: 0, next: 0 };
    memory.write(RING.descriptorArea + head * DESCRIPTOR.size, DESCRIPTOR.encode(descriptor));
    memory.setU16(RING.driverArea + RING_HEADER.size + head * AVAIL_ELEMENT.size, head);
  }
  const kick = createEventFd();
  await frontEnd.handOver();
  frontEnd.say('SET_VRING_NUM', payloads.state(0, SIZE));
  frontEnd.say('SET_VRING_ADDR', payloads.addresses(RING, 0));
  frontEnd.say('SET_VRING_KICK', payloads.u64(0), [kick]);
  frontEnd.say('SET_VRING_ENABLE', payloads.state(0, 1));
  await frontEnd.ask('GET_QUEUE_NUM');
  const stop = new SharedArrayBuffer(4);
  const worker = new Worker(PROGRAM, {
    eval: true,
    workerData: {
      kick: kick.number,
      file: frontEnd.file.number,
      availAt: RING.driverArea + RING_HEADER.offset.index,
      usedAt: RING.deviceArea + RING_HEADER.offset.index,
      size: SIZE,
      refill,
      stop,
    },
  });
  await once(worker, 'online');
  return async () => {
    Atomics.store(new Int32Array(stop), 0, 1);
    await once(worker, 'exit');
    kick.close();
  };
}
