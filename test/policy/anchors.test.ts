/** Ports of other policies, held to the arithmetic of their sources' rules, worked by hand. */
import { describe, expect, test } from 'vitest';
import type { Policy } from '../../src/policy/anchors/anchor.ts';
import { concierge } from '../../src/policy/anchors/concierge.ts';
import { hyperV } from '../../src/policy/anchors/hyper-v.ts';
import { mom } from '../../src/policy/anchors/mom.ts';
import { ours } from '../../src/policy/anchors/ours.ts';
import { piController } from '../../src/policy/anchors/pi-controller.ts';
import { fixed, oracle, reportingOnly } from '../../src/policy/anchors/plain.ts';
import { proxmox } from '../../src/policy/anchors/proxmox.ts';
import { qmemman } from '../../src/policy/anchors/qmemman.ts';
import { adjustment, senpai } from '../../src/policy/anchors/senpai.ts';
import { squeezed } from '../../src/policy/anchors/squeezed.ts';
import { minFree, price, vmware } from '../../src/policy/anchors/vmware.ts';
import type { GuestSample, Sample, Settings } from '../../src/policy/types.ts';
import { GIB, MIB, statisticsOf } from './world.ts';

interface Given {
  readonly name?: string;
  readonly keep?: number;
  /** Available to it; free as much, unless that is said. */
  readonly available?: number | null;
  readonly free?: number;
  readonly committed?: number;
  readonly stallMs?: number;
  readonly resident?: number | null;
}

/** Guests of 4 GiB whose balloons are where they should be. */
function guestOf(
  { name, keep = 4 * GIB, available = 0, free, committed = 0, stallMs = 0, resident = null }: Given,
  index: number,
): GuestSample {
  const balloon = 4 * GIB - keep;
  const statistics = statisticsOf(available, balloon);
  return {
    name: name ?? `vm${index}`,
    memoryBytes: 4 * GIB,
    targetBytes: balloon,
    actualBytes: balloon,
    givenBytes: balloon,
    residentBytes: resident,
    epoch: 1,
    statistics: { ...statistics, freeBytes: free ?? available },
    foreign: { committedBytes: committed, stallMs },
  };
}

const sampleOf = (
  totalBytes: number,
  freeBytes: number,
  guests: readonly Given[],
  atMs = 60_000,
): Sample => ({
  atMs,
  host: { totalBytes, availableBytes: freeBytes, freeBytes, reservedBytes: 0 },
  guests: guests.map(guestOf),
});

const settings: Settings = { reserveBytes: GIB, guests: {} };
const inMib = (targets: readonly number[]) =>
  targets.map(target => (target < 0 ? target : Math.round(target / MIB)));
const once = <Memory>(policy: Policy<Memory>, sample: Sample, using = settings): number[] =>
  inMib(policy.decide(sample, using, policy.begin()).targets);

describe('Proxmox', () => {
  test('shrinks everybody by 100 MiB at most towards its part when the host uses more than 80 %', () => {
    // Goal 12.8 - 14 = -1.2 GiB; 6 - 1.2 GiB above the minimums for two: 1 + 2.4 GiB each.
    const guests = [{ available: 2 * GIB }, { available: 2 * GIB }];
    expect(once(proxmox, sampleOf(16 * GIB, 2 * GIB, guests))).toEqual([100, 100]);
  });

  test('gives to guests with little free memory first, and leaves a goal of some MiB alone', () => {
    const guests = [
      { keep: 2 * GIB, available: 0.1 * GIB },
      { keep: 3 * GIB, available: 2 * GIB },
    ];
    expect(once(proxmox, sampleOf(16 * GIB, 8 * GIB, guests))).toEqual([2048 - 100, -1]);
    expect(once(proxmox, sampleOf(16 * GIB, 3.2 * GIB + 5 * MIB, guests))).toEqual([-1, -1]);
  });

  test('shrinks a guest above its part even while it gives', () => {
    // 3 GiB above the minimums and 1.2 to give: a's part of 4.2 GiB by 1 of 1001 shares is 4 MiB.
    const guests = [{ name: 'a' }, { name: 'b', keep: GIB }];
    const shares = { ...settings, guests: { a: { shares: 1 } } };
    expect(once(proxmox, sampleOf(16 * GIB, 4.4 * GIB, guests), shares)).toEqual([100, 3072 - 100]);
  });
});

describe('oVirt MOM', () => {
  test('takes a twentieth, and leaves a share of free memory that falls with the host', () => {
    // A tenth free: leave 0.1 of what it has. 2 GiB are used: it could go down to 2.4 GiB, and goes to 0.95 * 4.
    expect(once(mom, sampleOf(100 * GIB, 10 * GIB, [{ available: 2 * GIB }]))).toEqual([
      Math.round(0.2 * 1024),
    ]);
    // 3.5 GiB used: 3.5 + 0.4 = 3.9.
    expect(once(mom, sampleOf(100 * GIB, 10 * GIB, [{ available: 0.5 * GIB }]))).toEqual([
      Math.round(0.1 * 1024),
    ]);
  });

  test('makes guests swap when the host has less than a twentieth', () => {
    // Leave -0.05 + 0.03 of 4 GiB: 3.9 - 0.08 = 3.82 GiB.
    expect(once(mom, sampleOf(100 * GIB, 3 * GIB, [{ available: 0.1 * GIB }]))).toEqual([
      Math.round(0.18 * 1024),
    ]);
  });

  test('gives a twentieth above a fifth, and nothing to a guest that has all', () => {
    const guests = [{ keep: 3 * GIB }, {}];
    expect(once(mom, sampleOf(100 * GIB, 30 * GIB, guests))).toEqual([Math.round(0.85 * 1024), -1]);
  });
});

describe('squeezed', () => {
  test('puts all guests the same part of the way between minimum and maximum', () => {
    // -1 GiB free, 2 * (3 GiB - 4 MiB) above the minimums: 5112 of 6144 MiB. 1024 + 2556 MiB stay.
    expect(once(squeezed, sampleOf(9 * GIB, 0, [{}, {}]))).toEqual([516, 516]);
  });

  test('waits with growth until others have shrunk', () => {
    const guests = [{ keep: 4 * GIB }, { keep: GIB }];
    const first = squeezed.decide(sampleOf(6 * GIB, GIB, guests), settings, squeezed.begin());
    // 3 GiB - 8 MiB of 6 GiB: 1024 + 1532 MiB each.
    expect(inMib(first.targets)).toEqual([4096 - 2556, 3072]);
    const moved = [{ keep: 2556 * MIB }, { keep: GIB }];
    const free = 3 * GIB - 2556 * MIB + 2 * GIB;
    const second = squeezed.decide(sampleOf(6 * GIB, free, moved, 61_000), settings, first.memory);
    expect(second.targets[1]).toBeLessThan(3072 * MIB);
  });
});

describe('qmemman', () => {
  test('divides what is left over in proportion to 1.3 times what is used', () => {
    const guests = [1, 1].map(used => ({ keep: 2 * GIB, available: (2 - used) * GIB }));
    // 2 GiB free and 0.7 GiB too much at each: 3.4 GiB more than preferred. 0.999 * (1.3 + 1.7) GiB each.
    expect(once(qmemman, sampleOf(9 * GIB, 3 * GIB, guests))).toEqual([1027, 1027]);
  });

  test('takes from those above their preference when it is short', () => {
    const guests = [
      { keep: 3 * GIB, available: 0 },
      { keep: 1.2 * GIB, available: 0.7 * GIB },
    ];
    // Preferred 3.9 and 0.65 GiB, 0.35 more than there is: b gives 0.55, a gets that: 0.999 * 3.55.
    expect(once(qmemman, sampleOf(9 * GIB, GIB, guests))).toEqual([464, Math.round(3.35 * 1024)]);
  });

  test('makes no transfer that is not worth it', () => {
    const guests = [{ keep: 1.3 * GIB, available: 0.3 * GIB }];
    expect(once(qmemman, sampleOf(9 * GIB, GIB + 20 * MIB, guests))).toEqual([-1]);
  });
});

describe('Hyper-V', () => {
  test('gives what was promised to programs and a fifth at once, and takes nothing that no guest needs', () => {
    const guests = [
      { keep: 1.5 * GIB, committed: 2 * GIB, resident: GIB },
      { keep: 4 * GIB, committed: GIB, resident: GIB },
    ];
    expect(once(hyperV, sampleOf(16 * GIB, 14 * GIB, guests))).toEqual([Math.round(1.6 * 1024), 0]);
  });

  test('divides by weight when there is too little', () => {
    const guests = [0, 1].map(() => ({ committed: 3 * GIB, resident: 2.5 * GIB }));
    expect(once(hyperV, sampleOf(6 * GIB, GIB, guests))).toEqual([1536, 1536]);
  });
});

describe('VMware', () => {
  test('keeps free what ESXi keeps free', () => {
    // 6 % of 4 GiB, 4 % of 8, 2 % of 16.
    expect(Math.round(minFree(28 * GIB) / MIB)).toBe(901);
    expect(Math.round(minFree(128 * GIB) / MIB)).toBe(901 + 1024);
  });

  test('lets an idle page cost four times as much', () => {
    expect(price(1000, 1, 1)).toBe(1000);
    expect(price(1000, 1, 0)).toBe(250);
    expect(price(1000, 2, 0.5)).toBe(200);
  });

  test('takes from the guest whose pages are idle', () => {
    const guests = [{ available: 0 }, { available: 4 * GIB }];
    // 8 GiB less 0.88 of 28 GiB: all for the active one, 3.12 GiB for the idle one.
    expect(once(vmware, sampleOf(28 * GIB, 0, guests))).toEqual([0, 901]);
  });
});

describe('concierge', () => {
  test('takes half of the difference of what both have above what is critical', () => {
    // 3072 - 400 MiB in the guest, 2048 - 1024 at the host.
    expect(once(concierge, sampleOf(16 * GIB, 2 * GIB, [{ available: 3 * GIB }]))).toEqual([824]);
  });

  test('learns that a guest lives with less', () => {
    const low = sampleOf(16 * GIB, 9 * GIB, [{ available: 300 * MIB }]);
    const first = concierge.decide(low, settings, concierge.begin());
    const second = concierge.decide(low, settings, first.memory);
    expect([first, second].map(({ memory }) => memory.vm0.critical / MIB)).toEqual([400, 300]);
  });
});

describe('Senpai', () => {
  test('squeezes by a percent at most, and lets go by the square', () => {
    expect(adjustment(0)).toBeCloseTo(-0.01, 12);
    expect(adjustment(10)).toBeCloseTo(-0.0001, 12);
    expect(adjustment(110)).toBeCloseTo((11 / 20) ** 2, 12);
    expect(adjustment(6000)).toBe(1);
  });

  test('begins with what is held, and goes on from there', () => {
    const at = (stallMs: number, keep: number) =>
      sampleOf(9 * GIB, GIB, [{ keep, stallMs, resident: 2 * GIB }]);
    const first = senpai.decide(at(0, 4 * GIB), settings, senpai.begin());
    expect(inMib(first.targets)).toEqual([2048]);
    const second = senpai.decide(at(0, 2 * GIB), settings, first.memory);
    expect(inMib(second.targets)).toEqual([2048 + 20]);
    const third = senpai.decide(at(110, 2 * GIB), settings, second.memory);
    expect(inMib(third.targets)).toEqual([Math.round(4096 - 2048 * 1.3025)]);
  });
});

describe('the PI controller', () => {
  test('goes by the error and its sum, and rests within 128 MiB', () => {
    // 0.2 - 0.75 = -0.55: (0.5 + 0.05) * 0.55 of 4 GiB.
    expect(once(piController, sampleOf(9 * GIB, GIB, [{ available: 3 * GIB }]))).toEqual([1239]);
    expect(once(piController, sampleOf(9 * GIB, GIB, [{ available: 0.85 * GIB }]))).toEqual([-1]);
  });

  test('does not wind up at its limits', () => {
    const full = sampleOf(9 * GIB, GIB, [{ available: 0 }]);
    let { memory } = piController.decide(full, settings, piController.begin());
    for (let round = 0; round < 50; round++) memory = piController.decide(full, settings, memory).memory;
    expect(Math.abs(memory.vm0)).toBeLessThan(0.2);
  });
});

describe('policies that do not react', () => {
  test('reporting alone takes nothing', () => {
    expect(once(reportingOnly, sampleOf(9 * GIB, 0, [{}, {}]))).toEqual([0, 0]);
  });

  test('a static size is in proportion, and for good', () => {
    const first = fixed.decide(sampleOf(7 * GIB, 0, [{}, {}]), settings, fixed.begin());
    expect(inMib(first.targets)).toEqual([1024, 1024]);
    expect(inMib(fixed.decide(sampleOf(5 * GIB, 0, [{}, {}]), settings, first.memory).targets)).toEqual([
      1024, 1024,
    ]);
  });

  test('an oracle gives programs what they will want, and cache where it is used most', () => {
    const wishes = [
      { programsBytes: GIB, cacheBytes: 2 * GIB, accesses: 100 },
      { programsBytes: GIB, cacheBytes: GIB, accesses: 1000 },
      { programsBytes: 3 * GIB, cacheBytes: 0, accesses: 0 },
    ];
    const knowing = oracle(guest => wishes[guest]);
    const guests = [{ resident: GIB }, { resident: GIB }, { resident: GIB }];
    // 8 GiB: 5 for programs, 1 for the hot cache, 2 for the other.
    expect(once(knowing, sampleOf(9 * GIB, 6 * GIB, guests))).toEqual([1024, 2048, 1024]);
    // Where there are 4 GiB only, the programs' parts are max-min fair above the minimums of 1 GiB.
    expect(once(knowing, sampleOf(5 * GIB, 2 * GIB, guests))).toEqual([3072, 3072, 2048]);
  });
});

test('every policy leaves alone a guest that says nothing, or gives it memory', () => {
  const sample = sampleOf(9 * GIB, 0, [{ available: null, keep: 3 * GIB }, { available: 3 * GIB }]);
  const policies = [
    once(mom, sample),
    once(qmemman, sample),
    once(concierge, sample),
    once(piController, sample),
    once(ours, sample),
  ];
  for (const [target] of policies) expect(target).toBeLessThanOrEqual(1024);
});
