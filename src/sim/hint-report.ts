/** The explorer's findings as lines for a reader who doubts them. */
import {
  exploreHints,
  type HintExploration,
  type HintMachine,
  MACHINES,
  UNSAFE_MACHINE,
  UNSAFE_RULES,
} from './hint-explorer.ts';

const count = (value: number): string => value.toLocaleString('en');

const nameOf = ({ pages, rounds, ringSlots, hasDone }: HintMachine): string =>
  `${pages} pages, ${rounds} + 1 rounds, ${ringSlots} ring slots${hasDone ? '' : ', no DONE'}`;

interface HintReport {
  /** The rules lose nothing, and every unsafe variant loses something. */
  readonly proved: boolean;
  readonly explorations: readonly HintExploration[];
}

/** Explores `machines` under the rules that we keep, then each way of breaking them; `print` gets the findings. */
export function reportHints(
  print: (line: string) => void,
  machines: readonly HintMachine[] = MACHINES,
): HintReport {
  print('Free page hints under the rules: every order of every step, until nothing new can happen.');
  print('');
  const safe = machines.map(machine => {
    const found = exploreHints({ ...machine, rules: 'safe' });
    print(
      `  ${nameOf(machine)}: ${count(found.states)} states, ${count(found.transitions)} steps, ` +
        `${count(found.reusedBeforeProcessed)} states with a page in use again before its hint is processed: ` +
        (found.loss === undefined ? 'nothing is lost' : 'DATA IS LOST'),
    );
    if (found.loss !== undefined) printTrace(print, found);
    return found;
  });
  print('');
  print(`Breaking one rule at a time (${nameOf(UNSAFE_MACHINE)}), and a shortest trace that loses data:`);
  const unsafe = UNSAFE_RULES.map(([rules, fault], index) => {
    print('');
    print(`(${index + 1}) ${fault}`);
    const found = exploreHints({ ...UNSAFE_MACHINE, rules });
    if (found.loss === undefined) print(`      nothing is lost in ${count(found.states)} states`);
    else printTrace(print, found);
    return found;
  });
  const proved =
    safe.every(({ loss }) => loss === undefined) && unsafe.every(({ loss }) => loss !== undefined);
  return { proved, explorations: [...safe, ...unsafe] };
}

function printTrace(print: (line: string) => void, { states, loss }: HintExploration): void {
  if (loss === undefined) return;
  const live = loss.livePages === 0 ? 'no page is in use' : `pages in use: ${loss.livePages}`;
  print(`      ${live}, all pages are in the dirty bitmap`);
  loss.trace.forEach((line, index) => {
    print(`  ${String(index + 1).padStart(2)}. ${line}`);
  });
  print(`      page ${loss.page} has lost what the guest wrote (found among ${count(states)} states)`);
}
