/**
 * The device's own state on its way through the front-end (DEVICE_STATE), for a hypervisor that saves or moves its guest
 * with what back-ends know. What the bytes mean is the device's.
 *
 * The front-end offers a pipe. We answer with a file of ours in place of it, as the protocol allows: a pipe's other owner
 * could make a read or a write wait, and nothing can wait on a file in memory that we made.
 */
import type { OwnedFd } from '../sys/fd.ts';
import { createMemfd, fileStatus, readAt, writeAt } from '../sys/file.ts';
import { DEVICE_STATE_TRANSFER, VhostUserError } from './protocol.ts';

/** A device that can be saved and loaded while none of its rings runs. */
export interface SavableDevice {
  /** @throws AerostatError when it cannot be saved as it is */
  save(): Uint8Array;
  /** @throws AerostatError when the bytes are no state that can go on here; nothing has changed then */
  load(bytes: Uint8Array): void;
}

const SAVE = 0;
const LOAD = 1;
const STOPPED = 0;
/**
 * What a state may have: eight bytes for each run of ballooned pages, so two million runs. It is read at once, on a thread
 * that other guests share.
 */
const STATE_BYTES_MAX = 2 ** 24;

export class DeviceStateTransfer {
  readonly #device: SavableDevice;
  /** What the front-end writes, until it asks whether that was right. */
  #incoming: OwnedFd | undefined;
  #begun = false;

  constructor(device: SavableDevice) {
    this.#device = device;
  }

  /**
   * SET_DEVICE_STATE_FD: returns the file that the front-end reads or writes, which is the caller's to close.
   * @throws AerostatError; the transfer before stays as it is
   */
  begin(body: DataView): OwnedFd {
    const { direction, phase } = DEVICE_STATE_TRANSFER.read(body);
    if (phase !== STOPPED || (direction !== SAVE && direction !== LOAD)) {
      throw new VhostUserError(`a device state in direction ${direction} and phase ${phase}`);
    }
    const bytes = direction === SAVE ? this.#device.save() : new Uint8Array();
    if (bytes.length > STATE_BYTES_MAX) {
      throw new VhostUserError(
        `the device has a state of ${bytes.length} bytes; ${STATE_BYTES_MAX} can be moved`,
      );
    }
    const file = createMemfd({ name: 'aerostat-device-state', size: bytes.length });
    this.close();
    this.#begun = true;
    if (direction === LOAD) this.#incoming = file.duplicate();
    else writeAt(file, 0, bytes, 0, bytes.length);
    return file;
  }

  /**
   * CHECK_DEVICE_STATE: the front-end has read or written everything.
   * @throws AerostatError when what it wrote cannot be loaded
   */
  check(): void {
    if (!this.#begun) throw new VhostUserError('no device state was moved that could be checked');
    const incoming = this.#incoming;
    this.#incoming = undefined;
    this.#begun = false;
    if (incoming === undefined) return;
    try {
      const { size } = fileStatus(incoming);
      if (size > STATE_BYTES_MAX)
        throw new VhostUserError(`a device state of ${size} bytes; ${STATE_BYTES_MAX} are read`);
      const bytes = new Uint8Array(size);
      readAt(incoming, 0, bytes, 0, size);
      this.#device.load(bytes);
    } finally {
      incoming.close();
    }
  }

  /** Nothing is under way any more. */
  close(): void {
    this.#incoming?.close();
    this.#incoming = undefined;
    this.#begun = false;
  }
}
