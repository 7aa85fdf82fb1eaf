/** The memory of a small machine (shared-machine.ts): it has the allocator's state, and tells of what is done to it. */
import { FRAME_BYTES } from '../balloon/shared-frames.ts';
import { type BackingKind, Window, WindowedBacking } from '../memory/backing.ts';
import { GuestMemory, type MemoryRegion } from '../memory/guest-memory.ts';

/** Memory of which the first pages alone are there: the state lies in them. */
export class StateBacking extends WindowedBacking {
  readonly kind: BackingKind = 'heap';
  readonly discardUnit = FRAME_BYTES;
  readonly size: number;
  readonly #window = new Window(new ArrayBuffer(8192), 0, 8192);
  readonly #discarded: (frame: number) => void;

  constructor(size: number, discarded: (frame: number) => void) {
    super();
    this.size = size;
    this.#discarded = discarded;
  }

  window(): Window {
    return this.#window;
  }

  discard(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += FRAME_BYTES) this.#discarded(at / FRAME_BYTES);
  }

  residentBytes(): number {
    return this.size;
  }

  close(): void {}
}

/** Tells of each look at a word, before it is made. */
export class WatchedMemory extends GuestMemory {
  onLook: (gpa: number) => void = () => {};

  override find(gpa: number): MemoryRegion | undefined {
    this.onLook(gpa);
    return super.find(gpa);
  }
}
