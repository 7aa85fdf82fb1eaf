/**
 * What workloads write into their pages, made so that a lost, stale, swapped or foreign page is recognised:
 * the whole page follows from who owns it, which of its pages it is, and how often that was written.
 *
 * Layout: words 0-4 are magic, owner, index, version, and a checksum of these; all others come from a generator
 * seeded by the checksum and do not compress. Only the edges (the first and last 64 bytes) are written
 * where speed counts more than bytes; what is written is what is checked.
 */
import { AerostatError } from '../sys/error.ts';
import { type PageAccess, WORDS_PER_PAGE } from './page-access.ts';
import { mix } from './random.ts';

/** `edges`: 128 bytes a page. `whole`: all 4096. */
export type Coverage = 'edges' | 'whole';

const MAGIC = 0xae205747;
const HEADER_WORDS = 5;
const EDGE_WORDS = 16;
const WEYL = 0x9e3779b9;
const SPREAD = 0x2c1b3c6d;

/** A page whose bytes are not what its owner wrote: the one thing that must never happen. */
class ContentError extends AerostatError {
  readonly pfn: number;

  constructor(pfn: number, message: string) {
    super('AEROSTAT_GUEST_CONTENT', message);
    this.pfn = pfn;
  }
}

const checksum = (owner: number, index: number, version: number) => mix(owner + mix(index + mix(version)));

/** Word `i` of the body; neighbours differ in about half of their bits. */
function bodyWord(seed: number, i: number): number {
  const word = (seed + Math.imul(i, WEYL)) | 0;
  return Math.imul(word ^ (word >>> 15), SPREAD) >>> 0;
}

function writeBody(words: Uint32Array, base: number, seed: number, from: number, to: number): void {
  for (let i = from; i < to; i++) words[base + i] = bodyWord(seed, i);
}

/** Index of the first word of the body that is not what it must be, or -1. */
function firstWrong(words: Uint32Array, base: number, seed: number, from: number, to: number): number {
  for (let i = from; i < to; i++) if (words[base + i] !== bodyWord(seed, i)) return i;
  return -1;
}

/** Writes page `pfn` as version `version` of page `index` of `owner`. */
export function stamp(
  access: PageAccess,
  pfn: number,
  owner: number,
  index: number,
  version: number,
  coverage: Coverage,
): void {
  const base = access.at(pfn);
  const { words } = access;
  const seed = checksum(owner, index, version);
  words[base] = MAGIC;
  words[base + 1] = owner;
  words[base + 2] = index;
  words[base + 3] = version;
  words[base + 4] = seed;
  if (coverage === 'whole') {
    writeBody(words, base, seed, HEADER_WORDS, WORDS_PER_PAGE);
  } else {
    writeBody(words, base, seed, HEADER_WORDS, EDGE_WORDS);
    writeBody(words, base, seed, WORDS_PER_PAGE - EDGE_WORDS, WORDS_PER_PAGE);
  }
  access.wrote(pfn);
}

/** @throws ContentError that says what the page holds instead */
export function checkContents(
  access: PageAccess,
  pfn: number,
  owner: number,
  index: number,
  version: number,
  coverage: Coverage,
): void {
  const base = access.at(pfn);
  const { words } = access;
  const seed = checksum(owner, index, version);
  const header =
    words[base] === MAGIC &&
    words[base + 1] === owner &&
    words[base + 2] === index &&
    words[base + 3] === version &&
    words[base + 4] === seed;
  if (!header) throw new ContentError(pfn, describe(words, base, pfn, owner, index, version));
  let wrong: number;
  if (coverage === 'whole') {
    wrong = firstWrong(words, base, seed, HEADER_WORDS, WORDS_PER_PAGE);
  } else {
    wrong = firstWrong(words, base, seed, HEADER_WORDS, EDGE_WORDS);
    if (wrong < 0) wrong = firstWrong(words, base, seed, WORDS_PER_PAGE - EDGE_WORDS, WORDS_PER_PAGE);
  }
  if (wrong < 0) return;
  throw new ContentError(
    pfn,
    `frame ${pfn} (page ${index} of ${owner}) is corrupt from byte ${wrong * 4} on`,
  );
}

function describe(
  words: Uint32Array,
  base: number,
  pfn: number,
  owner: number,
  index: number,
  version: number,
): string {
  const expected = `frame ${pfn} should hold page ${index} of ${owner}, version ${version}`;
  if (words[base] === 0 && words.subarray(base, base + WORDS_PER_PAGE).every(word => word === 0)) {
    return `${expected}; it is all zeros`;
  }
  if (words[base] !== MAGIC) return `${expected}; it starts with 0x${words[base].toString(16)}`;
  return `${expected}; it holds page ${words[base + 2]} of ${words[base + 1]}, version ${words[base + 3]}`;
}
