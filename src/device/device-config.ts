/**
 * The configuration space as the device keeps it: a few fields of its own, and those that the driver writes, which are
 * reported and never trusted (`balloon/config-space.ts` has the layout and who writes what).
 */
import { applyDriverWrite, CONFIG } from '../balloon/config-space.ts';

const { numPages, actual, poisonValue, freePageHintCommandId } = CONFIG.offset;

/** The largest balloon that 32 bits say: 16 TiB. */
const PAGES_MAX = 0xffff_ffff;

const bounded = (pages: number): number => Math.min(Math.max(0, Math.floor(pages)), PAGES_MAX);

export class DeviceConfig {
  readonly #bytes = new Uint8Array(CONFIG.size);
  readonly #view = new DataView(this.#bytes.buffer);
  /** How much of it the driver sees. */
  readonly #length: number;
  /** Whether a driver has said what its balloon holds, or began with an empty one. */
  actualKnown = false;
  /** Pages of the target that the host takes by itself, and those that it has taken: the driver has no part in them. */
  #asidePages = 0;
  heldPages = 0;
  #targetPages = 0;
  #targetLimitPages = PAGES_MAX;

  constructor(length: number) {
    this.#length = length;
  }

  /** What the balloon should hold, in 4 KiB pages. */
  get targetPages(): number {
    return this.#targetPages;
  }

  /** The driver is shown no more than this of any target. */
  get targetLimitPages(): number {
    return this.#targetLimitPages;
  }

  /** Both are rounded and bounded to what the field can say. */
  aim(targetPages: number, limitPages: number): void {
    this.#targetPages = bounded(targetPages);
    this.#targetLimitPages = bounded(limitPages);
    this.#view.setUint32(numPages, Math.max(0, this.shownTargetPages - this.#asidePages), true);
  }

  /** So many pages of the target are not the driver's to give. */
  set asidePages(pages: number) {
    this.#asidePages = bounded(pages);
    this.aim(this.#targetPages, this.#targetLimitPages);
  }

  /** What driver and device are to give of the target. */
  get shownTargetPages(): number {
    return Math.min(this.#targetPages, this.#targetLimitPages);
  }

  /** What the driver sees of the target. */
  get driverPages(): number {
    return this.#view.getUint32(numPages, true);
  }

  /** In 4 KiB pages, as the driver wrote it. */
  get actualPages(): number {
    return this.#view.getUint32(actual, true);
  }

  set actualPages(pages: number) {
    this.#view.setUint32(actual, pages, true);
  }

  get poisonValue(): number {
    return this.#view.getUint32(poisonValue, true);
  }

  set poisonValue(value: number) {
    this.#view.setUint32(poisonValue, value, true);
  }

  get hintCommandId(): number {
    return this.#view.getUint32(freePageHintCommandId, true);
  }

  set hintCommandId(id: number) {
    this.#view.setUint32(freePageHintCommandId, id, true);
  }

  /** Fills `into` from `offset` on; what lies beyond the end is 0. */
  read(offset: number, into: Uint8Array): void {
    into.fill(0);
    const end = Math.min(offset + into.length, this.#length);
    for (let at = offset; at < end; at++) into[at - offset] = this.#bytes[at];
  }

  /** Takes over what of it is the driver's to write. Whether a byte changed. */
  write(offset: number, bytes: Uint8Array): boolean {
    this.actualKnown ||= namesActual(offset, bytes.length);
    return applyDriverWrite(this.#bytes.subarray(0, this.#length), offset, bytes);
  }

  /** The driver starts over. The target stays, it is the host's. */
  reset(): void {
    this.actualKnown = false;
    this.actualPages = 0;
    this.poisonValue = 0;
  }
}

/** Whether a write of `length` bytes at `offset` says what the balloon holds. */
const namesActual = (offset: number, length: number): boolean =>
  offset <= actual && offset + length >= actual + 4;
