/** What can go wrong between a front-end and a back-end that follows the protocol, one class each. */
import { AerostatError } from '../sys/error.ts';

/** The back-end said no to a request. The conversation goes on. */
export class VhostUserRefusedError extends AerostatError {
  readonly request: string;

  constructor(description: string, request: string) {
    super('AEROSTAT_VHOST_USER_REFUSED', `${description} refused ${request}; its log may say why`);
    this.request = request;
  }
}

/** An answer did not come in time. The connection is closed: the answer could come any time later. */
export class VhostUserTimeoutError extends AerostatError {
  readonly request: string;

  constructor(description: string, request: string, waitedMs: number) {
    super(
      'AEROSTAT_VHOST_USER_TIMEOUT',
      `${description} did not answer ${request} within ${waitedMs} ms; it may be stopped, or serve another front-end`,
    );
    this.request = request;
  }
}

/** The connection to the back-end is gone, whichever side closed it. */
export class VhostUserDisconnectedError extends AerostatError {
  constructor(description: string, why: string, options?: ErrorOptions) {
    super('AEROSTAT_VHOST_USER_DISCONNECTED', `${description} cannot be reached: ${why}`, options);
  }
}

/** The back-end lacks what the caller needs of it. */
export class VhostUserUnsupportedError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VHOST_USER_UNSUPPORTED', message);
  }
}
