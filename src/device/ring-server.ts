/**
 * Serves one ring, whatever its buffers mean: batch by batch, for as long as the turn lasts. All that is available is
 * taken, the ring's part acts on it, all of it is returned, and the driver is interrupted once. A batch that has to wait for
 * other threads' discards is kept, and returned when they are over.
 */
import { PageListError } from '../balloon/page-list.ts';
import type { PoppedBuffer } from '../virtio/chain.ts';
import type { StopReason } from '../virtio/device.ts';
import type { DeviceCounters } from './counters.ts';
import type { DeviceHost } from './device-host.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { DevicePart, PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';
import { BATCHES_PER_TURN, workOf } from './turn.ts';

export class RingServer {
  readonly ring: RunningQueue;
  readonly part: DevicePart;
  readonly #accounts: PageAccounts;
  readonly #counters: DeviceCounters;
  readonly #host: DeviceHost;
  /** Buffers of the batch that go back with it, and what was promised of each. */
  readonly #late: { readonly buffer: PoppedBuffer; readonly promised: number }[] = [];

  constructor(ring: RunningQueue, part: DevicePart, { accounts, counters, host }: PartWorld) {
    this.ring = ring;
    this.part = part;
    this.#accounts = accounts;
    this.#counters = counters;
    this.#host = host;
  }

  /** One turn, of so much work. Whether there may be more to serve. */
  serve(work: number | undefined): boolean {
    const { budget } = this.#accounts;
    budget.begin(work);
    try {
      if (!this.#returnKept()) return false;
      for (let batch = 0; batch < BATCHES_PER_TURN && !budget.over; batch++) {
        if (!this.#serveBatch()) return false;
      }
      return true;
    } catch (error) {
      this.ring.break(error);
      return false;
    } finally {
      budget.end();
    }
  }

  /** Returns the batch that is kept, if there is one and nothing speaks against it; false if it stays. */
  returnKept(): boolean {
    try {
      return this.ring.suspended || this.#returnKept();
    } catch (error) {
      this.ring.break(error);
      return true;
    }
  }

  suspend(): void {
    this.ring.suspended = true;
    this.#leave();
    this.part.suspend?.(this.ring);
  }

  resume(): void {
    this.ring.suspended = false;
    this.part.resume?.(this.ring);
  }

  stop(reason: StopReason): void {
    this.#leave();
    this.part.stop(this.ring, reason);
  }

  /** A list of which a part is taken is taken again, whole, when the ring goes on: that changes nothing that it did. */
  #leave(): void {
    const { queue, chain, walk } = this.ring;
    if (!walk.active) return;
    walk.drop();
    queue.undoPop(chain);
    this.part.leave?.(this.ring);
  }

  /** True when there is more. */
  #serveBatch(): boolean {
    const { ring, part } = this;
    const { queue, memory, walk } = ring;
    const accounts = this.#accounts;
    const outsideBefore = accounts.pagesOutside;
    part.batchBegun?.(ring);
    let taken = 0;
    queue.suppressKicks(memory);
    for (; taken < queue.size && !accounts.budget.over; taken++) {
      if (!walk.active && !this.#takeBuffer()) break;
      if (!walk.active) continue;
      const done = part.resumeList === undefined ? walk.resumeList(accounts) : part.resumeList(ring);
      if (!done) break;
      part.walked?.(ring);
      this.#giveBack(part.promised?.(ring) ?? 0);
    }
    ring.batchBuffers = taken;
    const outside = accounts.pagesOutside - outsideBefore;
    if (outside > 0) {
      this.#host.badInput(
        `${outside} pages on the ${ring.role} queue are not guest memory, or came too often`,
      );
    }
    part.batchTaken?.(ring);
    if (!this.#mayReturn()) {
      ring.kept = true;
      part.batchKept?.(ring);
      this.#host.discardSoon?.();
      return false;
    }
    this.#return(false);
    return queue.requestKicks(memory) || walk.active;
  }

  #returnKept(): boolean {
    if (!this.ring.kept) return true;
    if (!this.#mayReturn()) return false;
    this.ring.kept = false;
    this.#return(true);
    return true;
  }

  #mayReturn(): boolean {
    return !this.#accounts.elsewhere || (this.part.mayReturn?.(this.ring) ?? true);
  }

  #return(late: boolean): void {
    this.#giveBackLate();
    this.ring.publish();
    this.part.batchReturned?.(this.ring, late);
    const failure = this.#accounts.takeFailure();
    if (failure !== undefined) this.#host.discardFailed(failure);
  }

  /** Takes the next buffer, and begins its list or is done with it. False when there is none. */
  #takeBuffer(): boolean {
    const { queue, memory, chain } = this.ring;
    if (!queue.pop(memory, chain)) return false;
    this.#counters.buffers++;
    this.#accounts.budget.spent += workOf(chain);
    if (chain.fault !== undefined) this.#refuse(chain.fault);
    else this.#understand();
    return true;
  }

  #understand(): void {
    const { ring } = this;
    let goesBack: boolean;
    try {
      goesBack = this.part.serve(ring);
    } catch (error) {
      if (!(error instanceof PageListError)) throw error;
      this.#refuse(error.message);
      return;
    }
    if (goesBack && !ring.walk.active) this.#giveBack(0);
  }

  #refuse(reason: string): void {
    const { ring } = this;
    this.#counters.badBuffers++;
    this.#host.badInput(`a buffer on the ${ring.role} queue was refused: ${reason}`);
    this.part.refuse?.(ring);
    this.#giveBack(0);
  }

  /** Puts the buffer that was taken last back: now, or with the batch where what it says may still change. */
  #giveBack(promised: number): void {
    const { ring, part } = this;
    if (part.promised === undefined) ring.giveBack(ring.chain, 0);
    else this.#late.push({ buffer: ring.chain.hold(), promised });
  }

  #giveBackLate(): void {
    if (this.#late.length === 0) return;
    const { ring, part } = this;
    const holds = part.promisesHold?.(ring) ?? false;
    for (const { buffer, promised } of this.#late) ring.giveBack(buffer, holds ? promised : 0);
    this.#late.length = 0;
  }
}
