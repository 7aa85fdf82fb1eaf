/**
 * Tries every order in which guest, host and a thread that discards can do their steps around a shared allocator, one in the
 * middle of the other included, and looks for one that loses a frame, or has it used by both. It searches breadth first, so
 * what it finds is a shortest trace. Machines cannot be saved, so each is lived through again from its beginning.
 */
import { AerostatError } from '../sys/error.ts';
import {
  mayInterrupt,
  SharedMachine,
  type SharedMachineOptions,
  type SharedRules,
  type SharedStep,
  STEPS,
} from './shared-machine.ts';

/** A step, and what came in the middle of it. */
interface Move {
  readonly step: SharedStep;
  readonly inner?: SharedStep;
  readonly at?: number;
}

export interface SharedExploration extends SharedMachineOptions {
  /** Distinct machines that were seen. */
  readonly states: number;
  readonly transitions: number;
  /** Longest way to any of them. */
  readonly depth: number;
  /** What goes wrong, and a shortest way there; the search ends with it. */
  readonly loss: { readonly fault: string; readonly trace: readonly string[] } | undefined;
}

/** Machines at most: some minutes. */
const STATES_MAX = 200_000;

interface Node {
  readonly before: Node | undefined;
  readonly move: Move | undefined;
  readonly depth: number;
}

/** Explores all that can be reached in `depthMax` steps, or up to the first fault. */
export function exploreShared(
  options: SharedMachineOptions,
  depthMax = Number.POSITIVE_INFINITY,
): SharedExploration {
  const known = new Set([new SharedMachine(options).key()]);
  const nodes: Node[] = [{ before: undefined, move: undefined, depth: 0 }];
  let transitions = 0;
  let depth = 0;
  const found = (loss: SharedExploration['loss']): SharedExploration => ({
    ...options,
    states: known.size,
    transitions,
    depth,
    loss,
  });
  for (let index = 0; index < nodes.length; index++) {
    const node = nodes[index];
    depth = node.depth;
    const end = relive(options, node);
    end.wind();
    if (end.fault !== undefined) return found({ fault: end.fault, trace: traceOf(node) });
    if (node.depth >= depthMax) continue;
    for (const move of movesFrom(options, node)) {
      transitions++;
      const machine = relive(options, node);
      machine.take(move.step, move.inner, move.at);
      const next = { before: node, move, depth: node.depth + 1 };
      if (machine.fault !== undefined) return found({ fault: machine.fault, trace: traceOf(next) });
      const key = machine.key();
      if (known.has(key)) continue;
      known.add(key);
      if (known.size > STATES_MAX)
        throw new AerostatError('AEROSTAT_STATES', 'the search has too many states; take a smaller machine');
      nodes.push(next);
    }
  }
  return found(undefined);
}

function relive(options: SharedMachineOptions, node: Node): SharedMachine {
  const machine = new SharedMachine(options);
  for (const { step, inner, at } of movesTo(node)) machine.take(step, inner, at);
  return machine;
}

function movesTo(node: Node): Move[] {
  const moves: Move[] = [];
  for (let at: Node | undefined = node; at?.move !== undefined; at = at.before) moves.push(at.move);
  return moves.reverse();
}

/** Every step that is possible, alone and with each other side's steps in the middle of it. */
function* movesFrom(options: SharedMachineOptions, node: Node): Generator<Move> {
  const machine = relive(options, node);
  const possible = STEPS.filter(step => machine.can(step));
  for (const step of possible) {
    yield { step };
    const places = relive(options, node).take(step);
    for (const inner of STEPS) {
      if (!mayInterrupt(step, inner)) continue;
      for (let at = 0; at < places; at++) yield { step, inner, at };
    }
  }
}

const traceOf = (node: Node): string[] =>
  movesTo(node).map(({ step, inner, at }) =>
    inner === undefined ? step : `${step}; before its change number ${(at ?? 0) + 1}: ${inner}`,
  );

/** Ways to be wrong, and what is wrong with each. */
export const UNSAFE_SHARED_RULES: readonly (readonly [Exclude<SharedRules, 'safe'>, string])[] = [
  ['discarded-first', 'the memory is discarded before the word is changed'],
  ['answered-early', 'a frame is said to be evicted before the discard is over'],
  ['guest-ignored', 'the host takes a frame that it saw free, although the guest was faster'],
  ['cleared-early', 'the words that a lost host left are cleared while it may still discard'],
  ['never-cleared', 'the words that a lost host left are never cleared'],
];
