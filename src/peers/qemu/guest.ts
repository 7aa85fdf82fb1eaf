/**
 * A real Linux as the guest of a QEMU, with QEMU's balloon device and a shell to run commands in. It can
 * move to another QEMU while it runs, so what it is and which process it lives in are two things.
 */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CommandChannel } from '../linux/channel.ts';
import { GuestBootError, GuestEndedError, panicLine } from '../linux/errors.ts';
import { LinuxGuest } from '../linux/guest.ts';
import { BALLOON_MODULE, initScript } from '../linux/init.ts';
import { packInitramfs } from '../linux/initramfs.ts';
import type { PeerCommand } from '../private/roots.ts';
import { type CloudKernel, findCloudKernel, moduleName, readModule } from './cloud-kernel.ts';
import { listenOnce, type PendingConnection } from './listen-once.ts';
import {
  awaitGuest,
  migrateAway,
  type QemuMigrationOptions,
  type QemuMigrationSummary,
} from './migration.ts';
import { QemuProcess } from './process.ts';
import type { QmpConnection } from './qmp.ts';
import { queryStatus } from './qmp-commands.ts';

export interface QemuGuestOptions {
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

export interface QemuGuestMigrationOptions extends Omit<QemuMigrationOptions, 'uri'> {}

/** The balloon device's path in QEMU's object model. */
export const BALLOON_PATH = '/machine/peripheral/balloon';

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
const POWER_OFF_TIMEOUT_MS = 10_000;
/** A guest that has arrived runs at once; a loaded host may take its time to say so. */
const ARRIVAL_TIMEOUT_MS = 20_000;
const ARRIVAL_POLL_MS = 10;
const CONSOLE_CHARACTERS_MAX = 256 * 1024;

/** The second serial port, which the kernel leaves alone. */
const COMMAND_TERMINAL = '/dev/ttyS1';
const modulePath = (file: string): string => `/lib/modules/${moduleName(file)}.ko`;

/**
 * The virtio bus comes up before the first command; the balloon's driver is loaded by one, so that its
 * failure shows.
 */
function guestFiles(kernel: CloudKernel): string {
  const transport = kernel.transportModules.map(file => [modulePath(file), readModule(file)] as const);
  return packInitramfs('qemu', {
    init: initScript(COMMAND_TERMINAL, transport.map(([path]) => `insmod ${path}`).join('\n')),
    modules: new Map([...transport, [BALLOON_MODULE, readModule(kernel.balloonModule)]]),
  });
}

function balloonDevice(options: QemuGuestOptions): string[] {
  const device = ['virtio-balloon-pci', 'id=balloon'];
  if (options.freePageHints) device.push('free-page-hint=on', 'iothread=hints');
  if (options.freePageReporting) device.push('free-page-reporting=on');
  if (options.deflateOnOom) device.push('deflate-on-oom=on');
  const thread = options.freePageHints ? ['-object', 'iothread,id=hints'] : [];
  return [...thread, '-device', device.join(',')];
}

function machineArguments(options: QemuGuestOptions, kernel: CloudKernel): string[] {
  const { accelerator = 'tcg', kernelArguments = [] } = options;
  // Any fault of the kernel ends QEMU, which tells us.
  const commandLine = ['console=ttyS0', 'rdinit=/init', 'panic=-1', 'oops=panic', ...kernelArguments];
  return [
    ...['-accel', accelerator, '-no-reboot'],
    ...['-kernel', kernel.image, '-initrd', guestFiles(kernel), '-append', commandLine.join(' ')],
    ...balloonDevice(options),
  ];
}

interface Consoles {
  readonly kernel: Socket;
  readonly commands: Socket;
}

interface StartedQemu extends Consoles {
  readonly qemu: QemuProcess;
}

/** A QEMU with the guest's two serial ports connected to us. */
async function startQemu(options: QemuGuestOptions, args: readonly string[]): Promise<StartedQemu> {
  const pending: PendingConnection[] = [];
  let qemu: QemuProcess | undefined;
  try {
    const { memoryBytes, sharedMemory = false } = options;
    const which = options.qemu === undefined ? {} : { qemu: options.qemu };
    const machine = { machine: 'q35', memoryBytes, sharedMemory, args, ...which };
    qemu = await QemuProcess.start(machine, async directory => {
      const serial: string[] = [];
      for (const name of ['kernel', 'commands']) {
        const path = join(directory, name);
        pending.push(await listenOnce(path));
        serial.push('-chardev', `socket,id=${name},path=${path}`, '-serial', `chardev:${name}`);
      }
      return serial;
    });
    const kernel = await qemu.connection(pending[0], 'first serial port');
    const commands = await qemu.connection(pending[1], 'second serial port');
    return { qemu, kernel, commands };
  } catch (error) {
    for (const { close } of pending) close();
    await qemu?.kill();
    throw error;
  }
}

export class QemuGuest extends LinuxGuest {
  override readonly memoryBytes: number;
  protected override readonly channel: CommandChannel;
  /** Of the kernel in the guest. */
  readonly kernelVersion: string;
  readonly #options: QemuGuestOptions;
  readonly #arguments: readonly string[];
  #qemu: QemuProcess;
  #console = '';
  #shuttingDown = false;

  private constructor(
    options: QemuGuestOptions,
    kernel: CloudKernel,
    args: readonly string[],
    { qemu, commands, kernel: console }: StartedQemu,
  ) {
    super();
    this.memoryBytes = options.memoryBytes;
    this.kernelVersion = kernel.version;
    this.#options = options;
    this.#arguments = args;
    this.#qemu = qemu;
    this.channel = new CommandChannel(commands);
    this.#live({ qemu, kernel: console, commands });
  }

  /**
   * Boots a guest; settles when it takes commands and its balloon's driver is at work.
   * @throws MissingPeerError when QEMU, busybox or the kernel is not here and apt cannot bring it
   * @throws GuestBootError when it does not come up
   */
  static async boot(options: QemuGuestOptions): Promise<QemuGuest> {
    const { memoryBytes, accelerator = 'tcg' } = options;
    if (!(memoryBytes >= MEMORY_BYTES_MIN) || memoryBytes % MIB !== 0) {
      throw new GuestBootError(
        `guest memory must be 256 MiB or more, in whole MiB; not ${memoryBytes} bytes`,
      );
    }
    const kernel = options.kernel ?? (await findCloudKernel());
    const odd = accelerator === 'tcg' ? { ...options, memoryBytes: memoryBytes + TCG_ODD_BYTES } : options;
    const args = machineArguments(odd, kernel);
    const guest = new QemuGuest(odd, kernel, args, await startQemu(odd, args));
    try {
      await guest.#comeUp();
      return guest;
    } catch (error) {
      await guest.kill();
      throw error;
    }
  }

  override get consoleTail(): string {
    return this.#console;
  }

  /** The process that the guest lives in right now. */
  get qemu(): QemuProcess {
    return this.#qemu;
  }

  /** The monitor of the process that the guest lives in right now. */
  get qmp(): QmpConnection {
    return this.#qemu.qmp;
  }

  /**
   * Moves the guest to a new QEMU on this host, over TCP; commands in it go on. Where that fails the guest
   * stays.
   * @throws QemuMigrationError, QmpError, QmpConnectionError
   */
  async migrate(options: QemuGuestMigrationOptions = {}): Promise<QemuMigrationSummary> {
    const destination = await startQemu(this.#options, [...this.#arguments, '-incoming', 'defer']);
    const { qemu } = destination;
    try {
      const uri = await awaitGuest(qemu.qmp, options.connections ?? 1);
      const summary = await migrateAway(this.qmp, { ...options, uri });
      await arrived(qemu);
      const source = this.#qemu;
      this.#qemu = qemu;
      this.channel.moveTo(destination.commands);
      this.#live(destination);
      await source.quit();
      return summary;
    } catch (error) {
      if (this.#qemu !== qemu) await qemu.kill();
      throw error;
    }
  }

  /**
   * Powers the guest off from inside, kills it if that takes too long, and waits until it is gone.
   * Idempotent.
   */
  async shutdown(): Promise<void> {
    if (!this.#shuttingDown && !this.#qemu.ended) {
      this.#shuttingDown = true;
      this.channel.powerOff();
    }
    const timer = setTimeout(() => void this.kill(), POWER_OFF_TIMEOUT_MS);
    await this.#qemu.exited;
    clearTimeout(timer);
  }

  /** Ends the guest at once, and settles when it is gone. Idempotent. */
  kill(): Promise<void> {
    return this.#qemu.kill();
  }

  /** Listens to the process that the guest lives in from now on. */
  #live({ qemu, kernel }: StartedQemu): void {
    kernel.setEncoding('utf8');
    kernel.on('data', text => {
      this.#console = (this.#console + text).slice(-CONSOLE_CHARACTERS_MAX);
    });
    kernel.on('error', () => {});
    void qemu.exited.then(({ code, signal }) => {
      if (qemu !== this.#qemu) return; // The guest has left it.
      const panic = panicLine(this.#console);
      const how = signal === null ? `QEMU ended with exit code ${code}` : `QEMU was killed by ${signal}`;
      const why = panic === undefined ? how : `the guest panicked: ${panic}`;
      const what = this.#shuttingDown ? 'the guest was shut down' : why;
      this.channel.fail(new GuestEndedError(what, `${this.#console}\n${qemu.stderrTail}`));
    });
  }

  async #comeUp(): Promise<void> {
    const { bootTimeoutMs = BOOT_TIMEOUT_MS } = this.#options;
    const timeout = new AbortController();
    const late = delay(bootTimeoutMs, true, { signal: timeout.signal }).catch(() => false);
    try {
      if (await Promise.race([this.channel.ready.then(() => false), late])) {
        throw new GuestBootError(`the guest did not boot in ${bootTimeoutMs} ms`, this.consoleTail);
      }
      await this.check(`insmod ${BALLOON_MODULE} && ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio*`);
    } catch (cause) {
      if (cause instanceof GuestBootError) throw cause;
      const why = (cause as Error).message.split('\n')[0];
      throw new GuestBootError(`the guest did not boot: ${why}`, this.consoleTail, { cause });
    } finally {
      timeout.abort();
    }
  }
}

async function arrived(qemu: QemuProcess): Promise<void> {
  const deadline = performance.now() + ARRIVAL_TIMEOUT_MS;
  while (!(await queryStatus(qemu.qmp)).running) {
    if (performance.now() > deadline) throw qemu.endedError('the guest was migrated and does not run');
    await delay(ARRIVAL_POLL_MS);
  }
}
