/** The memory of `bench migrate`'s loopback measurement, on both sides of it. */
import { createHash } from 'node:crypto';
import { PAGE_SIZE } from '../../memory/page.ts';
import { Ram } from '../../migration/ram.ts';
import { assert } from '../../sys/error.ts';
import type { Descriptor } from '../../sys/fd.ts';
import { readAt, writeAt } from '../../sys/file.ts';
import { createSharedMemory } from '../../vhost-user/shared-memory.ts';

const CHUNK_PAGES = 256;
/** Every so many pages one is looked at: a prime, so that every position of a section has its turn. */
const DIGEST_STEP = 61;
/** Of a memory that is mostly nothing, only so much is looked at. */
const DIGEST_PAGES_MAX = 2 ** 20;

export const createRam = (bytes: number): Ram =>
  new Ram(createSharedMemory({ regions: [{ guestAddress: 0, size: bytes }], name: 'aerostat-bench' }));

export function fileOf({ memory }: Ram): Descriptor {
  const [{ backing }] = memory.regions;
  assert(backing.file !== undefined, 'memory that is no file');
  return backing.file.fd;
}

/** Writes to every page; no two are the same, and none is empty. */
export function fillMemory(ram: Ram, pages: number = ram.slots): void {
  const chunk = new Uint32Array((CHUNK_PAGES * PAGE_SIZE) / 4).map(
    (_, i) => Math.imul(i + 1, 2_654_435_761) | 1,
  );
  for (let slot = 0; slot < pages; slot += CHUNK_PAGES) {
    const count = Math.min(CHUNK_PAGES, pages - slot);
    for (let page = 0; page < count; page++) chunk[(page * PAGE_SIZE) / 4] = slot + page + 1;
    writeAt(fileOf(ram), slot * PAGE_SIZE, new Uint8Array(chunk.buffer), 0, count * PAGE_SIZE);
  }
}

/** Tells two memories apart by a part of their pages. */
export function digestOf(ram: Ram): string {
  const pages = Math.min(ram.slots, DIGEST_PAGES_MAX);
  const hash = createHash('sha256');
  const page = new Uint8Array(PAGE_SIZE);
  for (let slot = 0; slot < pages; slot += DIGEST_STEP) {
    readAt(fileOf(ram), slot * PAGE_SIZE, page, 0, PAGE_SIZE);
    hash.update(page);
  }
  return hash.digest('hex');
}
