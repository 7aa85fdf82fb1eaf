/**
 * When an agent plans, if it leads: each period, and soon after something that plans wait for, so that a host that is drained
 * does not wait for the next period between its guests. Only when; what is planned is leading.ts's.
 */

/** Of a period: what happens together is planned about together. */
const SOON_PERIODS = 1 / 16;
/** Of a period: plans are no closer than that, whatever hosts report. */
const APART_PERIODS = 1 / 4;

export class PlanningPace {
  readonly #plan: () => Promise<void>;
  readonly #periodMs: number;
  readonly #now: () => number;
  #period: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #beganMs = Number.NEGATIVE_INFINITY;
  #planning = false;
  #again = false;

  /** `now`: a clock that is never set. */
  constructor(plan: () => Promise<void>, periodMs: number, now: () => number) {
    this.#plan = plan;
    this.#periodMs = periodMs;
    this.#now = now;
  }

  start(): void {
    this.#period = setInterval(() => void this.#go(), this.#periodMs);
    void this.#go();
  }

  /** Something has happened that the next plan may go by. */
  soon(): void {
    if (this.#planning) {
      this.#again = true;
      return;
    }
    if (this.#period === undefined || this.#soon !== undefined) return;
    const apartMs = this.#beganMs + APART_PERIODS * this.#periodMs - this.#now();
    const waitMs = Math.max(SOON_PERIODS * this.#periodMs, apartMs);
    this.#soon = setTimeout(() => {
      this.#soon = undefined;
      void this.#go();
    }, waitMs);
  }

  close(): void {
    clearInterval(this.#period);
    clearTimeout(this.#soon);
    this.#period = undefined;
  }

  async #go(): Promise<void> {
    if (this.#planning) return;
    this.#planning = true;
    this.#again = false;
    this.#beganMs = this.#now();
    await this.#plan();
    this.#planning = false;
    if (this.#again) this.soon();
  }
}
