/**
 * Where the time goes while a guest stands still: what is measured, step by step, on either side of a migration. The steps of
 * the source follow each other without a gap, so that they add up to the downtime; those of the destination, whose clock is
 * another one, lie inside of the source's `load` and `run`.
 */
/** Of a clock, no more than this. */
interface NowClock {
  nowMs(): number;
}

/** A step has a name like `load`, or of its parts, `load/device`. */
export interface PauseStep {
  readonly step: string;
  readonly ms: number;
}

/** Takes the parts of what a machine is asked. */
export type NoteStep = (step: string, ms: number) => void;

/** What a destination calls the making ready for states that were sent ahead, all of it. */
export const REHEARSED = 'prepare/machine';

/** What a destination calls the time that it expects its machine's run() to take. */
export const RUN_EXPECTED = 'prepare/run';

/** More than these a destination does not tell, and a source does not believe. */
export const PAUSE_STEPS_MAX = 64;

/** Steps in a row: each begins where the one before ended. */
export class PauseWatch {
  readonly steps: PauseStep[] = [];
  readonly #clock: NowClock;
  #sinceMs: number;

  constructor(clock: NowClock) {
    this.#clock = clock;
    this.#sinceMs = clock.nowMs();
  }

  /** The first step begins now; returns when that is. */
  begin(): number {
    this.steps.length = 0;
    this.#sinceMs = this.#clock.nowMs();
    return this.#sinceMs;
  }

  /** The step under way has ended; returns when. */
  done(step: string): number {
    const nowMs = this.#clock.nowMs();
    this.steps.push({ step, ms: nowMs - this.#sinceMs });
    this.#sinceMs = nowMs;
    return nowMs;
  }

  /** How long pages have been sent, where they have begun to be: after the last sync. */
  get pagesMs(): number {
    const sent = this.steps.find(({ step }) => step === 'pages');
    if (sent !== undefined) return sent.ms;
    return this.steps.some(({ step }) => step === 'sync') ? this.#clock.nowMs() - this.#sinceMs : 0;
  }

  /** What the other side has measured of the step under way, if it tells. */
  told(steps: readonly PauseStep[] = []): void {
    this.steps.push(...steps);
  }

  /** A part of the step under way, or what another clock has measured of it. */
  readonly note: NoteStep = (step, ms) => {
    this.steps.push({ step, ms });
  };
}
