/** The demonstration's Linux guest: a real kernel with its own balloon driver, as a process of this machine. */

import { freeMemory, useMemory } from '../peers/linux/workloads.ts';
import { UmlGuest } from '../peers/uml/guest.ts';
import { guestMemoryBytesMax } from '../peers/uml/memory-directory.ts';
import type { DemoGuest } from './story.ts';

const MIB = 2 ** 20;

/** As much of `wished` as fits on this host, in whole MiB. */
export const linuxMemoryBytes = (wished: number): number =>
  Math.floor(Math.min(wished, guestMemoryBytesMax()) / MIB) * MIB;

export class LinuxDemoGuest implements DemoGuest {
  readonly name: string;
  readonly #guest: UmlGuest;

  private constructor(name: string, guest: UmlGuest) {
    this.name = name;
    this.#guest = guest;
  }

  static async boot(
    name: string,
    socketPath: string,
    memoryBytes: number,
    signal: AbortSignal,
  ): Promise<LinuxDemoGuest> {
    return new LinuxDemoGuest(name, await UmlGuest.boot({ memoryBytes, sockets: [socketPath], signal }));
  }

  use(bytes: number): Promise<void> {
    return useMemory(this.#guest, Math.floor(bytes / MIB) * MIB);
  }

  free(): Promise<void> {
    return freeMemory(this.#guest);
  }

  async freeBytes(): Promise<number> {
    return (await this.#guest.meminfo()).MemFree;
  }

  shutdown(): Promise<void> {
    return this.#guest.shutdown();
  }
}
