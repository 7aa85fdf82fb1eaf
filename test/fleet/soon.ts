/** Waiting for a condition on agents and machines that are played: far longer than it takes, because only what hangs gets there. */
import { vi } from 'vitest';

export const soon = <Value>(check: () => Value | Promise<Value>): Promise<Value> =>
  vi.waitFor(check, { timeout: 30_000, interval: 10 });
