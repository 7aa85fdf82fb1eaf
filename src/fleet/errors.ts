/** What goes wrong between a host and its fleet, as errors with codes of their own. */
import { AerostatError } from '../sys/error.ts';

/** No server of NATS can be reached, or JetStream does not answer. */
export class FleetUnreachableError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_FLEET_UNREACHABLE', message, options);
  }
}

/** No agent listens under the name that was asked. */
export class NoAgentError extends FleetUnreachableError {}

/** A key has another revision than the writer believed: another agent wrote it meanwhile. */
export class RevisionError extends AerostatError {
  constructor(key: string, options?: ErrorOptions) {
    super('AEROSTAT_FLEET_REVISION', `another agent has written ${key} meanwhile`, options);
  }
}

/** The leader, or a host, refuses what was asked of it. */
export class FleetRefusalError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_FLEET_REFUSED', message);
  }
}

/** Another agent that lives has the name of this host. */
export class HostNameTakenError extends AerostatError {
  constructor(host: string) {
    super(
      'AEROSTAT_FLEET_NAME',
      `another agent of the fleet calls its host ${host}; end it, or join with another --name`,
    );
  }
}

/** The audit stream does not lead to the state that the fleet is in. */
export class ReplayError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_FLEET_REPLAY', message);
  }
}
