/**
 * A machine that is written into a file and runs on here: for a migration's source it leaves, and where another one would
 * be handed over, this one goes on.
 */
import type { FreePageChannel, SavedState, SourceMachine } from '../migration/machine.ts';
import type { NoteStep } from '../migration/pause.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { Vm } from './vm.ts';

export class StayingMachine implements SourceMachine {
  readonly #vm: Vm;
  readonly #hints: FreePageChannel | undefined;
  #share = 1;
  #stoppedMs = 0;
  #downtimeMs = 0;

  /** `hints` is how the guest names free pages, which it keeps until it may have them back. */
  constructor(vm: Vm, hints: FreePageChannel | undefined) {
    this.#vm = vm;
    this.#hints = hints;
  }

  /** How long it stood still. */
  get downtimeMs(): number {
    return this.#downtimeMs;
  }

  async stop(note?: NoteStep): Promise<void> {
    this.#stoppedMs = monotonicMs();
    await this.#vm.stop(note);
  }

  resume(): Promise<void> {
    return this.#vm.resume();
  }

  async throttle(share: number): Promise<void> {
    this.#share = share;
    await this.#vm.throttle(share);
  }

  save(note?: NoteStep): Promise<readonly SavedState[]> {
    return this.#vm.save(note);
  }

  async handOver(): Promise<void> {
    await this.#vm.resume();
    this.#downtimeMs = monotonicMs() - this.#stoppedMs;
    if (this.#share !== 1) await this.throttle(1);
    await this.#hints?.done();
  }
}
