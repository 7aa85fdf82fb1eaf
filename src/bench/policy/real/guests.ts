/**
 * Guests of real memory that play a trace: what their programs want is told to them, and whether a program was killed for it
 * is told by them. An embedded guest is one kind, a Linux kernel the other. What they are to want is not known here.
 */
import { type GuestCommandLine, GuestProcess } from '../../../embedded/guest-process.ts';
import { bound } from '../../../peers/lifeline.ts';
import { AerostatError } from '../../../sys/error.ts';

/** What a guest's programs are to have, in its own bytes. */
export interface GuestWish {
  readonly programsBytes: number;
  /** Size of the files, and how much of them is read on. */
  readonly filesBytes: number;
  readonly readBytes: number;
}

export interface RealGuest {
  readonly name: string;
  /** Resolves when it is so, or another wish came; false when a program was killed for want of memory. */
  want(wish: GuestWish): Promise<boolean>;
  close(): Promise<void>;
}

/** How embedded guests are started, which the command line of Aerostat knows. */
export type EmbeddedStart = (options: { socketPath: string; memoryBytes: number }) => GuestCommandLine;

export class EmbeddedPlayer implements RealGuest {
  readonly name: string;
  readonly #guest: GuestProcess;

  private constructor(name: string, guest: GuestProcess) {
    this.name = name;
    this.#guest = guest;
  }

  static async start(name: string, [program, ...args]: GuestCommandLine): Promise<EmbeddedPlayer> {
    const [guard, words] = bound(program, [...args, '--json']);
    return new EmbeddedPlayer(name, await GuestProcess.start([guard, ...words]));
  }

  async want({ programsBytes, filesBytes, readBytes }: GuestWish): Promise<boolean> {
    try {
      await this.#guest.tell({ do: 'want', bytes: programsBytes, fileBytes: filesBytes, readBytes });
      return true;
    } catch (error) {
      if (error instanceof AerostatError && error.code === 'AEROSTAT_GUEST_MEMORY') return false;
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#guest.close();
  }
}
