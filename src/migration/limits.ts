/**
 * What a migration may be asked for, and what it does unless it is asked. The stream, those who steer (command line, API)
 * and those who move (a machine of ours, QEMU) take their bounds from here.
 */

/** Connections of one migration: more than a machine has cores that could feed them is waste. */
export const CONNECTIONS_MAX = 64;
/** A guest that is not through after so many rounds never will be; the number bounds counters and reports. */
export const ROUNDS_MAX = 10_000;
/** An hour: who allows more does not care for the guest, and can stop it instead. */
export const DOWNTIME_MS_MAX = 3_600_000;

export const CONNECTIONS_DEFAULT = 1;
/** After which the guest is stopped, or the migration given up: each round copies less than the last, or the guest writes too fast. */
export const ROUNDS_DEFAULT = 30;
/** What QEMU allows as well, and what connections of guests survive unnoticed. */
export const DOWNTIME_MS_DEFAULT = 300;
/**
 * A guest that writes faster than can be sent is slowed down for some seconds, rather than sent over and over until
 * {@link ROUNDS_DEFAULT} are over and stopped for seconds then.
 */
export const AUTO_CONVERGE_DEFAULT = true;
