/** The console of an embedded guest for people: words that stand for its commands, and answers as they read them. */
import { COMMAND_NAMES, type CommandName } from '../embedded/commands.ts';
import { WORKLOAD_KINDS } from '../embedded/workload-kinds.ts';
import { formatSize, parsePages } from './size.ts';
import { renderFields } from './table.ts';
import { UsageError } from './usage.ts';

export const WORDS_HELP = `use SIZE          write to memory and keep it       free            free it again
want SIZE         one program has so much of it     cache SIZE      read a file of that size
touch [SIZE]      write to free memory              drop-caches     empty the page cache
age DEGREE        break free memory up (0 to 1)     compact         join it again
start KIND [SIZE] ${WORKLOAD_KINDS.join(', ')}         stop            end workloads
verify            check every page's content        settle          wait for the balloon
meminfo, status   how the guest is                  reset           reset the device
remove, probe     take the driver out, and in       exit            switch the guest off`;

type Words = readonly string[];

/** What the words after a command's name mean; commands that are not here take none. */
const ARGUMENTS: Partial<Record<CommandName, (words: Words) => object>> = {
  use: ([size]) => ({ bytes: parsePages(needed(size, 'use SIZE')) }),
  want: ([size]) => ({ bytes: parsePages(needed(size, 'want SIZE')) }),
  cache: ([size]) => ({ bytes: parsePages(needed(size, 'cache SIZE')) }),
  touch: ([size]) => (size === undefined ? {} : { bytes: parsePages(size) }),
  age: ([degree]) => ({ degree: shareOf(needed(degree, 'age DEGREE')) }),
  start: ([workload, size]) => ({
    workload: needed(workload, `start ${WORKLOAD_KINDS.join('|')}`),
    ...(size === undefined ? {} : { bytes: parsePages(size) }),
  }),
};

/**
 * The command that `line` means, not checked yet.
 * @throws UsageError, SizeError
 */
export function commandOfWords(line: string): object {
  const [name, ...words] = line.trim().split(/\s+/);
  if (!(COMMAND_NAMES as Words).includes(name)) {
    throw new UsageError(`no command of a guest is called ${name}; help lists them`);
  }
  return { do: name, ...ARGUMENTS[name as CommandName]?.(words) };
}

/** @throws UsageError */
function shareOf(word: string): number {
  const share = /^\d*\.?\d+$/.test(word) ? Number(word) : Number.NaN;
  if (share >= 0 && share < 1) return share;
  throw new UsageError(
    `${word} is not a degree of fragmentation: write a number from 0 (whole) to below 1, for example age 0.5`,
  );
}

function needed(word: string | undefined, usage: string): string {
  if (word === undefined) throw new UsageError(`something is missing: ${usage}`);
  return word;
}

/** An answer as lines; none for one that says nothing but that it is done. */
export function describeAnswer(answer: unknown): string[] {
  if (typeof answer !== 'object' || answer === null) return [];
  const fields = fieldsOf(answer);
  return fields.length === 0 ? [] : renderFields(fields);
}

function fieldsOf(answer: object, prefix = ''): [string, string][] {
  return Object.entries(answer).flatMap(([key, value]): [string, string][] => {
    const name = prefix + key.replace(/Bytes$/, '');
    if (Array.isArray(value)) return [[name, value.length === 0 ? 'none' : value.join(' ')]];
    // Of counters, those that counted something.
    if (value === 0 && prefix !== '') return [];
    if (typeof value === 'object' && value !== null) return fieldsOf(value, `${name}.`);
    if (typeof value === 'number' && key.endsWith('Bytes')) return [[name, formatSize(value)]];
    return [[name, typeof value === 'number' ? value.toLocaleString('en') : String(value)]];
  });
}
