/**
 * What a host notices of the driver that runs on a guest's device: that it starts, pauses, goes on, stops or begins anew, and
 * that its memory changes. Each is passed on to the parts of the host that go by it.
 */

import type { GuestState } from '../control/contract.ts';
import { obstacleOf } from '../control/guest-state.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { DeviceObserver } from '../device/device-observer.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { StopReason } from '../virtio/device.ts';
import type { FrontEndChecks } from './front-end-checks.ts';
import type { GuestEvents } from './guest-events.ts';
import type { GuestLife } from './guest-life.ts';
import type { GuestRequests } from './guest-requests.ts';
import type { RemovedMemory } from './removed-memory.ts';
import type { StatisticsPoll } from './statistics-poll.ts';
import type { TargetSteering } from './target-steering.ts';

/** The parts that go by it, which are put together after the device. */
export interface DriverParts {
  readonly name: string;
  readonly device: BalloonDevice;
  readonly life: GuestLife;
  readonly events: GuestEvents;
  readonly target: TargetSteering;
  readonly removed: RemovedMemory;
  readonly checks: FrontEndChecks;
  readonly statistics: StatisticsPoll;
  readonly requests: GuestRequests;
  state(): GuestState;
  /** Some memory is there: a device that arrives can be loaded. */
  memoryArrived(): void;
}

export class DriverWatch implements DeviceObserver {
  readonly #parts: () => DriverParts;

  constructor(parts: () => DriverParts) {
    this.#parts = parts;
  }

  configRead(offset: number, length: number): void {
    const { target, checks } = this.#parts();
    target.show();
    checks.configRead(offset, length);
  }

  regionAdded({ backing, size }: MemoryRegion): void {
    const { target, removed, events, memoryArrived } = this.#parts();
    target.memoryChanged();
    removed.changed();
    memoryArrived();
    if (backing.file?.sealed !== false) return;
    const message = 'guest memory can be shrunk by its front-end, which would end this daemon';
    events.log('debug', message, { sizeBytes: size });
  }

  regionRemoved(): void {
    const { target, removed } = this.#parts();
    target.memoryChanged();
    removed.changed();
  }

  queueStarted(role: string, known: boolean): void {
    if (role !== 'inflate') return;
    const { device, life, events, target, statistics } = this.#parts();
    const { partial } = device.accounts;
    life.started();
    this.#stateChanged();
    if (partial) {
      events.problem(
        'account',
        'the driver ran before this connection: what its balloon held then is not known until it starts anew',
      );
    }
    events.changed('ready', () => ({}));
    target.begin(known ? 'known' : partial ? 'found' : 'fresh');
    statistics.start();
  }

  queueSuspended(role: string): void {
    if (role !== 'inflate') return;
    this.#parts().target.rest();
    this.#stopped('paused');
  }

  queueResumed(role: string): void {
    if (role !== 'inflate') return;
    const { target, life } = this.#parts();
    target.resume();
    life.started();
    this.#stateChanged();
  }

  queueStopped(role: string, reason: StopReason): void {
    if (role !== 'inflate') return;
    const { target } = this.#parts();
    if (reason === 'abandoned') target.awaitDriver();
    else target.rest();
    this.#stopped(reason);
  }

  reset(): void {
    const { requests, life, target, events } = this.#parts();
    requests.stop();
    life.ended();
    target.awaitDriver();
    events.changed('reset', () => ({}));
  }

  #stopped(reason: StopReason): void {
    const { life } = this.#parts();
    if (reason === 'abandoned') life.ended();
    else life.paused();
    this.#stateChanged();
  }

  /** A front-end may disable and enable its rings as often as it likes. */
  #stateChanged(): void {
    const parts = this.#parts();
    parts.events.changed('state', () => ({ state: parts.state() }));
    const obstacle = obstacleOf(parts.state());
    if (obstacle !== undefined) {
      parts.statistics.dismiss(`${parts.name} sends no statistics: ${obstacle}`);
    }
  }
}
