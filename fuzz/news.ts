/**
 * What others are told of front-ends that come and go and of problems that repeat, in virtual time. A byte a step: a
 * front-end comes, goes, causes a problem, or time passes. More lines in ten seconds than a person can read, connections that
 * are neither told nor counted, or a last word that is not true, is a finding.
 */
import { ConnectionEvents } from '../src/hosting/connection-events.ts';
import { GuestEvents } from '../src/hosting/guest-events.ts';
import { LogLimiter } from '../src/hosting/log-limiter.ts';
import { assert } from '../src/sys/error.ts';

const WINDOW_MS = 10_000;
/** Five connections one by one, their sum and what is true then, in each of the two intervals that a window can touch. */
const LINES_MAX = 2 * (2 * 5 + 2);
/** The longest wait of a step, in units of 64. */
const STEP_MS = 12_800;
const KINDS = 16;

interface Due {
  readonly atMs: number;
  readonly run: () => void;
}

class World {
  nowMs = 0;
  readonly lines: { readonly atMs: number; readonly text: string }[] = [];
  readonly #timers = new Set<Due>();
  readonly #reactor = {
    schedule: (delayMs: number, run: () => void) => {
      const due = { atMs: this.nowMs + delayMs, run };
      this.#timers.add(due);
      return { cancel: () => this.#timers.delete(due) };
    },
  };
  readonly news = new ConnectionEvents(
    new GuestEvents('g', { emit: () => {}, log: (_, __, text) => this.#say(text) }, this.#reactor),
    this.#reactor,
  );
  readonly limiter = new LogLimiter(() => this.nowMs);

  pass(ms: number): void {
    const end = this.nowMs + ms;
    for (;;) {
      const next = [...this.#timers].sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined || next.atMs > end) break;
      this.#timers.delete(next);
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = end;
  }

  #say(text: string): void {
    this.lines.push({ atMs: this.nowMs, text });
    const before = this.lines[this.lines.length - 1 - LINES_MAX];
    assert(before === undefined || before.atMs + WINDOW_MS <= this.nowMs, 'the log is flooded');
  }
}

/** Connections that a line is about. */
function endsIn(text: string): number {
  if (text === 'front-end disconnected') return 1;
  const [, times] = /disconnected (once|\d+ times) more/.exec(text) ?? [];
  return times === undefined ? 0 : times === 'once' ? 1 : Number.parseInt(times, 10);
}

function target(bytes: Uint8Array): void {
  const world = new World();
  const admitted = new Map<number, { lastMs: number; told: number; happened: number }>();
  let connected = false;
  let ends = 0;
  for (const byte of bytes) {
    switch (byte & 3) {
      case 0:
        if (!connected) world.news.opened();
        connected = true;
        break;
      case 1:
        if (connected) {
          world.news.closed();
          ends++;
        }
        connected = false;
        break;
      case 2:
        world.pass(((byte >> 2) * STEP_MS) / 64);
        break;
      default: {
        const kind = (byte >> 2) % KINDS;
        const before = admitted.get(kind) ?? { lastMs: Number.NEGATIVE_INFINITY, told: 0, happened: 0 };
        before.happened++;
        const suppressed = world.limiter.admit(`kind ${kind}`);
        if (suppressed !== undefined) {
          assert(before.lastMs + WINDOW_MS <= world.nowMs, 'a problem is told twice in an interval');
          before.lastMs = world.nowMs;
          before.told += suppressed + 1;
          assert(before.told === before.happened, 'problems are neither told nor counted');
        }
        admitted.set(kind, before);
      }
    }
  }
  world.pass(3 * WINDOW_MS);
  const last = world.lines.findLast(({ text }) => text.startsWith('front-end '));
  assert((last?.text === 'front-end connected') === connected, 'the last word is not true');
  const told = world.lines.reduce((sum, { text }) => sum + endsIn(text), 0);
  // The word that is true in the end may be about one that is counted as well.
  assert(told === ends || told === ends + 1, `${told} of ${ends} ends are told`);
}

export const targets: Record<string, (bytes: Uint8Array) => void> = { news: target };
