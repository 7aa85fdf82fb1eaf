/** The kernel on the allocator that a host may share, while a host takes and returns frames; and what its checks find. */
import { describe, expect, it } from 'vitest';
import {
  FRAME_BYTES,
  FRAME_EVICTED,
  FRAME_FREE,
  FRAME_HELD,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  sharedWordCount,
  treeOf,
} from '../../src/balloon/shared-frames.ts';
import { GFP_MOVABLE } from '../../src/guest/gfp.ts';
import { Guest } from '../../src/guest/guest.ts';
import { Random } from '../../src/guest/random.ts';
import { SharedKernel } from '../../src/guest/shared-kernel.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { SharedWords } from '../../src/memory/shared-words.ts';
import { heapMemory, SEED } from './guest.ts';

const MIB = 256;

/** A host that does by hand what the device does with threads: each call is a step of it. */
class HandHost {
  readonly #kernel: SharedKernel;
  readonly #words: SharedWords;
  readonly #random = new Random(SEED);
  /** How many frames it has held so far. */
  held = 0;

  constructor(kernel: SharedKernel) {
    this.#kernel = kernel;
    const { address, frames } = kernel.table;
    this.#words = new SharedWords(kernel.memory, address, sharedWordCount(frames));
  }

  #each(from: number, act: (frame: number) => void, share: number): void {
    for (let frame = 1; frame < this.#kernel.table.frames; frame++)
      if (this.#words.load(frame) === from && this.#random.below(100) < share) act(frame);
  }

  #tree(frame: number, pages: number): void {
    this.#words.add(this.#kernel.table.frames + treeOf(frame), pages);
  }

  /** What a discard does. */
  #discard(frame: number): void {
    this.#kernel.memory.fill(frame * FRAME_BYTES, 0, FRAME_BYTES);
  }

  step(): void {
    this.#each(
      FRAME_RECLAIMING,
      frame => {
        this.#discard(frame);
        this.#words.replace(frame, FRAME_RECLAIMING, FRAME_EVICTED);
      },
      60,
    );
    this.#each(FRAME_FREE, frame => this.#words.replace(frame, FRAME_FREE, FRAME_RECLAIMING), 60);
    this.#each(
      FRAME_EVICTED,
      frame => {
        this.#words.replace(frame, FRAME_EVICTED, FRAME_HELD);
        this.#tree(frame, -FRAME_PAGES);
        this.held++;
      },
      20,
    );
    this.#each(
      FRAME_HELD,
      frame => {
        this.#words.replace(frame, FRAME_HELD, FRAME_FREE);
        this.#tree(frame, FRAME_PAGES);
      },
      50,
    );
  }
}

describe(`a kernel whose free frames come and go (AEROSTAT_SEED=${SEED})`, () => {
  it('keeps what its workloads wrote, finds zeros where it is told so, and has all back in the end', () => {
    const guest = Guest.bootShared({ memory: heapMemory(48), seed: SEED, checkZeros: true });
    const { kernel } = guest;
    const all = kernel.frames.freePages;
    const host = new HandHost(kernel);
    const workloads = [
      guest.start({ kind: 'build', jobs: 4 }),
      guest.start({ kind: 'churn', pages: 12 * MIB }),
    ];
    for (let i = 0; i < 400; i++) {
      guest.step(500);
      host.step();
      if (i % 20 === 0) kernel.checkInvariants();
      // The trees say what the words say, for the host stands still.
      expect(kernel.frames.countedPages).toBe(kernel.frames.freePages);
    }
    expect(host.held).toBeGreaterThan(100);
    expect(guest.verify()).toBeGreaterThan(1000);
    expect(kernel.zeroFaults).toBe(0);
    for (const workload of workloads) workload.stop();
    guest.step(1);
    kernel.shrinkAll();
    kernel.dropCaches();
    kernel.hostGone();
    expect(kernel.checkInvariants()).toEqual({ free: all, allocated: 0, held: 0 });
  });

  it('counts pages that are said to be zeros and are not', () => {
    const guest = Guest.bootShared({ memory: heapMemory(16), seed: SEED, checkZeros: true });
    const { kernel } = guest;
    const { address, frames } = kernel.table;
    const words = new SharedWords(kernel.memory, address, sharedWordCount(frames));
    kernel.memory.fill(FRAME_BYTES, 0x55, FRAME_BYTES);
    words.replace(1, FRAME_FREE, FRAME_EVICTED);
    while (kernel.zeroFaults === 0 && kernel.allocate(0, GFP_MOVABLE) !== NIL);
    expect(kernel.zeroFaults).toBe(1);
  });

  it('sees in time that the host has taken what it thought free, and that it came back', () => {
    const kernel = new SharedKernel({ memory: heapMemory(32) });
    const { address, frames } = kernel.table;
    const words = new SharedWords(kernel.memory, address, sharedWordCount(frames));
    const { low } = kernel.allocator.keptPages;
    for (let frame = 2; frame < frames; frame++) {
      words.replace(frame, FRAME_FREE, FRAME_HELD);
      words.add(frames + treeOf(frame), -FRAME_PAGES);
    }
    const free = kernel.frames.freePages;
    let got = 0;
    while (kernel.allocator.allocate(0, GFP_MOVABLE, 'low') !== NIL) got++;
    // It counts anew every 64 pages, and so goes below its mark by no more.
    expect(free - got).toBeGreaterThan(low - 64);
    expect(free - got).toBeLessThanOrEqual(low);
    expect(kernel.checkInvariants().held).toBe((frames - 2) * FRAME_PAGES);
    words.replace(2, FRAME_HELD, FRAME_FREE);
    words.add(frames + treeOf(2), FRAME_PAGES);
    expect(kernel.allocator.allocate(0, GFP_MOVABLE, 'low')).not.toBe(NIL);
  });
});

describe('what is checked of it', () => {
  const boot = () => {
    const kernel = new SharedKernel({ memory: heapMemory(16) });
    const { address, frames } = kernel.table;
    const words = new SharedWords(kernel.memory, address, sharedWordCount(frames));
    const process = kernel.spawn('p');
    for (let index = 0; index < 700; index++) process.write(index);
    const huge = kernel.allocate(9, GFP_MOVABLE);
    const pair = kernel.allocate(10, GFP_MOVABLE);
    kernel.checkInvariants();
    return { kernel, words, process, frame: Math.floor(huge / FRAME_PAGES), pair };
  };

  it.each<[string, RegExp, (world: ReturnType<typeof boot>) => void]>([
    [
      'a page in use whose frame is free',
      /its bit is wrong/,
      ({ words, frame }) => {
        words.replace(frame, words.load(frame), FRAME_FREE);
      },
    ],
    [
      'a frame that has too many free pages',
      /huge frame 1: \d+ pages in use/,
      ({ words }) => words.add(1, 1),
    ],
    [
      'a frame in use as a whole that is no block',
      /huge frame \d+ is no block/,
      ({ kernel, words }) => {
        const last = kernel.table.frames - 1;
        words.replace(last, words.load(last), 1 << 16);
      },
    ],
    [
      'a lost page',
      /its bit is wrong/,
      ({ kernel, process }) => {
        kernel.pages.state[process.frameOf(3)] = 0;
      },
    ],
    [
      'a block inside another',
      /inside another/,
      ({ kernel, pair }) => {
        kernel.pages.state[pair + 5] = 0x20;
      },
    ],
    [
      'a crooked block',
      /crooked/,
      ({ kernel, process }) => {
        kernel.pages.state[process.frameOf(5) | 1] = 0x23;
      },
    ],
    [
      'a page of a kind that is not there',
      /nowhere/,
      ({ kernel, process }) => {
        kernel.pages.state[process.frameOf(3)] = 0x30;
      },
    ],
    [
      'a page whose owner left',
      /its owner left/,
      ({ kernel, process }) => {
        kernel.pages.owner[process.frameOf(3)] = 999;
      },
    ],
    [
      'a state of what is no memory',
      /is no memory/,
      ({ kernel }) => {
        kernel.pages.state[0] = 0x20;
      },
    ],
    [
      'a wrong count',
      /count of allocated/,
      ({ kernel }) => {
        kernel.allocator.freed++;
      },
    ],
  ])('%s is found', (_, message, plant) => {
    const world = boot();
    plant(world);
    expect(() => world.kernel.checkInvariants()).toThrow(message);
  });
});
