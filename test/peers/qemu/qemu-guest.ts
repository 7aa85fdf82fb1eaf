/**
 * A real Linux as the guest of a QEMU, with QEMU's balloon device and a shell to run commands in. It can
 * move to another QEMU while it runs, so what it is and which process it lives in are two things.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { bootedInTime } from '../../../src/peers/linux/boot.ts';
import { GuestBootError } from '../../../src/peers/linux/errors.ts';
import type { PeerCommand } from '../../../src/peers/private/roots.ts';
import {
  awaitGuest,
  migrateAway,
  type QemuMigrationOptions,
  type QemuMigrationSummary,
} from '../../../src/peers/qemu/migration.ts';
import type { QemuProcess } from '../../../src/peers/qemu/process.ts';
import { queryStatus } from '../../../src/peers/qemu/qmp-commands.ts';
import { defined } from '../../../src/sys/defined.ts';
import { bootArguments, type QemuOptions, type StartedQemu, startWithSerialPorts } from './boot.ts';
import { type CloudKernel, findCloudKernel } from './cloud-kernel.ts';
import { QemuLinuxGuest } from './linux-guest.ts';

export interface QemuLinuxOptions {
  /**
   * A multiple of 1 MiB; 256 MiB and more. With TCG the guest gets 8 KiB more; {@link
   * QemuGuest.memoryBytes} tells.
   */
  readonly memoryBytes: number;
  /** The balloon hints free pages while QEMU migrates. Default: no. */
  readonly freePageHints?: boolean;
  /** The guest reports free pages, which the host then takes. Default: no. */
  readonly freePageReporting?: boolean;
  /** The guest takes memory back from its balloon when it has none left. Default: no. */
  readonly deflateOnOom?: boolean;
  /** Keeps guest memory in a file that we can look at ({@link QemuProcess.memoryFd}). Default: no. */
  readonly sharedMemory?: boolean;
  /** `kvm` where the host has it. Default: `tcg`, which every host has. */
  readonly accelerator?: 'tcg' | 'kvm';
  readonly kernelArguments?: readonly string[];
  readonly bootTimeoutMs?: number;
  /** Which QEMU; default: the system's own (programs.ts has others). */
  readonly qemu?: PeerCommand;
  /** Which kernel; default: the system's own, or what apt brings (cloud-kernel.ts has others). */
  readonly kernel?: CloudKernel;
}

interface QemuGuestMigrationOptions extends Omit<QemuMigrationOptions, 'uri'> {}

const MIB = 2 ** 20;
const MEMORY_BYTES_MIN = 256 * MIB;
/**
 * QEMU before 9.0 can lose track of what a TCG guest writes while it migrates, and the guest arrives with
 * pages of the past: when it collects the dirty bits of 64 pages at once it forgets to tell the translator,
 * which goes on writing past the bitmap (mended by QEMU commit 03bfc2188f). Memory that is no multiple of
 * 64 pages is collected page by page, which is right. 8 KiB is the granularity that QEMU gives memory in.
 */
const TCG_ODD_BYTES = 8192;
const BOOT_TIMEOUT_MS = 120_000;
/** A guest that has arrived runs at once; a loaded host may take its time to say so. */
const ARRIVAL_TIMEOUT_MS = 20_000;
const ARRIVAL_POLL_MS = 10;

function balloonDevice(options: QemuLinuxOptions): string[] {
  const device = ['virtio-balloon-pci', 'id=balloon'];
  if (options.freePageHints) device.push('free-page-hint=on', 'iothread=hints');
  if (options.freePageReporting) device.push('free-page-reporting=on');
  if (options.deflateOnOom) device.push('deflate-on-oom=on');
  const thread = options.freePageHints ? ['-object', 'iothread,id=hints'] : [];
  return [...thread, '-device', device.join(',')];
}

function machineArguments(options: QemuLinuxOptions, kernel: CloudKernel): string[] {
  const { accelerator = 'tcg', kernelArguments = [] } = options;
  return [
    ...['-accel', accelerator, '-no-reboot'],
    ...bootArguments(kernel, kernelArguments),
    ...balloonDevice(options),
  ];
}

const machineOf = (
  { memoryBytes, sharedMemory = false, qemu }: QemuLinuxOptions,
  args: readonly string[],
): QemuOptions => ({
  ...{ machine: 'q35', memoryBytes, sharedMemory, args },
  ...defined({ qemu }),
});

export class QemuGuest extends QemuLinuxGuest {
  override readonly memoryBytes: number;
  readonly #options: QemuLinuxOptions;
  readonly #arguments: readonly string[];

  private constructor(
    options: QemuLinuxOptions,
    kernel: CloudKernel,
    args: readonly string[],
    started: StartedQemu,
  ) {
    super(kernel.version, started);
    this.memoryBytes = options.memoryBytes;
    this.#options = options;
    this.#arguments = args;
  }

  /**
   * Boots a guest; settles when it takes commands and its balloon's driver is at work.
   * @throws MissingPeerError when QEMU, busybox or the kernel is not here and apt cannot bring it
   * @throws GuestBootError when it does not come up
   */
  static async boot(options: QemuLinuxOptions): Promise<QemuGuest> {
    const { memoryBytes, accelerator = 'tcg' } = options;
    if (!(memoryBytes >= MEMORY_BYTES_MIN) || memoryBytes % MIB !== 0) {
      throw new GuestBootError(
        `guest memory must be 256 MiB or more, in whole MiB; not ${memoryBytes} bytes`,
      );
    }
    const kernel = options.kernel ?? (await findCloudKernel());
    const odd = accelerator === 'tcg' ? { ...options, memoryBytes: memoryBytes + TCG_ODD_BYTES } : options;
    const args = machineArguments(odd, kernel);
    const guest = new QemuGuest(odd, kernel, args, await startWithSerialPorts(machineOf(odd, args)));
    try {
      await guest.#comeUp();
      return guest;
    } catch (error) {
      await guest.kill();
      throw error;
    }
  }

  /**
   * Moves the guest to a new QEMU on this host, over TCP; commands in it go on. Where that fails the guest
   * stays.
   * @throws QemuMigrationError, QmpError, QmpConnectionError
   */
  async migrate(options: QemuGuestMigrationOptions = {}): Promise<QemuMigrationSummary> {
    const destination = await startWithSerialPorts(
      machineOf(this.#options, [...this.#arguments, '-incoming', 'defer']),
    );
    const { qemu } = destination;
    try {
      const uri = await awaitGuest(qemu.qmp, options.connections ?? 1);
      const summary = await migrateAway(this.qmp, { ...options, uri });
      await arrived(qemu);
      const source = this.qemu;
      this.channel.moveTo(destination.commands);
      this.liveIn(destination);
      await source.quit();
      return summary;
    } catch (error) {
      if (this.qemu !== qemu) await qemu.kill();
      throw error;
    }
  }

  async #comeUp(): Promise<void> {
    const { bootTimeoutMs = BOOT_TIMEOUT_MS } = this.#options;
    await bootedInTime(this.channel, bootTimeoutMs, () => this.consoleTail);
    await this.loadBalloonDriver(1);
  }
}

async function arrived(qemu: QemuProcess): Promise<void> {
  const deadline = performance.now() + ARRIVAL_TIMEOUT_MS;
  while (!(await queryStatus(qemu.qmp)).running) {
    if (performance.now() > deadline) throw qemu.endedError('the guest was migrated and does not run');
    await delay(ARRIVAL_POLL_MS);
  }
}
