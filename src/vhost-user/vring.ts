/**
 * One ring as the front-end describes it, message by message, until it is complete enough to run. A ring
 * runs when it has addresses, a kick descriptor, and is enabled.
 */
import type { OwnedFd } from '../sys/fd.ts';
import type { Watch } from '../sys/poll.ts';
import type { DeviceQueue } from '../virtio/queue.ts';

export interface VringAddresses {
  /** The front-end's own addresses. */
  readonly descriptorTable: number;
  readonly availRing: number;
  readonly usedRing: number;
}

export class Vring {
  readonly index: number;
  size = 0;
  addresses: VringAddresses | undefined;
  /** What SET_VRING_BASE said: where the device takes up the ring. */
  base = 0;
  enabled = false;
  /** A kick descriptor was set (or "none") since the ring last stopped: the front-end wants it to run. */
  started = false;
  kick: OwnedFd | undefined;
  call: OwnedFd | undefined;
  error: OwnedFd | undefined;
  kickWatch: Watch | undefined;
  /** Present while the ring runs. */
  queue: DeviceQueue | undefined;

  constructor(index: number) {
    this.index = index;
  }

  get complete(): boolean {
    return this.started && this.enabled && this.size > 0 && this.addresses !== undefined;
  }

  setKick(fd: OwnedFd | undefined): void {
    this.kickWatch?.stop();
    this.kickWatch = undefined;
    this.kick?.close();
    this.kick = fd;
    fd?.setNonBlocking();
  }

  setCall(fd: OwnedFd | undefined): void {
    this.call?.close();
    this.call = fd;
    fd?.setNonBlocking();
  }

  setError(fd: OwnedFd | undefined): void {
    this.error?.close();
    this.error = fd;
    fd?.setNonBlocking();
  }

  close(): void {
    this.setKick(undefined);
    this.setCall(undefined);
    this.setError(undefined);
  }
}
