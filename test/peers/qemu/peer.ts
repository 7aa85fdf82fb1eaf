/** Suites that need a real QEMU, and the processes of theirs that must not outlive a test. */
import { afterEach } from 'vitest';
import { describePeer } from '../../support/peers.ts';
import { missingQemu } from './installed.ts';

export const describeWithQemu = (title: string, suite: () => void): void =>
  describePeer(title, missingQemu(), suite);

/** Calls what is given to the returned function after each test, last first. */
export function cleanUp(): (last: () => unknown) => void {
  const steps: (() => unknown)[] = [];
  afterEach(async () => {
    for (const step of steps.splice(0).reverse()) await step();
  });
  return step => steps.push(step);
}

/** Waits until `condition` holds; rejects when that takes too long. */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${condition}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}
