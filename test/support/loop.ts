/** A reactor in a test's own thread, turned for as long as something is waited for. */
import { Reactor } from '../../src/sys/poll.ts';

/** Long enough for a busy machine; a test that gets there has failed. */
const WAIT_MS_MAX = 20_000;
const TURN_MS = 5;

const visitNode = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

export class TestLoop {
  readonly reactor = new Reactor();

  /** Turns until `promise` settles, and settles like it. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    // Awaited below; a rejection meanwhile is not unhandled.
    watched.catch(() => {});
    await visitNode();
    await this.turnUntil(() => settled);
    return watched;
  }

  /** Turns until `done` says so. */
  async turnUntil(done: () => boolean): Promise<void> {
    const deadline = performance.now() + WAIT_MS_MAX;
    while (!done()) {
      if (performance.now() > deadline) throw new Error('what the test waits for does not happen');
      this.reactor.turn(TURN_MS);
      await visitNode();
    }
  }

  /** Turns until nothing is ready any more, as far as can be told. */
  async settle(turns = 8): Promise<void> {
    for (let turn = 0; turn < turns; turn++) {
      this.reactor.turn(0);
      await visitNode();
    }
  }

  close(): void {
    this.reactor.close();
  }
}
