/** What playing an input is, for the inputs and for the process that plays them. */
import { AerostatError } from '../../sys/error.ts';

/** One round of an input. */
export type HostilePlay = () => void | Promise<void>;

/** This machine cannot play the input; the message says why. */
export class UnplayableError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_BENCH', message);
  }
}
