import { describe, expect, test } from 'vitest';
import { exploreHints, UNSAFE_MACHINE, UNSAFE_RULES } from '../../src/sim/hint-explorer.ts';
import { HINT_STATE_WORDS, HintModel } from '../../src/sim/hint-model.ts';
import { reportHints } from '../../src/sim/hint-report.ts';
import { kindOf } from '../../src/sim/hint-steps.ts';
import { StateTable } from '../../src/sim/state-table.ts';

const SMALL = { pages: 2, rounds: 2, ringSlots: 3, hasDone: true };

describe('free page hints under the rules', () => {
  test.each([
    SMALL,
    { ...SMALL, hasDone: false },
    { ...SMALL, ringSlots: 4, rounds: 1 },
    { ...SMALL, pages: 1, rounds: 4, ringSlots: 5 },
    { ...SMALL, pages: 3, rounds: 1 },
  ])('lose nothing, however pages are used again before their hint is processed: %o', machine => {
    const found = exploreHints({ ...machine, rules: 'safe' });
    expect(found.loss?.trace).toBeUndefined();
    expect(found.reusedBeforeProcessed).toBeGreaterThan(0);
    expect(found.transitions).toBeGreaterThan(found.states);
  });
});

describe('breaking a rule', () => {
  test.each(UNSAFE_RULES)('%s: %s, is found to lose data', rules => {
    const { loss } = exploreHints({ ...UNSAFE_MACHINE, rules });
    expect(loss?.trace).toMatchSnapshot();
  });

  test('is noticed with a single page already', () => {
    for (const [rules] of UNSAFE_RULES) {
      expect(exploreHints({ ...UNSAFE_MACHINE, pages: 1, rules }).loss?.page).toBe(0);
    }
  });
});

describe('the model', () => {
  /** Walks at random, `visit`ing every state with the step that led there. */
  function walk(seed: number, visit: (model: HintModel, step: number) => void): void {
    const model = new HintModel({ rules: 'safe', pages: 4, rounds: 4, ringSlots: 6, hasDone: true });
    const first = [...model.firstStates()][seed % 5];
    model.load(first);
    let random = seed;
    for (;;) {
      const steps: number[] = [];
      model.forEachStep(step => steps.push(step));
      if (steps.length === 0) return;
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const step = steps[Math.floor((random / 2 ** 32) * steps.length)];
      model.apply(step);
      visit(model, step);
    }
  }

  test('saves all that it is, and its words are in range', () => {
    const saved = new Int32Array(HINT_STATE_WORDS);
    const again = new Int32Array(HINT_STATE_WORDS);
    const seen = new Set<string>();
    for (let seed = 0; seed < 50; seed++) {
      walk(seed, (model, step) => {
        seen.add(kindOf(step));
        model.save(saved);
        model.load(saved);
        model.save(again);
        expect(again).toEqual(saved);
        expect(model.lost).toBeUndefined();
      });
    }
    expect([...seen].sort()).toHaveLength(12);
  });

  test('stays the same machine when its pages change their order', () => {
    const before = new Int32Array(HINT_STATE_WORDS);
    const after = new Int32Array(HINT_STATE_WORDS);
    for (let seed = 0; seed < 50; seed++) {
      walk(seed, model => {
        const count = () => {
          let steps = 0;
          model.forEachStep(() => steps++);
          return [steps, model.reusedBeforeProcessed, model.lost];
        };
        const known = count();
        model.rename();
        expect(count()).toEqual(known);
        model.save(before);
        model.rename();
        model.save(after);
        expect(after).toEqual(before);
      });
    }
  });
});

test('the table knows every state once, and how it was reached', () => {
  const table = new StateTable(2);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 10_000; i++) table.add(Int32Array.of(i & 7, i >> 3), i - 1, i % 100);
  }
  expect(table.length).toBe(10_000);
  const state = new Int32Array(2);
  table.read(4321, state);
  expect([...state]).toEqual([4321 & 7, 4321 >> 3]);
  expect(table.pathTo(3)).toEqual({ first: 0, steps: [1, 2, 3] });
});

test('the report says what was explored and shows a trace for every broken rule', () => {
  const lines: string[] = [];
  const { proved, explorations } = reportHints(line => lines.push(line), [{ ...SMALL, pages: 1 }]);
  expect(proved).toBe(true);
  expect(explorations).toHaveLength(1 + UNSAFE_RULES.length);
  expect(lines.join('\n')).toContain('nothing is lost');
  expect(lines.filter(line => line.includes('has lost what the guest wrote'))).toHaveLength(
    UNSAFE_RULES.length,
  );
});
