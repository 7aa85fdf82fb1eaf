/**
 * A balloon device with a guest's hand on it: guest memory, the rings of every queue that was negotiated, and the
 * driver's side of each, to be moved buffer by buffer. No driver logic: a test decides what a guest sends, sense or
 * nonsense. What the device reaches out for is recorded.
 */

import { onTestFinished } from 'vitest';
import { CONFIG } from '../../src/balloon/config-space.ts';
import { MUST_TELL_HOST, type QueueRole } from '../../src/balloon/features.ts';
import { PageList } from '../../src/balloon/page-list.ts';
import { EncodeCursor, type PageListFormat } from '../../src/balloon/page-list-format.ts';
import { listFormat, type Profile, profile, queueRoles } from '../../src/balloon/profiles.ts';
import { BalloonDevice } from '../../src/device/balloon-device.ts';
import type { DeviceHost } from '../../src/device/device-host.ts';
import type { PageAccount } from '../../src/device/page-account.ts';
import type { AccountPlace } from '../../src/device/page-accounts.ts';
import { AnonymousBacking, type Backing, HeapBacking } from '../../src/memory/backing.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../../src/memory/page.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { processClock } from '../../src/sys/monotonic.ts';
import type { GuestBuffer, Returned } from '../../src/testing/hand-queue.ts';
import { RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { layoutOf } from '../../src/virtio/layout.ts';
import { RigQueue } from './rig-queue.ts';

const MIB = 2 ** 20;

/** Rings and lists lie below this page, so that a test has all pages from here on to give away. */
export const FIRST_PAGE = 512;
/** Rings: 64 KiB for each queue. */
const RING_BYTES = 0x1_0000;
/** Lists that the guest sends lie between here and the first page. */
const LISTS = 0x8_0000;

export type Run = readonly [pfn: number, count: number];

export interface RigOptions {
  readonly profile?: string;
  /** Balloon features that the driver takes; all of the profile's if not given. */
  readonly features?: bigint;
  /** Features that are left out of those. */
  readonly without?: bigint;
  /** Balloon features that the device offers; all of the profile's if not given. */
  readonly offered?: bigint;
  readonly ringFeatures?: bigint;
  readonly memory?: 'heap' | 'shmem' | 'anonymous' | { readonly hugePageSize: number };
  readonly memoryBytes?: number;
  /** Of heap memory; see {@link HeapBacking}. */
  readonly discardUnit?: number;
  readonly queueSize?: number;
  /** Others discard, and the device does not wait for them. */
  readonly discardsElsewhere?: boolean;
  /** Where the accounts are, if another device goes on with them. */
  readonly accountPlace?: AccountPlace;
  /** Makes the backing, for tests that want to look over its shoulder. */
  readonly wrapBacking?: (backing: Backing) => Backing;
}

/** What the device told its host. */
export class HostLog implements DeviceHost {
  configChanges = 0;
  pendingMarks = 0;
  hurries = 0;
  discardSoon?: () => void;
  stepSoon?: () => void;
  statisticsSamples = 0;
  hintChanges = 0;
  requestsAnswered = 0;
  readonly badInputs: string[] = [];
  readonly failures: Error[] = [];
  /** What the device told the doorbells of rings. */
  readonly brokenRings: { index: number; error: Error }[] = [];
  readonly actuals: number[] = [];
  readonly accounts: PageAccount[] = [];

  configChanged(): void {
    this.configChanges++;
  }
  accountOpened(account: PageAccount): void {
    this.accounts.push(account);
  }
  pendingMarked(): void {
    this.pendingMarks++;
  }
  badInput(reason: string): void {
    this.badInputs.push(reason);
  }
  discardFailed(error: Error): void {
    this.failures.push(error);
  }
  actualChanged(pages: number): void {
    this.actuals.push(pages);
  }
  statisticsArrived(): void {
    this.statisticsSamples++;
  }
  hintChanged(): void {
    this.hintChanges++;
  }
  requestAnswered(): void {
    this.requestsAnswered++;
  }
}

function createBacking({ memory = 'heap', memoryBytes, discardUnit }: RigOptions): Backing {
  const size = memoryBytes ?? 16 * MIB;
  if (memory === 'heap') return new HeapBacking(size, discardUnit);
  if (memory === 'anonymous') return new AnonymousBacking(size);
  const hugePageSize = memory === 'shmem' ? undefined : memory.hugePageSize;
  const options = { name: 'aerostat-test', size };
  const fd = createMemfd(hugePageSize === undefined ? options : { ...options, hugePageSize });
  return new FileBacking(fd, 0, size);
}

export class DeviceRig {
  readonly profile: Profile;
  readonly features: bigint;
  readonly memory: GuestMemory;
  readonly region: MemoryRegion;
  readonly host = new HostLog();
  readonly device: BalloonDevice;
  /** Pages that the device says the guest does not use. */
  readonly unusedPages = new PageSet(PFN_LIMIT);
  readonly queues: readonly RigQueue[];
  readonly #list = new PageList();
  #placed = LISTS;

  constructor(options: RigOptions = {}) {
    this.profile = profile(options.profile ?? 'virtio');
    const balloon = (options.features ?? this.profile.featureMask) & ~(options.without ?? 0n);
    this.features = balloon | VERSION_1 | (options.ringFeatures ?? 0n);
    const backing = createBacking(options);
    this.region = new MemoryRegion(
      { guestAddress: 0, size: backing.size, userAddress: 0 },
      options.wrapBacking?.(backing) ?? backing,
    );
    this.memory = new GuestMemory([this.region]);
    // Resident from the start, so that what a test sees come and go are its own pages.
    this.memory.fill(0, 0, FIRST_PAGE * PAGE_SIZE);
    if (options.discardsElsewhere === true) this.host.discardSoon = () => this.host.hurries++;
    this.device = new BalloonDevice({
      profile: this.profile,
      features: options.offered ?? this.profile.featureMask,
      host: this.host,
      clock: processClock,
      unusedPages: this.unusedPages,
      accountPlace: options.accountPlace,
    });
    this.device.regionAdded(this.region);
    this.device.setFeatures(this.features);
    const size = options.queueSize ?? 64;
    this.queues = queueRoles(this.profile, this.features).map((role, index) => {
      const base = index * RING_BYTES;
      // A queue of 1024 entries has 16 KiB of descriptors.
      const config = {
        size,
        descriptorArea: base,
        driverArea: base + 0x8000,
        deviceArea: base + 0xc000,
        features: this.features,
      };
      if (layoutOf(config).descriptorArea.size > 0x8000) throw new Error(`no room for a queue of ${size}`);
      return new RigQueue(this, index, role, config).start();
    });
  }

  queue(role: QueueRole): RigQueue {
    const found = this.queues.find(queue => queue.role === role);
    if (found === undefined) throw new Error(`no ${role} queue was negotiated`);
    return found;
  }

  /** The host's own account of the balloon, in pages. */
  get balloonedPages(): number {
    return this.device.accounts.balloonedPages;
  }

  get pendingPages(): number {
    return this.device.accounts.pendingPages;
  }

  get residentBytes(): number {
    return this.region.backing.residentBytes();
  }

  get inflateFormat(): PageListFormat {
    return listFormat(this.profile, this.features);
  }

  inflate(...runs: readonly Run[]): Returned[] {
    return this.sendPages(this.queue('inflate'), this.inflateFormat, runs);
  }

  deflate(...runs: readonly Run[]): Returned[] {
    return this.sendPages(this.queue('deflate'), this.inflateFormat, runs);
  }

  /** Sends the pages in as many buffers of the format as they take, one after the other. */
  sendPages(queue: RigQueue, format: PageListFormat, runs: readonly Run[]): Returned[] {
    const returned: Returned[] = [];
    for (const buffer of this.encode(format, runs)) returned.push(...queue.exchange(buffer));
    return returned;
  }

  /** The buffers that name the pages. `edit` changes a list after it was encoded, an answer's message for example. */
  *encode(
    format: PageListFormat,
    runs: readonly Run[],
    { start = 0, edit = () => {} }: { start?: number; edit?: (list: PageList, last: boolean) => void } = {},
  ): Generator<GuestBuffer> {
    const ranges = PageRanges.of(...runs);
    const cursor = new EncodeCursor();
    const list = this.#list;
    do {
      list.clear();
      list.beginAt(start);
      format.encode(ranges, cursor, list);
      edit(list, cursor.done(ranges));
      yield bufferOf(list);
    } while (!cursor.done(ranges));
  }

  /** Plugs in another region; its pages have contents of their own. */
  addRegion(guestAddress: number, backing: Backing): MemoryRegion {
    const region = new MemoryRegion({ guestAddress, size: backing.size, userAddress: guestAddress }, backing);
    this.memory.add(region);
    this.device.regionAdded(region);
    return region;
  }

  /** Fills pages, which makes them resident. */
  touch(pfn: number, count: number, value = 0xa5): void {
    this.memory.fill(pfn * PAGE_SIZE, value, count * PAGE_SIZE);
  }

  /** The value that all bytes of the page have; undefined when they differ. */
  contentOf(pfn: number): number | undefined {
    const bytes = new Uint8Array(PAGE_SIZE);
    this.memory.read(pfn * PAGE_SIZE, bytes, 0, PAGE_SIZE);
    return bytes.every(byte => byte === bytes[0]) ? bytes[0] : undefined;
  }

  /** One claim by the discarder in the background; whether there was anything. */
  discardSome(): boolean {
    let more = false;
    for (const account of this.device.accounts.all) {
      more = account.pending.discardSome(account.discardUnits).more || more;
    }
    return more;
  }

  readConfig(field: keyof typeof CONFIG.offset): number {
    const bytes = new Uint8Array(4);
    this.device.readConfig(CONFIG.offset[field], bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  writeConfig(field: keyof typeof CONFIG.offset, value: number): void {
    this.device.writeConfig(CONFIG.offset[field], u32(value));
  }

  /** Puts bytes somewhere in guest memory; returns where. */
  place(bytes: Uint8Array): number {
    const address = this.#placed;
    this.#placed += Math.ceil(bytes.length / 16) * 16;
    if (this.#placed > FIRST_PAGE * PAGE_SIZE) throw new Error('no room for another list');
    this.memory.write(address, bytes);
    return address;
  }

  /** The room for lists is free again. */
  forgetLists(): void {
    this.#placed = LISTS;
  }

  close(): void {
    for (const region of [...this.memory.regions]) this.device.regionRemoved(region);
    this.memory.close();
  }
}

/** A copy of a list as buffers of its own. */
function bufferOf(list: PageList): GuestBuffer {
  const ends = [...list.cuts.subarray(0, list.cutCount), list.length];
  const out: Uint8Array[] = [];
  let from = 0;
  for (const end of ends) {
    if (end > from) out.push(list.bytes.slice(from, end));
    from = end;
  }
  const extents = Array.from(
    { length: list.extentCount },
    (_, index) => [list.extentAddresses[index], list.extentLengths[index]] as const,
  );
  return { out, in: extents };
}

/** A rig that is gone when the test is over. */
export function openRig(options: RigOptions = {}): DeviceRig {
  const rig = new DeviceRig(options);
  onTestFinished(() => rig.close());
  return rig;
}

export const packed = { ringFeatures: RING_PACKED } as const;
export const withoutMustTellHost = { without: MUST_TELL_HOST } as const;

/** Page frame numbers as the standard's drivers send them. */
export function pfns(...numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(numbers.length * 4);
  const view = new DataView(bytes.buffer);
  numbers.forEach((pfn, index) => {
    view.setUint32(index * 4, pfn, true);
  });
  return bytes;
}

export const u32 = (value: number): Uint8Array => pfns(value);
