import { beforeEach, describe, expect, it } from 'vitest';
import { HINTS_OWNER } from '../../src/driver/former-driver.ts';
import { GFP_MOVABLE } from '../../src/guest/gfp.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { HintWitness } from '../../src/sim/hint-witness.ts';

const SIZE = 16 * 2 ** 20;

describe('the witness of hints', () => {
  let kernel: GuestKernel;
  let witness: HintWitness;
  let complaints: string[];

  beforeEach(() => {
    const region = { guestAddress: 0, size: SIZE, userAddress: 0 };
    kernel = new GuestKernel({
      memory: new GuestMemory([new MemoryRegion(region, new HeapBacking(SIZE))]),
    });
    complaints = [];
    witness = new HintWitness(kernel, what => complaints.push(what));
  });

  it('complains of a page that was in use since before its session, wherever in a block it lies', () => {
    const pfn = kernel.allocate(3, GFP_MOVABLE);
    witness.begin();
    witness.add(pfn + 5, 1);
    expect(complaints).toEqual([
      `frame ${pfn + 5} counts as unused, and was in use since before its session`,
    ]);
  });

  it('accepts what was free then, or became free since, be it in use again', () => {
    const used = kernel.allocate(3, GFP_MOVABLE);
    witness.begin();
    const fresh = kernel.allocate(3, GFP_MOVABLE);
    witness.add(fresh, 8);
    kernel.free(used, 3);
    witness.add(used, 8);
    expect(complaints).toEqual([]);
  });

  it('begins anew with each session', () => {
    witness.begin();
    const pfn = kernel.allocate(0, GFP_MOVABLE);
    witness.add(pfn, 1);
    expect(complaints).toEqual([]);
    witness.begin();
    witness.add(pfn, 1);
    expect(complaints).toHaveLength(1);
  });

  it('takes what is kept for an older session for free', () => {
    const pfn = kernel.allocate(3, GFP_MOVABLE);
    kernel.own(pfn, kernel.addOwner({ name: HINTS_OWNER, contents: 'kept' }));
    witness.begin();
    witness.add(pfn, 8);
    expect(complaints).toEqual([]);
  });
});
