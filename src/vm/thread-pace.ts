/**
 * How long a machine's threads take to stand still and to go on: as the warm-up did it with a small machine, and longer by
 * what their turns take longer now. A stop that is to come is judged by it while the guest runs.
 */
import { monotonicMs } from '../sys/poll.ts';

interface Pace {
  readonly stopMs: number;
  readonly runMs: number;
}

/** Turns that are waited for; the shortest counts, as the others have waited for more than that. */
const TURNS = 3;
/** Turns of both threads in a stop, and in going on, one after the other. */
const TURNS_NEEDED = 2;
/** What a stop took on two slow cores, of threads that were never warmed up. */
const STOP_MS_UNMEASURED = 10;

/** Resolves when the guest's thread and the device's have each had a turn. */
type Turn = (name: string) => Promise<unknown>;

export class ThreadPace {
  readonly #turn: Turn;
  #warm: (Pace & { readonly turnMs: number }) | undefined;

  constructor(turn: Turn) {
    this.#turn = turn;
  }

  /** The warm-up has stopped its machine and let it go on so often: the middle of each counts. */
  async warmed(name: string, seen: readonly Pace[]): Promise<void> {
    this.#warm = {
      stopMs: middleOf(seen.map(({ stopMs }) => stopMs)),
      runMs: middleOf(seen.map(({ runMs }) => runMs)),
      turnMs: await this.#turnMs(name),
    };
  }

  /** Of the machine of this name, now; `runMs` is undefined where it is not known. */
  async expected(name: string): Promise<{ readonly stopMs: number; readonly runMs: number | undefined }> {
    const turnMs = await this.#turnMs(name);
    if (this.#warm === undefined) return { stopMs: STOP_MS_UNMEASURED + turnMs, runMs: undefined };
    const laterMs = TURNS_NEEDED * Math.max(0, turnMs - this.#warm.turnMs);
    return { stopMs: this.#warm.stopMs + laterMs, runMs: this.#warm.runMs + laterMs };
  }

  async #turnMs(name: string): Promise<number> {
    let shortestMs = Number.POSITIVE_INFINITY;
    for (let turn = 0; turn < TURNS; turn++) {
      const startMs = monotonicMs();
      await this.#turn(name);
      shortestMs = Math.min(shortestMs, monotonicMs() - startMs);
    }
    return shortestMs;
  }
}

const middleOf = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
