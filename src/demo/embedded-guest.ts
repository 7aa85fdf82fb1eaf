/** The demonstration's embedded guest: no kernel of Linux, but one like it, with real memory and the same device. */
import { freemem } from 'node:os';
import type { GuestProcess } from '../embedded/guest-process.ts';
import type { DemoGuest } from './story.ts';

const MIB = 2 ** 20;
/** What the host needs beside the guest's memory while the story is told. */
const HOST_SHARE = 0.25;

/** As much of `wished` as fits on this host, in whole MiB. */
export const embeddedMemoryBytes = (wished: number): number =>
  Math.floor(Math.min(wished, freemem() * (1 - HOST_SHARE)) / MIB) * MIB;

export class EmbeddedDemoGuest implements DemoGuest {
  readonly name: string;
  readonly #guest: GuestProcess;

  /** Takes ownership of the process. */
  constructor(name: string, guest: GuestProcess) {
    this.name = name;
    this.#guest = guest;
  }

  async use(bytes: number): Promise<void> {
    await this.#guest.tell({ do: 'use', bytes });
  }

  async free(): Promise<void> {
    await this.#guest.tell({ do: 'free' });
  }

  async freeBytes(): Promise<number> {
    return (await this.#guest.tell({ do: 'meminfo' })).freeBytes;
  }

  shutdown(): Promise<void> {
    return this.#guest.close();
  }
}
