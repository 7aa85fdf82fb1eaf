/**
 * Feeds one target with inputs: the kept corpus first, then mutations of it and of each other, until time is up or
 * something is found. A finding is an input on which the target throws, or takes longer than any input may.
 */
import type { Random } from '../../src/guest/random.ts';
import { INPUT_BYTES_MAX, mutate } from './mutator.ts';

/** Throws when a promise is broken; whatever else an input does is fine. */
export type Target = (bytes: Uint8Array) => void;

/**
 * The longest that one input may keep its thread at work. Honest work on the longest list is some milliseconds; what is worse than
 * linear in its length, or walks memory that a few bytes name, takes seconds.
 */
export const INPUT_MS_MAX = 1000;

/** How often an input that took too long is tried again. */
const SLOW_AGAIN = 2;

/** Inputs that mutations start from, besides the corpus. Mutations of mutations get further away from it. */
const POOL_MAX = 256;
/** One input in so many joins them. Which of them lead anywhere is unknown without measuring coverage. */
const JOIN_ODDS = 64;

/** Tries to make a finding smaller; each costs one run of the target. */
const SHRINK_TRIES_MAX = 2000;

export interface Finding {
  readonly input: Uint8Array;
  readonly reason: Error;
}

export interface CampaignOptions {
  readonly target: Target;
  readonly corpus: readonly Uint8Array[];
  readonly random: Random;
  /** Ends the campaign, corpus done or not. */
  readonly timeMs: number;
  /** Sees every input before the target does. */
  readonly watch?: (input: Uint8Array) => void;
  readonly now?: () => number;
  /** The clock by which inputs are slow; {@link now} unless given. One of the thread's own says nothing of other programs. */
  readonly spentMs?: () => number;
}

export interface CampaignResult {
  readonly executions: number;
  readonly slowestMs: number;
  readonly finding: Finding | undefined;
}

export class SlowInputError extends Error {
  constructor(tookMs: number) {
    super(`took ${Math.round(tookMs)} ms; the limit is ${INPUT_MS_MAX} ms`);
  }
}

export function runCampaign(options: CampaignOptions): CampaignResult {
  const { target, corpus, random, timeMs, watch = () => {}, now = () => performance.now() } = options;
  const { spentMs = now } = options;
  const end = now() + timeMs;
  const seeds = corpus.length > 0 ? corpus : [new Uint8Array(0)];
  const pool: Uint8Array[] = [];
  let executions = 0;
  let slowestMs = 0;

  const pick = (): Uint8Array =>
    pool.length > 0 && random.chance(0.5)
      ? pool[random.below(pool.length)]
      : seeds[random.below(seeds.length)];

  for (;;) {
    const input = executions < seeds.length ? seeds[executions] : mutate(random, pick(), pick());
    watch(input);
    const started = spentMs();
    const reason = failureOf(target, input);
    let tookMs = spentMs() - started;
    executions++;
    // It may have been compiled, or have waited for the machine: what is slow again is slow.
    for (let again = 0; again < SLOW_AGAIN && reason === undefined && tookMs > INPUT_MS_MAX; again++) {
      const from = spentMs();
      failureOf(target, input);
      tookMs = Math.min(tookMs, spentMs() - from);
    }
    slowestMs = Math.max(slowestMs, tookMs);
    if (reason !== undefined) {
      return { executions, slowestMs, finding: { input: shrink(target, input, reason), reason } };
    }
    if (tookMs > INPUT_MS_MAX) {
      return { executions, slowestMs, finding: { input, reason: new SlowInputError(tookMs) } };
    }
    if (now() > end) return { executions, slowestMs, finding: undefined };
    if (input.length > INPUT_BYTES_MAX || random.below(JOIN_ODDS) > 0) continue;
    if (pool.length < POOL_MAX) pool.push(input);
    else pool[random.below(POOL_MAX)] = input;
  }
}

function failureOf(target: Target, input: Uint8Array): Error | undefined {
  try {
    // A copy, so that a target that writes into its input does not change what is kept.
    target(input.slice());
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** What makes two failures one: their kind and their words, whatever numbers are in them. */
const kindOf = ({ name, message }: Error): string => `${name}: ${message.replaceAll(/\d+/g, 'N')}`;

/** The smallest input that still fails in the same way, as far as cutting pieces out finds one. */
export function shrink(target: Target, input: Uint8Array, reason: Error): Uint8Array {
  const kind = kindOf(reason);
  let best = input;
  let tries = 0;
  for (let piece = Math.ceil(best.length / 2); piece >= 1; piece = piece === 1 ? 0 : Math.ceil(piece / 2)) {
    for (let at = 0; at < best.length && tries < SHRINK_TRIES_MAX; ) {
      const shorter = new Uint8Array(best.length - Math.min(piece, best.length - at));
      shorter.set(best.subarray(0, at));
      shorter.set(best.subarray(at + piece), at);
      const failure = failureOf(target, shorter);
      tries++;
      if (failure !== undefined && kindOf(failure) === kind) best = shorter;
      else at += piece;
    }
  }
  return best;
}
