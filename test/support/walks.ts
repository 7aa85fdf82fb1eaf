/** The walks of docs/architecture.md: under which title they are, and the functions that their tables name, in order. */
import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root, type Source, sourcesIn } from './sources.ts';

export interface Step {
  /** `RemoteDaemon.#exchange`. */
  readonly name: string;
  /** Path from the root. */
  readonly file: string;
}

export type Walk = readonly Step[];

const fileOf = (path: string): string => (path.startsWith('web/') ? path : `src/${path}`);

/** All tables of functions, by the title that they stand under. */
export function walksOf(title: string): Walk[] {
  const document = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
  const section = document.split(/^## /m).find(text => text.startsWith(`${title}\n`)) ?? '';
  return section.split(/^\| \| function \|/m).flatMap((table, index) => {
    if (index === 0) return [];
    const rows = [...table.split('\n\n')[0].matchAll(/^\| \d+ \| `([^`]+)` \| `([^`]+)` \|/gm)];
    return [rows.map(([, name, path]) => ({ name, file: fileOf(path) }))];
  });
}

/** Whether the function at `path` of the sources is the one that a step names, or is written in it. */
const isIn = (path: string, { name }: Step): boolean =>
  path === name || path.endsWith(`.${name}`) || `.${path}`.includes(`.${name}.`);

const parsed = new Map<string, Source>();

function sourceOf(file: string): Source {
  const source = parsed.get(file) ?? sourcesIn(file)[0];
  parsed.set(file, source);
  return source;
}

/** Whether there is such a function. */
export const exists = (step: Step): boolean =>
  sourceOf(step.file).functions.some(({ path }) => isIn(path, step));

interface Frame {
  readonly file: string;
  readonly line: number;
}

/** Surrounds what a command does with a control. */
const AROUND = ['withGuests'];

/**
 * What of ours stands on a stack above the first function of others, innermost first; what the test itself put on top of
 * it is left out.
 */
export function framesOf(stack: string): Frame[] {
  const frames = [...stack.matchAll(/^ +at (?:(.*) \()?(.*?):(\d+):\d+\)?$/gm)]
    .filter(([, , path]) => !path.startsWith('node:') && !/^<anonymous>/.test(path))
    .map(([, , path, line]) => ({ file: relative(root, path), line: Number(line) }));
  const isOurs = ({ file }: Frame): boolean => file.startsWith('src/');
  const ours = frames.slice(frames.findIndex(isOurs));
  const end = ours.findIndex(frame => !isOurs(frame));
  return end < 0 ? ours : ours.slice(0, end);
}

/** Frames of one walk, outermost first, as the steps that they take; a frame that no step explains is said as it is. */
export function stepsTaken(frames: readonly Frame[], walk: Walk): string[] {
  const taken: string[] = [];
  for (const { file, line } of frames) {
    const [path = ''] = sourceOf(file)
      .functions.filter(({ line: first, lines }) => first <= line && line < first + lines)
      .sort((a, b) => a.lines - b.lines)
      .map(found => found.path);
    if (AROUND.includes(path)) continue;
    const step = walk.find(candidate => candidate.file === file && isIn(path, candidate));
    const name = step === undefined ? `${file} ${path}` : `${file} ${step.name}`;
    // A function and what is written in it are one step, whatever stands between them.
    if (!taken.includes(name)) taken.push(name);
  }
  return taken;
}

export const namesOf = (walk: Walk): string[] => walk.map(({ file, name }) => `${file} ${name}`);
