/**
 * Tries every order in which a small machine under migration can do its steps, and looks for one that loses data. It
 * searches breadth first, so what it finds is a shortest trace. What is run is {@link ./hint-model.ts}.
 */
import { HINT_STATE_WORDS, HintModel } from './hint-model.ts';
import type { HintModelOptions, HintRules } from './hint-options.ts';
import { StateTable } from './state-table.ts';

interface HintLoss {
  /** The page that lost what the guest had written to it. */
  readonly page: number;
  /** Pages that were in use when the migration began: 0 up to this. */
  readonly livePages: number;
  readonly trace: readonly string[];
}

export interface HintExploration extends HintModelOptions {
  /** Distinct states of the whole machine that were seen. */
  readonly states: number;
  /** Steps that were tried, from all of them. */
  readonly transitions: number;
  /** States in which a page was in use again while its hint was still in the queue. */
  readonly reusedBeforeProcessed: number;
  /** A shortest way to lose data; the search ends there. */
  readonly loss: HintLoss | undefined;
}

/** Explores all states that can be reached, or up to the first that has lost data. */
export function exploreHints(options: HintModelOptions): HintExploration {
  const model = new HintModel(options);
  const table = new StateTable(HINT_STATE_WORDS);
  for (const first of model.firstStates()) table.add(first, -1, 0);
  const state = new Int32Array(HINT_STATE_WORDS);
  const steps: number[] = [];
  let transitions = 0;
  let reusedBeforeProcessed = 0;
  let loss: HintLoss | undefined;
  // The table doubles as the queue: states are numbered in the order in which they were found.
  for (let index = 0; index < table.length; index++) {
    table.read(index, state);
    model.load(state);
    const { lost } = model;
    if (lost !== undefined) {
      loss = traceOf(model, table, index, lost);
      break;
    }
    if (model.reusedBeforeProcessed) reusedBeforeProcessed++;
    steps.length = 0;
    model.forEachStep(step => steps.push(step));
    transitions += steps.length;
    for (const step of steps) {
      table.read(index, state);
      model.load(state);
      model.apply(step);
      model.rename();
      model.save(state);
      table.add(state, index, step);
    }
  }
  return { ...options, states: table.length, transitions, reusedBeforeProcessed, loss };
}

function traceOf(model: HintModel, table: StateTable, index: number, page: number): HintLoss {
  const { first, steps } = table.pathTo(index);
  const state = new Int32Array(HINT_STATE_WORDS);
  table.read(first, state);
  model.load(state);
  const trace = steps.map(step => {
    const text = model.apply(step);
    model.rename();
    return text;
  });
  return { page: model.nameOf(page), livePages: first, trace };
}

/** The unsafe migrations, and what is wrong with each; their numbers are those of docs/hint-safety.md. */
export const UNSAFE_RULES: readonly (readonly [HintRules, string])[] = [
  ['ids-ignored', 'a hint from before a sync is applied after it, because ids are ignored'],
  ['log-cleared', 'a hint clears the page in the write log, too'],
  ['hints-after-last-sync', 'the last hints are applied after the last sync'],
  ['page-freed', 'the host frees a hinted page instead of skipping it'],
  ['logged-before-store', "the guest's stores are logged before they happen"],
];

export type HintMachine = Omit<HintModelOptions, 'rules'>;

/** What fits a minute and a few hundred megabytes: more pages, more rounds, a longer queue, each in its turn. */
export const MACHINES: readonly HintMachine[] = [
  { pages: 2, rounds: 2, ringSlots: 5, hasDone: true },
  { pages: 2, rounds: 3, ringSlots: 4, hasDone: true },
  { pages: 3, rounds: 2, ringSlots: 3, hasDone: true },
  { pages: 3, rounds: 2, ringSlots: 3, hasDone: false },
  { pages: 4, rounds: 1, ringSlots: 3, hasDone: true },
];

/** Two pages and two rounds are enough to lose something. */
export const UNSAFE_MACHINE: HintMachine = { pages: 2, rounds: 2, ringSlots: 4, hasDone: true };
