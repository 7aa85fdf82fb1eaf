/** What the driver throws. */
import { AerostatError } from '../sys/error.ts';

/** The device and this driver have not agreed, or the guest has no memory for the driver itself. */
export class DriverProbeError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_DRIVER_PROBE', `the balloon driver did not start: ${message}`, options);
  }
}

/** A saved driver that cannot go on here: damaged, of another version, or not saved by us. */
export class DriverStateError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_DRIVER_STATE', `saved driver refused: ${message}`);
  }
}

/** The driver does not run: it was removed, or its device is gone or broken. */
export class DriverStoppedError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_DRIVER_STOPPED', `the balloon driver does not run: ${message}`, options);
  }
}
