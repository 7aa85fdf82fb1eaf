/**
 * Lends the state of the guest's allocator to the host (queue `shared`), which takes and returns huge frames then without
 * asking. The driver speaks three times: when it lends, when another host is to begin anew, and when the guest wants memory
 * of which all that is free is being discarded. What the words of the state say is balloon/shared-frames.ts's.
 */
import { LAYOUT_VERSION, LEND, SHARED_MESSAGE, WAIT, WITHDRAW } from '../balloon/shared-frames.ts';
import type { KernelMemory, SharedFrames } from '../memory/kernel-memory.ts';
import { assert } from '../sys/error.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import type { DriverRing } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';
import type { QueuePart } from './queue-part.ts';

export class SharedFramesPart implements QueuePart {
  readonly #ring: DriverRing;
  readonly #shared: SharedFrames;
  readonly #place: Stretch;
  readonly #kernel: KernelMemory;
  #forgetNotifier: () => void = () => {};
  /** What the host is told next. */
  #next: number | undefined = LEND;
  /** What it is being told; undefined when the buffer is here. */
  #said: number | undefined;
  #lent = false;
  #paused = false;
  #stopped = false;
  #running = false;

  /** @throws DriverProbeError when the guest has no memory for its message */
  constructor(ring: DriverRing, memory: DriverMemory, kernel: KernelMemory) {
    const { shared } = kernel;
    const place = memory.allocate(SHARED_MESSAGE.size);
    if (place === undefined) throw new DriverProbeError('the guest has no memory to lend its allocator by');
    assert(shared !== undefined, 'an allocator that cannot be lent');
    this.#ring = ring;
    this.#shared = shared;
    this.#place = place;
    this.#kernel = kernel;
  }

  start(): void {
    this.#forgetNotifier = this.#kernel.addOomNotifier({
      name: 'shared frames',
      release: () => this.#wait(),
    });
    this.turn();
  }

  turn(): void {
    if (this.#running) return;
    this.#running = true;
    try {
      do {
        while (this.#ring.takeUsed()) this.#returned();
        if (this.#stopped) return;
        if (this.#next !== undefined && this.#said === undefined && !this.#paused) this.#say(this.#next);
      } while (this.#ring.enableInterrupts());
    } finally {
      this.#running = false;
    }
  }

  /**
   * What the last host was discarding may be under way still, so its words stay as they are until the next one has said that
   * nothing is: it answers WITHDRAW.
   */
  deviceLost(): void {
    this.#lent = false;
    this.#next = WITHDRAW;
  }

  pause(): void {
    this.#paused = true;
  }

  get quiet(): boolean {
    return this.#said === undefined;
  }

  resume(): void {
    this.#paused = false;
    this.turn();
  }

  stop(): void {
    this.#stopped = true;
    this.#forgetNotifier();
  }

  abandon(): void {
    this.#shared.hostGone();
  }

  /** The guest is out of memory; returns the free pages that it can have when they are discarded. */
  #wait(): number {
    const { busyPages } = this.#shared;
    if (!this.#lent || busyPages === 0) return 0;
    this.#next ??= WAIT;
    this.turn();
    return busyPages;
  }

  #returned(): void {
    const said = this.#said;
    this.#said = undefined;
    if (said === WITHDRAW && this.#next === undefined) {
      this.#shared.hostGone();
      this.#next = LEND;
    }
    if (said === LEND) this.#lent = true;
  }

  #say(command: number): void {
    const { segments, memory } = this.#ring;
    const lends = command === LEND;
    const message = SHARED_MESSAGE.encode({
      command,
      version: lends ? LAYOUT_VERSION : 0,
      address: lends ? this.#shared.table.address : 0,
      firstPfn: lends ? this.#shared.table.firstPfn : 0,
      frames: lends ? this.#shared.table.frames : 0,
    });
    memory.write(this.#place.address, message, 0, message.length);
    segments.clear().addReadable(this.#place.address, message.length);
    this.#next = undefined;
    this.#said = command;
    assert(this.#ring.add(0), 'a ring without room for a message');
    this.#ring.flush();
  }
}
