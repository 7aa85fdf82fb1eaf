/**
 * Guest memory whose stores are logged, each after it was made: the driver's rings, lists and messages. The pages that
 * the guest's own code writes are logged where it writes them (guest/page-access.ts).
 */
import { GuestMemory, type MemoryRegion } from '../memory/guest-memory.ts';
import { type PageSink, pfnOf } from '../memory/page.ts';

export class LoggedMemory extends GuestMemory {
  readonly #log: PageSink;

  /** `log` takes page frames. */
  constructor(regions: Iterable<MemoryRegion>, log: PageSink) {
    super(regions);
    this.#log = log;
  }

  override setU16(gpa: number, value: number): void {
    super.setU16(gpa, value);
    this.#log.add(pfnOf(gpa), 1);
  }

  override setU32(gpa: number, value: number): void {
    super.setU32(gpa, value);
    this.#log.add(pfnOf(gpa), 1);
  }

  override setU64(gpa: number, value: number): void {
    super.setU64(gpa, value);
    this.#log.add(pfnOf(gpa), 1);
  }

  override atomicStoreU16(gpa: number, value: number): void {
    super.atomicStoreU16(gpa, value);
    this.#log.add(pfnOf(gpa), 1);
  }

  override write(gpa: number, from: Uint8Array, at = 0, length: number = from.length - at): void {
    super.write(gpa, from, at, length);
    this.#wrote(gpa, length);
  }

  override fill(gpa: number, value: number, length: number): void {
    super.fill(gpa, value, length);
    this.#wrote(gpa, length);
  }

  #wrote(gpa: number, length: number): void {
    if (length <= 0) return;
    const first = pfnOf(gpa);
    this.#log.add(first, pfnOf(gpa + length - 1) - first + 1);
  }
}
