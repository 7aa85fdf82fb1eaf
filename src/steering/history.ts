/**
 * What the policy decided about each guest a while ago: every decision that changed something, and one now and then in
 * between. It is bounded, however many guests there are and however often they change.
 */
import type { GuestPolicyDecision } from '../control/policy.ts';

/** Of all guests together; a decision takes some 500 bytes. */
const DECISIONS_MAX = 50_000;
const DECISIONS_OF_ONE_MAX = 600;
const DECISIONS_OF_ONE_MIN = 16;
const QUIET_MS = 10_000;

export class DecisionHistory {
  readonly #decisions = new Map<string, GuestPolicyDecision[]>();

  /** `decision` is only asked for where it is kept. */
  note(
    name: string,
    { timeMs, changed }: { readonly timeMs: number; readonly changed: boolean },
    decision: () => GuestPolicyDecision,
  ): void {
    const list = this.#decisions.get(name) ?? [];
    const last = list.at(-1);
    if (!changed && last !== undefined && Math.abs(timeMs - last.timeMs) < QUIET_MS) return;
    list.push(decision());
    this.#decisions.set(name, list);
    const share = Math.floor(DECISIONS_MAX / this.#decisions.size);
    const most = Math.max(DECISIONS_OF_ONE_MIN, Math.min(DECISIONS_OF_ONE_MAX, share));
    if (list.length > most) list.splice(0, list.length - most);
  }

  of(name: string): readonly GuestPolicyDecision[] {
    return this.#decisions.get(name) ?? [];
  }

  /** Forgets all guests but these. */
  keep(names: ReadonlySet<string>): void {
    for (const name of this.#decisions.keys()) if (!names.has(name)) this.#decisions.delete(name);
  }
}
