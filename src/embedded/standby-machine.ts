/**
 * A machine that stands by for a guest on its way: connected to its device, with a guest restored from what was sent ahead of
 * it. Nothing runs, and the guest's memory is not touched, for it is still being filled.
 */
import { Guest } from '../guest/guest.ts';
import { assert } from '../sys/error.ts';
import { connectMachine, type EmbeddedMachine, surroundingsOf, switchOff } from './machine.ts';
import type { EmbeddedGuestOptions, MachineParts } from './options.ts';

export class StandbyMachine {
  readonly machine: EmbeddedMachine;
  readonly #options: EmbeddedGuestOptions;
  readonly #parts: MachineParts;
  #restored: { readonly guest: Guest; readonly from: Uint8Array } | undefined;

  private constructor(machine: EmbeddedMachine, options: EmbeddedGuestOptions, parts: MachineParts) {
    this.machine = machine;
    this.#options = options;
    this.#parts = parts;
  }

  /** `parts` have pages: they are used by one guest after the other. */
  static async open(options: EmbeddedGuestOptions, parts: MachineParts): Promise<StandbyMachine> {
    assert(parts.pages !== undefined, 'a machine that stands by without the states of its pages');
    return new StandbyMachine(await connectMachine(options, parts), options, parts);
  }

  /** @throws SavedGuestError when it cannot be restored */
  rehearse(saved: Uint8Array): void {
    this.#restored = undefined;
    this.#restored = { guest: this.#restore(saved), from: saved };
  }

  /** The guest that was saved: the one that stands by, where that has not changed. @throws SavedGuestError */
  guest(saved: Uint8Array): Guest {
    const { guest, from } = this.#restored ?? {};
    this.#restored = undefined;
    return from !== undefined && guest?.becomeLater(from, saved) ? guest : this.#restore(saved);
  }

  close(): Promise<void> {
    return switchOff(this.machine);
  }

  #restore(saved: Uint8Array): Guest {
    this.#parts.pages?.reset();
    return Guest.restore(surroundingsOf(this.machine, this.#options, this.#parts), saved);
  }
}
