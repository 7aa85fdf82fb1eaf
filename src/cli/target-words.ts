/** Targets as people write them: so much, more or less than now, or a share of the guest's memory; and what they come to. */
import { InvalidArgumentError, Option } from 'commander';
import type { GuestStatus } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';
import { formatSize, parsePages, SizeError } from './size.ts';
import { UsageError } from './usage.ts';

export type TargetWords =
  | { readonly kind: 'to'; readonly bytes: number }
  /** More than now, or less where it is negative. */
  | { readonly kind: 'by'; readonly bytes: number }
  /** Of the guest's memory. */
  | { readonly kind: 'share'; readonly share: number };

const SHARE = /^(\d{1,3}(?:\.\d+)?)\s*%$/;

/** @throws SizeError */
function parseTarget(text: string, maxBytes = Number.MAX_SAFE_INTEGER): TargetWords {
  const trimmed = text.trim();
  const share = SHARE.exec(trimmed);
  if (share !== null) {
    const percent = Number(share[1]);
    if (percent > 100) throw new SizeError(text, 'a guest has 100% of its memory', 'too much');
    return { kind: 'share', share: percent / 100 };
  }
  const sign = /^[+-]/.exec(trimmed)?.[0];
  const bytes = parsePages(sign === undefined ? trimmed : trimmed.slice(1));
  if (bytes > maxBytes) throw new SizeError(text, `the most is ${formatSize(maxBytes)}`, 'too much');
  if (sign === undefined) return { kind: 'to', bytes };
  return { kind: 'by', bytes: sign === '-' ? -bytes : bytes };
}

export const targetOption = (flags: string, description: string, maxBytes?: number) =>
  new Option(flags, description).argParser(text => {
    try {
      return parseTarget(text, maxBytes);
    } catch (error) {
      if (error instanceof AerostatError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  });

/** What `--balloon` or `--memory` said. */
export interface Wish {
  readonly of: 'balloon' | 'memory';
  readonly words: TargetWords;
}

/** Whether what is wished for depends on how the guest is. */
export const isRelative = ({ of, words }: Wish): boolean => of === 'memory' || words.kind !== 'to';

/**
 * The target that the wish comes to for this guest, in whole pages; never less than nothing.
 * @throws GuestStateError when something that it depends on is not known; UsageError when the guest has not so much memory
 */
export function targetOf(wish: Wish, guest: GuestStatus): number {
  const { of, words } = wish;
  const { name } = guest;
  if (of === 'balloon' && words.kind === 'to') return words.bytes;
  if (of === 'balloon' && words.kind === 'by') return atLeastNothing(targetNow(guest) + words.bytes);
  const memory = guest.memoryBytes;
  if (memory === null) {
    throw new GuestStateError(
      `${name} is not connected, so its memory is not known; give --balloon instead of --memory, and a size instead of a share`,
    );
  }
  if (words.kind === 'share') return wholePages(memory * (of === 'balloon' ? words.share : 1 - words.share));
  const keep = words.kind === 'to' ? words.bytes : memory - targetNow(guest) + words.bytes;
  if (words.kind === 'to' && keep > memory) {
    throw new UsageError(`${name} has ${formatSize(memory)} in all and cannot keep ${formatSize(keep)}`);
  }
  return atLeastNothing(wholePages(memory - keep));
}

function targetNow({ name, targetBytes, actualBytes }: GuestStatus): number {
  const now = targetBytes ?? actualBytes;
  if (now !== null) return now;
  throw new GuestStateError(
    `the target of ${name} is not known, so it cannot be changed by some amount; give one without + or -`,
  );
}

const wholePages = (bytes: number): number => Math.floor(bytes / PAGE_SIZE) * PAGE_SIZE;
const atLeastNothing = (bytes: number): number => Math.max(0, bytes);
