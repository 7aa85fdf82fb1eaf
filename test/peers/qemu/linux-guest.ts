/**
 * A Linux in a QEMU of ours: its console, its command channel, and its end. What devices it has, and how it
 * came to be where it is, its classes know.
 */
import type { Socket } from 'node:net';
import { CommandChannel } from '../../../src/peers/linux/channel.ts';
import { GuestEndedError, panicLine } from '../../../src/peers/linux/errors.ts';
import { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import type { QemuProcess } from '../../../src/peers/qemu/process.ts';
import type { QmpConnection } from '../../../src/peers/qemu/qmp.ts';
import type { StartedQemu } from './boot.ts';

const POWER_OFF_TIMEOUT_MS = 10_000;
const CONSOLE_CHARACTERS_MAX = 256 * 1024;

export abstract class QemuLinuxGuest extends LinuxGuest {
  /** Of the kernel in the guest. */
  readonly kernelVersion: string;
  #channel: CommandChannel;
  #qemu!: QemuProcess;
  #console = '';
  #shuttingDown = false;

  protected constructor(kernelVersion: string, started: StartedQemu) {
    super();
    this.kernelVersion = kernelVersion;
    this.#channel = new CommandChannel(started.commands);
    this.liveIn(started);
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

  override get exited(): Promise<unknown> {
    return this.#qemu.exited;
  }

  protected override get channel(): CommandChannel {
    return this.#channel;
  }

  override async shutdown(): Promise<void> {
    if (!this.#shuttingDown && !this.#qemu.ended) {
      this.#shuttingDown = true;
      this.channel.powerOff();
    }
    const timer = setTimeout(() => void this.kill(), POWER_OFF_TIMEOUT_MS);
    await this.#qemu.exited;
    clearTimeout(timer);
  }

  override kill(): Promise<void> {
    return this.#qemu.kill();
  }

  /** The kernel boots again in the process that it lives in: what waits for the old one's answers is refused. */
  protected bootAgain(why: string): void {
    this.#channel = new CommandChannel(this.#channel.leave(new GuestEndedError(why, this.#console)));
  }

  /** Listens to the process that the guest lives in from now on. */
  protected liveIn({ qemu, kernel }: { readonly qemu: QemuProcess; readonly kernel: Socket }): void {
    this.#qemu = qemu;
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
      this.#channel.fail(new GuestEndedError(what, `${this.#console}\n${qemu.stderrTail}`));
    });
  }
}
