/**
 * A stock PC under QEMU whose balloon is ours: QEMU's generic vhost-user device is the front-end, Linux's own
 * driver is behind it. What a person does with such a machine from outside is here: reset it, stop it, plug its
 * balloon and memory in and out. QEMU's own balloon device is guest.ts's.
 */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bootedInTime } from '../../../src/peers/linux/boot.ts';
import { GuestBootError } from '../../../src/peers/linux/errors.ts';
import type { PeerCommand } from '../../../src/peers/private/roots.ts';
import { QmpError } from '../../../src/peers/qemu/errors.ts';
import type { QmpEvent } from '../../../src/peers/qemu/qmp-wire.ts';
import { bootArguments, type StartedQemu, startWithSerialPorts } from './boot.ts';
import type { CloudKernel } from './cloud-kernel.ts';
import { QemuLinuxGuest } from './linux-guest.ts';

/** What the generic device is told of the device behind the socket. */
export interface GenericDeviceOptions {
  /** Default: 5, all that a balloon ever has. */
  readonly numVqs?: number;
  /** Default: 128. */
  readonly vqSize?: number;
  /** Bytes of configuration. Default: 16. */
  readonly configSize?: number;
  /** Further properties, for example `packed=on`. */
  readonly properties?: readonly string[];
}

export interface VhostUserGuestOptions extends GenericDeviceOptions {
  /** QEMU 10.2 or newer: in older ones the generic device cannot be created. */
  readonly qemu: PeerCommand;
  readonly kernel: CloudKernel;
  /** A multiple of 1 MiB; 256 MiB and more. */
  readonly memoryBytes: number;
  /** vhost-user socket of a balloon device that listens. */
  readonly socket: string;
  /** What holds guest memory; it has to be shared. Default: `memory-backend-memfd,share=on`. */
  readonly memoryBackend?: string;
  /** Room for memory that is plugged in later, in bytes beyond `memoryBytes`. Default: none. */
  readonly pluggableBytes?: number;
  /** Whether the balloon's driver is loaded at boot; true unless given. */
  readonly balloonDriver?: boolean;
  readonly kernelArguments?: readonly string[];
  readonly bootTimeoutMs?: number;
}

const MIB = 2 ** 20;
const MEMORY_BYTES_MIN = 256 * MIB;
/** virtio_ids.h: a memory balloon. */
const VIRTIO_ID_BALLOON = 5;
const BOOT_TIMEOUT_MS = 180_000;
const EVENT_TIMEOUT_MS = 60_000;
const PLUG_POLL_MS = 50;
const MEMORY_SLOTS = 4;

const genericDevice = ({
  numVqs = 5,
  vqSize = 128,
  configSize = 16,
  properties = [],
}: GenericDeviceOptions) => ({
  numVqs,
  vqSize,
  configSize,
  properties,
});

function machineArguments(options: VhostUserGuestOptions): string[] {
  const { memoryBytes, pluggableBytes = 0, kernelArguments = [] } = options;
  const { numVqs, vqSize, configSize, properties } = genericDevice(options);
  const device = [
    'vhost-user-test-device-pci,id=balloon,chardev=balloon-socket,bus=balloon-port',
    `virtio-id=${VIRTIO_ID_BALLOON},num_vqs=${numVqs},vq_size=${vqSize},config_size=${configSize}`,
    ...properties,
  ];
  const room = ['-m', `slots=${MEMORY_SLOTS},maxmem=${memoryBytes + pluggableBytes}B`];
  return [
    // A kernel that panics shall end the machine; reset() allows what it needs.
    ...['-accel', 'tcg', '-cpu', 'max', '-no-reboot'],
    ...(pluggableBytes > 0 ? room : []),
    ...bootArguments(options.kernel, ['quiet', ...kernelArguments]),
    ...['-chardev', `socket,id=balloon-socket,path=${resolve(options.socket)}`],
    // Behind a port of its own, so that it can be unplugged while the machine runs.
    ...['-device', 'pcie-root-port,id=balloon-port,chassis=1,slot=1'],
    ...['-device', device.join(',')],
  ];
}

export class VhostUserGuest extends QemuLinuxGuest {
  override readonly memoryBytes: number;
  readonly #options: VhostUserGuestOptions;

  private constructor(options: VhostUserGuestOptions, started: StartedQemu) {
    super(options.kernel.version, started);
    this.memoryBytes = options.memoryBytes;
    this.#options = options;
  }

  /**
   * Boots a guest; settles when it takes commands and its balloon's driver is at work.
   * @throws MissingPeerError when busybox is not installed
   * @throws QemuProcessError when QEMU does not start
   * @throws GuestBootError when the guest does not come up
   */
  static async boot(options: VhostUserGuestOptions): Promise<VhostUserGuest> {
    const { memoryBytes, socket, qemu, memoryBackend = 'memory-backend-memfd,share=on' } = options;
    if (!(memoryBytes >= MEMORY_BYTES_MIN) || memoryBytes % MIB !== 0) {
      throw new GuestBootError(
        `guest memory must be 256 MiB or more, in whole MiB; not ${memoryBytes} bytes`,
      );
    }
    if (statSync(socket, { throwIfNoEntry: false })?.isSocket() !== true) {
      throw new GuestBootError(`there is no socket at ${socket}; start its device first`);
    }
    const started = await startWithSerialPorts({
      qemu,
      machine: 'q35',
      memoryBytes,
      memoryBackend,
      args: machineArguments(options),
    });
    const guest = new VhostUserGuest(options, started);
    try {
      await guest.#comeUp();
      return guest;
    } catch (error) {
      await guest.kill();
      throw error;
    }
  }

  get pid(): number {
    return this.qemu.pid;
  }

  /** Resets the machine as its button does; settles when the new kernel is where the old one was at first. */
  async reset(): Promise<void> {
    await this.#restart('the guest was reset', () => this.qmp.execute('system_reset'));
  }

  /** The kernel reboots the machine of its own accord; settles as {@link reset} does. */
  async reboot(): Promise<void> {
    await this.#restart('the guest reboots', async () => {
      this.run('reboot -f').catch(() => {}); // It does not live to say how that went.
    });
  }

  /** Unplugs the balloon; settles when the guest has let go of it and QEMU's device is gone. */
  async unplugBalloon(): Promise<void> {
    const gone = this.#event(
      ({ name, data }) => name === 'DEVICE_DELETED' && (data as { device?: string }).device === 'balloon',
    );
    // A guest asks for a moment in which its button may be pressed a second time; ask until it went.
    const timer = setInterval(() => void this.#askToUnplug(), EVENT_TIMEOUT_MS / 6);
    try {
      await this.#askToUnplug();
      await gone;
    } finally {
      clearInterval(timer);
    }
  }

  /**
   * Plugs a balloon in, on the same character device as before.
   * @throws QmpError when QEMU does not take it
   */
  async plugBalloon(options: GenericDeviceOptions = {}): Promise<void> {
    const { numVqs, vqSize, configSize } = genericDevice(options);
    await this.qmp.execute('device_add', {
      driver: 'vhost-user-test-device-pci',
      id: 'balloon',
      chardev: 'balloon-socket',
      bus: 'balloon-port',
      'virtio-id': VIRTIO_ID_BALLOON,
      num_vqs: numVqs,
      vq_size: vqSize,
      config_size: configSize,
    });
  }

  /** Waits until the guest's driver has taken, or let go of, its balloon. */
  async untilBalloons(count: number): Promise<void> {
    const deadline = performance.now() + EVENT_TIMEOUT_MS;
    while ((await this.balloonDevices()) !== count) {
      if (performance.now() > deadline) {
        throw new GuestBootError(`the guest's driver does not come to ${count} balloons`, this.consoleTail);
      }
      await delay(PLUG_POLL_MS);
    }
  }

  /** Plugs `bytes` of shared memory in, and puts it to use. */
  async plugMemory(name: string, bytes: number): Promise<void> {
    await this.qmp.execute('object-add', {
      'qom-type': 'memory-backend-memfd',
      id: `${name}-memory`,
      size: bytes,
      share: true,
    });
    await this.qmp.execute('device_add', { driver: 'pc-dimm', id: name, memdev: `${name}-memory` });
  }

  /** Makes the guest let go of memory that was plugged in, and takes it out. */
  async unplugMemory(name: string): Promise<void> {
    const gone = this.#event(
      ({ name: event, data }) => event === 'DEVICE_DELETED' && (data as { device?: string }).device === name,
    );
    await this.qmp.execute('device_del', { id: name });
    await gone;
    await this.qmp.execute('object-del', { id: `${name}-memory` });
  }

  async #askToUnplug(): Promise<void> {
    try {
      await this.qmp.execute('device_del', { id: 'balloon' });
    } catch (error) {
      if (!(error instanceof QmpError)) throw error; // It is being unplugged already, or is gone.
    }
  }

  async #restart(why: string, start: () => Promise<unknown>): Promise<void> {
    await this.qmp.execute('set-action', { reboot: 'reset' });
    const reset = this.#event(({ name }) => name === 'RESET');
    await start();
    await reset;
    this.bootAgain(why);
    await this.#comeUp();
    await this.qmp.execute('set-action', { reboot: 'shutdown' });
  }

  #event(is: (event: QmpEvent) => boolean): Promise<void> {
    return new Promise((done, failed) => {
      const late = setTimeout(() => {
        forget();
        failed(new GuestBootError('QEMU does not report what was asked of it', this.consoleTail));
      }, EVENT_TIMEOUT_MS);
      const forget = this.qmp.onEvent(event => {
        if (!is(event)) return;
        clearTimeout(late);
        forget();
        done();
      });
    });
  }

  async #comeUp(): Promise<void> {
    const { bootTimeoutMs = BOOT_TIMEOUT_MS, balloonDriver = true } = this.#options;
    await bootedInTime(this.channel, bootTimeoutMs, () => this.consoleTail);
    if (balloonDriver) await this.loadBalloonDriver(1);
  }
}
