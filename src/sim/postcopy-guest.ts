/**
 * The guest of a simulated post-copy, which knows what is in each of its pages, and the destination's pages as a kernel has
 * them, right or with a mistake. The migration and its faults are postcopy-run.ts's.
 */
import type { Random } from '../guest/random.ts';
import { HeapBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { LatePages } from '../migration/machine.ts';
import { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { AerostatError } from '../sys/error.ts';

export const POSTCOPY_MISTAKES = ['overwrites', 'zeros', 'keeps-stale', 'patches-late'] as const;
/** `overwrites`: what arrives is put over what is there. `zeros`: a page that is missing is zeros to the guest that touches
 * it. `keeps-stale`: what was received of a missing page before is kept, and counts as there. `patches-late`: patches of the
 * states are made of what those were a while after they were sent ahead. */
export type PostcopyMistake = (typeof POSTCOPY_MISTAKES)[number];

const WORDS = PAGE_SIZE / 4;

/** What a touch of a page comes to. */
type Touch = 'there' | 'waits';

/** The guest: pages with a number in each, which it knows. */
export class PostcopyGuest {
  readonly ram: Ram;
  /** What it wrote last; 0 where it wrote nothing, or gave the page away. */
  readonly numbers: Uint32Array;
  running = false;
  touch: (slot: number) => Touch = () => 'there';
  gaveAway: (slot: number) => void = () => {};
  readonly #random: Random;
  readonly #log: SoftwareDirtyLog | undefined;
  readonly #page = new Uint8Array(PAGE_SIZE);
  readonly #words = new Uint32Array(this.#page.buffer);
  /** Pages that its threads wait for; each goes on with its page when that is there. */
  readonly #waiting: number[] = [];

  constructor(slots: number, random: Random, log?: SoftwareDirtyLog) {
    const addresses = { guestAddress: 0, size: slots * PAGE_SIZE, userAddress: 2 ** 40 };
    this.ram = new Ram(new GuestMemory([new MemoryRegion(addresses, new HeapBacking(slots * PAGE_SIZE))]));
    this.numbers = new Uint32Array(slots);
    this.#random = random;
    this.#log = log;
  }

  get waits(): boolean {
    return this.#waiting.length > 0;
  }

  /** A moment of its life: four threads, each of which may wait for a page. */
  live(): void {
    const due = this.#waiting.splice(0);
    for (let thread = 0; thread < 4; thread++) this.#use(due[thread] ?? this.#random.below(this.ram.slots));
  }

  /** Looks at a page, and writes to it, or gives it away. */
  #use(slot: number): void {
    if (this.#random.chance(0.1)) {
      this.numbers[slot] = 0;
      this.gaveAway(slot);
      this.ram.clear(slot, 1);
      // The source's guest says so; what another hypervisor's guest gives away may hold anything.
      this.#log?.add(slot, 1);
      return;
    }
    if (this.touch(slot) === 'waits') {
      this.#waiting.push(slot);
      return;
    }
    this.check(slot);
    this.write(slot);
  }

  write(slot: number): void {
    this.numbers[slot] = 1 + this.#random.below(2 ** 30);
    this.#words.fill(this.numbers[slot]);
    this.ram.write(slot, 1, this.#page, 0);
    this.#log?.add(slot, 1);
  }

  check(slot: number): void {
    this.ram.read(slot, 1, this.#page, 0);
    for (const word of [0, WORDS - 1]) {
      if (this.#words[word] === this.numbers[slot]) continue;
      throw new AerostatError(
        'AEROSTAT_SIM_LOST',
        `page ${slot} holds ${this.#words[word]}, and the guest wrote ${this.numbers[slot]}`,
      );
    }
  }
}

/** The destination's pages as a kernel has them. */
export class SimLatePages implements LatePages {
  readonly missing: Int32Array;
  onFaults: (slots: readonly number[]) => void = () => {};
  readonly #bitmap: SlotBitmap;
  readonly #ram: Ram;
  readonly #there: SlotBitmap;
  readonly #mistake: PostcopyMistake | undefined;

  constructor(ram: Ram, mistake: PostcopyMistake | undefined) {
    this.#ram = ram;
    this.#bitmap = new SlotBitmap(ram.slots);
    this.missing = this.#bitmap.words;
    this.#there = new SlotBitmap(ram.slots);
    this.#mistake = mistake;
  }

  forget(ram: Ram, start: number, count: number): void {
    // As a discard of the machine's own does.
    this.#bitmap.clear(start, count);
    if (this.#mistake === 'keeps-stale') this.#there.set(start, count);
    else ram.clear(start, count);
  }

  place(start: number, count: number, from: Uint8Array | undefined, at: number): void {
    for (let page = 0; page < count; page++) {
      const slot = start + page;
      if (this.#mistake !== 'overwrites' && !this.#bitmap.has(slot)) continue;
      this.#bitmap.clear(slot, 1);
      if (this.#there.has(slot)) continue;
      if (from !== undefined) this.#ram.write(slot, 1, from, at + page * PAGE_SIZE);
    }
  }

  touch(slot: number): Touch {
    if (!this.#bitmap.has(slot)) return 'there';
    if (this.#mistake === 'zeros') {
      this.#bitmap.clear(slot, 1);
      return 'there';
    }
    this.onFaults([slot]);
    return 'waits';
  }

  gaveAway(slot: number): void {
    this.#bitmap.clear(slot, 1);
  }

  async close(): Promise<void> {}
}
