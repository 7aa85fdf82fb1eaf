import { describe, expect, test } from 'vitest';
import { exploreShared, UNSAFE_SHARED_RULES } from '../../src/sim/shared-explorer.ts';
import { mayInterrupt, SharedMachine, STEPS } from '../../src/sim/shared-machine.ts';
import { reportShared } from '../../src/sim/shared-report.ts';

const SMALL = { frames: 1, blocks: 2 };

describe('a shared allocator under the rules', () => {
  test('loses no frame and has none used by both, whatever comes in the middle of what', () => {
    const found = exploreShared({ ...SMALL, rules: 'safe' });
    expect(found.loss).toBeUndefined();
    expect(found.states).toBeGreaterThan(100);
    expect(found.transitions).toBeGreaterThan(found.states * 3);
  });

  test('and with two frames, as far as few steps lead', () => {
    const found = exploreShared({ frames: 2, blocks: 2, rules: 'safe' }, 3);
    expect(found.loss).toBeUndefined();
    expect(found.depth).toBe(3);
  });
});

describe('breaking a rule', () => {
  test.each(UNSAFE_SHARED_RULES)('%s: %s, is found', rules => {
    const { loss } = exploreShared({ ...SMALL, rules });
    expect(loss).toBeDefined();
    expect(loss).toMatchSnapshot();
  });
});

test('the machine takes a step in the middle of another only where two sides are at work', () => {
  expect(mayInterrupt('evict', 'take a frame')).toBe(true);
  expect(mayInterrupt('take a frame', 'punch')).toBe(true);
  expect(mayInterrupt('evict', 'news')).toBe(false);
  expect(mayInterrupt('take a page', 'free the first')).toBe(false);
  expect(mayInterrupt('punch', 'evict')).toBe(false);
});

test('the machine can do every step at some time', () => {
  const machine = new SharedMachine({ frames: 2, blocks: 2, rules: 'safe' });
  const seen = new Set<string>();
  let random = 7;
  for (let turn = 0; turn < 2_000; turn++) {
    const possible = STEPS.filter(step => machine.can(step));
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    const step = possible[Math.floor((random / 2 ** 32) * possible.length)];
    machine.take(step);
    seen.add(step);
    expect(machine.fault).toBeUndefined();
  }
  expect([...seen].sort()).toEqual([...STEPS].sort());
});

test('the report says what was explored and shows a trace for every broken rule', () => {
  const lines: string[] = [];
  const { proved, explorations } = reportShared(
    line => lines.push(line),
    [{ ...SMALL, blocks: 1, depthMax: 4 }],
  );
  expect(proved).toBe(true);
  expect(explorations).toHaveLength(1 + UNSAFE_SHARED_RULES.length);
  expect(lines.join('\n')).toContain('no frame is lost');
});
