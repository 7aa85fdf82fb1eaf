/** What the driver throws. */
import { AerostatError } from '../sys/error.ts';

/** The device and this driver have not agreed, or the guest has no memory for the driver itself. */
export class DriverProbeError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_DRIVER_PROBE', `the balloon driver did not start: ${message}`, options);
  }
}

/** The driver does not run: it was removed, or its device is gone or broken. */
export class DriverStoppedError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_DRIVER_STOPPED', `the balloon driver does not run: ${message}`, options);
  }
}
