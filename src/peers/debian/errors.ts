/** What can go wrong when a peer is installed, as one sentence each. */
import { AerostatError } from '../../sys/error.ts';

/** This machine does not install from Debian's archive. */
export class NotDebianError extends AerostatError {
  constructor(why: string) {
    super('AEROSTAT_NOT_DEBIAN', `peers are installed from Debian's archive, and ${why}`);
  }
}

/** The mirror did not answer, or not with what was asked for. */
export class ArchiveError extends AerostatError {
  readonly mirror: string;

  constructor(mirror: string, why: string) {
    super('AEROSTAT_ARCHIVE', `cannot install from ${mirror}: ${why}`);
    this.mirror = mirror;
  }
}

/** The peer's packages came, and it cannot be used all the same. */
export class PeerInstallError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_PEER_INSTALL', message, options);
  }
}
