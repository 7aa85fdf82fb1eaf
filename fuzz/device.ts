/**
 * The whole device over memory tables of every kind, many, tiny, huge, adjacent and sparse regions, fed with long lists and
 * chains. The first bytes choose ABI, ring and table, and eight bytes a step what the guest sends. A turn that costs more
 * than its share, a buffer that does not come back, or an account that does not add up is a finding.
 */

import { FREE_PAGE_HINT, MUST_TELL_HOST, STATS_VQ } from '../src/balloon/features.ts';
import { LIST_BYTES_MAX, PageList, PageListError } from '../src/balloon/page-list.ts';
import { EncodeCursor, type EncodeLimits, type PageListFormat } from '../src/balloon/page-list-format.ts';
import { listFormat, PROFILE_NAMES, profile, queueRoles } from '../src/balloon/profiles.ts';
import { BalloonDevice } from '../src/device/balloon-device.ts';
import type { DeviceHost } from '../src/device/device-host.ts';
import { WORK_PER_TURN } from '../src/device/turn.ts';
import { HeapBacking, WindowedBacking } from '../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../src/memory/page.ts';
import { PageRanges } from '../src/memory/page-ranges.ts';
import { assert } from '../src/sys/error.ts';
import { processClock } from '../src/sys/monotonic.ts';
import { BUFFER_BYTES_MAX, SegmentList } from '../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../src/virtio/create.ts';
import { RING_INDIRECT_DESC, RING_PACKED, VERSION_1 } from '../src/virtio/features.ts';

const HEADER_BYTES = 6;
const STEP_BYTES = 8;
/** A history of more teaches nothing that a shorter one does not. */
const STEPS_MAX = 6;
const MIB = 2 ** 20;
const GIB_PAGES = 2 ** 18;

/** Rings and lists lie here; the regions that are given away begin behind. */
const HOME_BYTES = 4 * MIB;
const LIST_AT = 2 * MIB;
const FIRST_PFN = GIB_PAGES;
const RING_BYTES = 0x2_0000;
const QUEUE_SIZE = 1024;

const REGION_PAGES = [1, 2, 16, 512, 4099, 2 ** 15, 2 ** 18 + 3, 2 ** 28, 2 ** 30] as const;
const GAP_PAGES = [0, 0, 1, 512, 2 ** 20] as const;
const RUN_PAGES = [1, 1, 2, 31, 512, 2 ** 15, 2 ** 20, 2 ** 31] as const;
const REGIONS_MAX = 508;
/** What may be marked as pending: above it the device would discard in this thread, terabytes of nothing. */
const MARKED_PAGES_MAX = 2 ** 19;
const MEMORY_PAGES_MAX = 2 ** 32;
/** A turn's share, and what one buffer and one part of a run add to it. */
const TURN_WORK_MAX = 2 * WORK_PER_TURN + LIST_BYTES_MAX + QUEUE_SIZE * 64;
const TURNS_MAX = 20_000;

/** Memory that takes everything and holds nothing. */
class SparseBacking extends WindowedBacking {
  readonly kind = 'shmem';
  readonly discardUnit = PAGE_SIZE;
  readonly size: number;

  constructor(size: number) {
    super();
    this.size = size;
  }

  window(): never {
    throw new PageListError('range', 'a guest put its rings or lists where nothing is');
  }
  discard(): void {}
  residentBytes(): number {
    return 0;
  }
  close(): void {}
}

const nothing = (): void => {};
/** A host that ignores what its device reports. */
export const IDLE_HOST: DeviceHost = {
  configChanged: nothing,
  accountOpened: nothing,
  pendingMarked: nothing,
  badInput: nothing,
  discardFailed: nothing,
  actualChanged: nothing,
  statisticsArrived: nothing,
  hintChanged: nothing,
  requestAnswered: nothing,
};

/** The memory table that the header asks for; its pages from {@link FIRST_PFN} on. */
function tableOf(header: DataView, pagesMax: number): { memory: GuestMemory; endPfn: number } {
  const count = Math.min(REGIONS_MAX, 1 + header.getUint8(2) * 2);
  const memory = new GuestMemory([
    new MemoryRegion({ guestAddress: 0, size: HOME_BYTES, userAddress: 0 }, new HeapBacking(HOME_BYTES)),
  ]);
  let pfn = FIRST_PFN;
  let left = pagesMax;
  for (let index = 0; index < count && left > 0; index++) {
    const wanted =
      REGION_PAGES[(header.getUint8(3) + index * (header.getUint8(4) & 3)) % REGION_PAGES.length];
    const pages = Math.min(wanted, left);
    const addresses = { guestAddress: gpaOf(pfn), size: gpaOf(pages), userAddress: gpaOf(pfn) };
    memory.add(new MemoryRegion(addresses, new SparseBacking(gpaOf(pages))));
    left -= pages;
    pfn += pages + GAP_PAGES[(header.getUint8(4) >>> 2) % GAP_PAGES.length];
  }
  return { memory, endPfn: pfn };
}

/**
 * Inputs name a profile by its place, those that were kept as well. What a guest may say by `shared` is not among them: it
 * is tried in test/device/shared-allocator.test.ts.
 */
const NAMES = PROFILE_NAMES.filter(name => name !== 'shared');

export function target(bytes: Uint8Array): void {
  if (bytes.length < HEADER_BYTES) return;
  const header = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const abi = profile(NAMES[header.getUint8(0) % NAMES.length]);
  const flags = header.getUint8(1);
  const marks = (flags & 4) === 0;
  const { memory, endPfn } = tableOf(header, marks ? MARKED_PAGES_MAX : MEMORY_PAGES_MAX);
  const balloon = abi.featureMask & ~STATS_VQ & ~((flags & 1) === 0 ? 0n : MUST_TELL_HOST);
  const rings = (flags & 2) === 0 ? 0n : RING_PACKED;
  const features =
    (abi.poisonFeature !== 0n ? balloon & ~FREE_PAGE_HINT : balloon) | VERSION_1 | rings | RING_INDIRECT_DESC;
  const device = new BalloonDevice({
    profile: abi,
    features: balloon,
    host: IDLE_HOST,
    clock: processClock,
    unusedPages: { add: nothing },
  });
  device.inflation.mode = marks ? 'auto' : 'none';
  device.setFeatures(features);
  for (const region of memory.regions) device.regionAdded(region);
  const roles = queueRoles(abi, features);
  const format = listFormat(abi, features);
  const queues = ['inflate', 'deflate'].map((_, index) => {
    const base = index * RING_BYTES;
    const config = {
      size: QUEUE_SIZE,
      features,
      descriptorArea: base,
      driverArea: base + 0x8000,
      deviceArea: base + 0x1_0000,
    };
    const driver = createDriverQueue(config);
    driver.initialize(memory);
    device.startQueue(index, createDeviceQueue(config), memory, {
      interrupt: nothing,
      fail: ({ message }) => assert(false, `a ring in order was given up: ${message}`),
    });
    return driver;
  });
  assert(roles[0] === 'inflate' && roles[1] === 'deflate', 'queues are elsewhere');

  const list = new PageList();
  const segments = new SegmentList();
  const used = { token: 0, written: 0 };
  const { budget } = device.accounts;
  let steps = 0;
  for (
    let at = HEADER_BYTES;
    at + STEP_BYTES <= bytes.length && steps < STEPS_MAX;
    at += STEP_BYTES, steps++
  ) {
    const step = new DataView(bytes.buffer, bytes.byteOffset + at, STEP_BYTES);
    const index = step.getUint8(0) & 1;
    const ranges = rangesOf(step, FIRST_PFN, endPfn);
    if (takesLongToWrite(format, ranges)) continue;
    list.clear();
    try {
      format.encode(ranges, new EncodeCursor(), list, longestOf(format, 512));
    } catch (error) {
      // A page that the format cannot name.
      if (!(error instanceof PageListError)) throw error;
      continue;
    }
    memory.write(LIST_AT, list.bytes, 0, list.length);
    cutList(segments, list, LIST_AT, 1 + (step.getUint8(7) >>> 1));
    // Segments that span regions, for the look-ups alone: such a buffer is refused.
    if ((step.getUint8(7) & 1) !== 0) segments.addWritable(gpaOf(FIRST_PFN), PAGE_SIZE);
    if (segments.readableBytes + segments.writableBytes > BUFFER_BYTES_MAX) continue;
    if (!queues[index].addBuffer(memory, segments, 0)) continue;
    queues[index].publish(memory);
    let turns = 0;
    for (let more = true; more; turns++) {
      const before = budget.spent;
      more = device.serveQueue(index);
      assert(budget.spent - before <= TURN_WORK_MAX, `a turn of ${budget.spent - before} units of work`);
      assert(turns < TURNS_MAX, 'a list without an end');
    }
    assert(queues[index].popUsed(memory, used), 'a buffer does not come back');
    checkAccounts(device);
  }
  device.reset();
  assert(device.accounts.balloonedPages === 0 && device.accounts.pendingPages === 0, 'a reset forgets all');
}

/** The longest lists that the format has: a header and bitmaps are as many buffers as its driver sends at most. */
export const longestOf = (format: PageListFormat, extentsMax: number): EncodeLimits => ({
  bytesMax: format.name === 'page-bitmap' ? format.limits.bytesMax : LIST_BYTES_MAX - 64,
  extentsMax,
});

/** A driver writes a bitmap bit after bit: what takes long here would be its work, not the device's. */
export const takesLongToWrite = (format: PageListFormat, ranges: PageRanges): boolean =>
  format.name === 'page-bitmap' && ranges.pages > 2 ** 24;

/** Runs of equal length and distance, up and down, within the table and a little beyond. */
export function rangesOf(step: DataView, firstPfn: number, endPfn: number): PageRanges {
  const ranges = new PageRanges();
  const length = RUN_PAGES[step.getUint8(1) % RUN_PAGES.length];
  const stride = length + (step.getUint8(2) % 8) * 2 ** (step.getUint8(3) % 24);
  const runs = 2 ** (step.getUint8(4) % 13);
  const span = endPfn - firstPfn + 1;
  const first = Math.floor((step.getUint16(5, true) / 2 ** 16) * span);
  for (let run = 0; run < runs; run++) ranges.append(firstPfn + ((first + run * stride) % span), length);
  return ranges;
}

/** The list at guest address `listAt` as a guest sends it, cut into so many buffers to read. */
export function cutList(segments: SegmentList, list: PageList, listAt: number, pieces: number): void {
  segments.clear();
  const piece = Math.max(4, Math.ceil(list.length / pieces / 4) * 4);
  for (let at = 0; at < list.length; at += piece) {
    segments.addReadable(listAt + at, Math.min(piece, list.length - at));
  }
  for (let extent = 0; extent < list.extentCount; extent++) {
    segments.addWritable(list.extentAddresses[extent], list.extentLengths[extent]);
  }
}

/** What the map of the API would show has as many cells. */
const MAP_CELLS = 64;

/** Accounts add up: as the device counts, and as the map of the API does, cell by cell. */
export function checkAccounts({ accounts }: BalloonDevice): void {
  let pages = 0;
  for (const { ballooned } of accounts.all) {
    assert(
      ballooned.countIn(0, ballooned.length) === ballooned.total,
      'a count of blocks is not that of pages',
    );
    pages += ballooned.total;
    const cellPages = Math.ceil((ballooned.length * accounts.all.length) / MAP_CELLS);
    let inCells = 0;
    for (let page = 0; page < ballooned.length; page += cellPages) {
      inCells += ballooned.countIn(page, Math.min(cellPages, ballooned.length - page));
    }
    assert(inCells === ballooned.total, 'the cells of a map do not add up');
  }
  assert(pages === accounts.balloonedPages && pages <= accounts.memoryPages, `${pages} pages are ballooned`);
  assert(accounts.pendingPages <= pages, 'more is pending than ballooned');
}

export const targets: Record<string, (bytes: Uint8Array) => void> = { 'device-tables': target };
