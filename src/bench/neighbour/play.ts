/** What playing an input is, for the inputs and for the process that plays them. */
import { AerostatError } from '../../sys/error.ts';

/** One round of an input. */
export type HostilePlay = () => void | Promise<void>;

/** Why an input is not played, or not any longer. */
class PlayError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_BENCH', message);
  }
}

/** This machine cannot play the input; the message says why. */
export class UnplayableError extends PlayError {}

/** The daemon hung up, or is silent for too long. */
export class LostDaemonError extends PlayError {}
