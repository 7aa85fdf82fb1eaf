/** What the explorer of shared allocators found, as lines for a reader who doubts it. */
import { exploreShared, type SharedExploration, UNSAFE_SHARED_RULES } from './shared-explorer.ts';

interface SharedCase {
  readonly frames: number;
  readonly blocks: number;
  /** Steps; all that can follow from each other where it is left out. */
  readonly depthMax?: number;
}

/** What fits some minutes: all of one frame, and two frames as far as that goes. */
const CASES: readonly SharedCase[] = [
  { frames: 1, blocks: 2 },
  { frames: 2, blocks: 2, depthMax: 6 },
];

/** One frame is enough to go wrong. */
const UNSAFE_CASE: SharedCase = { frames: 1, blocks: 2 };

const count = (value: number): string => value.toLocaleString('en');

const nameOf = ({ frames, blocks, depthMax }: SharedCase): string =>
  `${frames} huge frames, ${blocks} blocks${depthMax === undefined ? '' : `, up to ${depthMax} steps`}`;

export function reportShared(
  print: (line: string) => void,
  cases: readonly SharedCase[] = CASES,
): { readonly proved: boolean; readonly explorations: readonly SharedExploration[] } {
  print(
    'A shared allocator under the rules: every order of every step, one in the middle of another included.',
  );
  print('');
  const safe = cases.map(one => {
    const found = exploreShared({ ...one, rules: 'safe' }, one.depthMax);
    const { states, transitions, depth, loss } = found;
    print(
      `  ${nameOf(one)}: ${count(states)} states, ${count(transitions)} steps, ${depth} deep: ` +
        (loss === undefined ? 'no frame is lost, and none is used by both' : loss.fault.toUpperCase()),
    );
    printTrace(print, found);
    return found;
  });
  print('');
  print(`Breaking one rule at a time (${nameOf(UNSAFE_CASE)}), and a shortest trace that shows it:`);
  const unsafe = UNSAFE_SHARED_RULES.map(([rules, fault], index) => {
    print('');
    print(`(${index + 1}) ${fault}`);
    const found = exploreShared({ ...UNSAFE_CASE, rules });
    if (found.loss === undefined) print(`      nothing is found in ${count(found.states)} states`);
    printTrace(print, found);
    return found;
  });
  const proved =
    safe.every(({ loss }) => loss === undefined) && unsafe.every(({ loss }) => loss !== undefined);
  return { proved, explorations: [...safe, ...unsafe] };
}

function printTrace(print: (line: string) => void, { loss }: SharedExploration): void {
  loss?.trace.forEach((line, index) => {
    print(`  ${String(index + 1).padStart(2)}. ${line}`);
  });
  if (loss !== undefined) print(`      ${loss.fault}`);
}
