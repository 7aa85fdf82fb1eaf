/** What goes wrong with a machine that moves, beside what its parts throw. */
import { AerostatError } from '../sys/error.ts';

/** States that are no machine of ours, or none that this host can run. */
export class VmStateError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VM_STATE', `saved machine refused: ${message}`);
  }
}

/** Something was asked of a machine that is not in the state for it. */
export class VmError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VM', message);
  }
}
