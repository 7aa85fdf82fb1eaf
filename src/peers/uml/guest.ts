/**
 * A Linux kernel as a guest: User Mode Linux, booted on vhost-user devices, with a shell to run commands in.
 * It is one process group of this machine; whatever happens, the group and its files go away with it. What
 * workloads do (workloads.ts) and what devices do is not known here.
 */
import { once } from 'node:events';
import { lstatSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Duplex, Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { bootedInTime } from '../linux/boot.ts';
import { CommandChannel } from '../linux/channel.ts';
import { GuestBootError, GuestEndedError, hostAdvice, panicLine } from '../linux/errors.ts';
import { LinuxGuest } from '../linux/guest.ts';
import { SHELL_TERMINAL } from '../linux/init.ts';
import { initramfs } from '../linux/initramfs.ts';
import { type ProcessExit, ProcessGroup } from '../process-group.ts';
import { findUmlKernel, type UmlKernel, withFixedLayout } from './kernel.ts';
import { memoryDirectory } from './memory-directory.ts';
import { connectTerminal, type TerminalSize, terminalSize } from './terminal.ts';

export interface UmlGuestOptions {
  /** A multiple of 4 KiB; 128 MiB and more. */
  readonly memoryBytes: number;
  /** vhost-user sockets of balloon devices, each with a device that listens. */
  readonly sockets?: readonly string[];
  /** Whether the balloon's driver is loaded at boot; true unless given. */
  readonly balloonDriver?: boolean;
  /** `name=value` for the balloon driver's module. */
  readonly moduleParameters?: readonly string[];
  /** For example `page_reporting.page_reporting_order=0`. */
  readonly kernelArguments?: readonly string[];
  /** Directory of the memory's file, a tmpfs; see memoryDirectory() for what is chosen else. */
  readonly tmpdir?: string;
  readonly bootTimeoutMs?: number;
  /** Default: the newest that can run here. */
  readonly kernel?: UmlKernel;
  /** Kills the guest, while it boots and afterwards. */
  readonly signal?: AbortSignal;
}

export interface GuestExit extends ProcessExit {
  /** The kernel's own words when it panicked. */
  readonly panic: string | undefined;
}

/** virtio_ids.h: a memory balloon. */
const VIRTIO_ID_BALLOON = 5;
/** With 80 MiB the first process cannot fork; the rest is for commands. */
const MEMORY_BYTES_MIN = 128 * 2 ** 20;
const CONSOLE_CHARACTERS_MAX = 256 * 1024;
const BOOT_TIMEOUT_MS = 60_000;
const POWER_OFF_TIMEOUT_MS = 5_000;
/** A kernel that panicked ends by itself within this time, else it is ended. */
const PANIC_GRACE_MS = 2_000;

/** The kernel's parser cuts its command line at blanks, and a device's description at colons. */
function checkSocket(path: string): string {
  const socket = resolve(path);
  if (/[\s:"]/.test(socket)) {
    throw new GuestBootError(`a device's socket path must hold no blank, colon or quote: ${socket}`);
  }
  if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() !== true) {
    throw new GuestBootError(
      `there is no socket at ${socket}; start its device first: aerostat device --socket-path ${socket}`,
    );
  }
  return socket;
}

function kernelCommandLine(options: UmlGuestOptions, initrd: string, umlDirectory: string): string[] {
  const devices = (options.sockets ?? []).map(checkSocket);
  return [
    `mem=${options.memoryBytes / 1024}K`,
    `initrd=${initrd}`,
    'root=/dev/ram0',
    'rdinit=/init',
    // The kernel's messages, the command channel, the shell: three consoles, so that none disturbs another.
    'con=null',
    'con0=null,fd:1',
    'con1=fd:3',
    'con2=fd:4',
    `uml_dir=${umlDirectory}`,
    'umid=guest',
    'noreboot',
    'oops=panic',
    ...devices.map(socket => `virtio_uml.device=${socket}:${VIRTIO_ID_BALLOON}`),
    ...(options.kernelArguments ?? []),
  ];
}

export class UmlGuest extends LinuxGuest {
  override readonly memoryBytes: number;
  protected override readonly channel: CommandChannel;
  /** Which one it runs. */
  readonly kernel: UmlKernel;
  /** Settles when the kernel and all its processes are gone; never rejects. */
  override readonly exited: Promise<GuestExit>;
  readonly #group: ProcessGroup;
  readonly #terminal: Duplex;
  #console = '';
  #panicTimer: NodeJS.Timeout | undefined;
  #shuttingDown = false;

  private constructor(group: ProcessGroup, kernel: UmlKernel, { memoryBytes, signal }: UmlGuestOptions) {
    super();
    this.kernel = kernel;
    this.memoryBytes = memoryBytes;
    this.#group = group;
    const { stdout, stderr, stdio } = group.leader;
    this.channel = new CommandChannel(stdio[3] as Duplex);
    this.#terminal = stdio[4] as Duplex;
    this.#terminal.on('error', () => {});
    const closed = once(group.leader, 'close');
    for (const stream of [stdout!, stderr!]) {
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => this.#hear(text));
    }
    const kill = () => this.kill();
    signal?.addEventListener('abort', kill);
    this.exited = group.exited.then(async exit => {
      // Its last words may still be in the pipe.
      await Promise.race([closed, delay(1000, undefined, { ref: false })]);
      signal?.removeEventListener('abort', kill);
      clearTimeout(this.#panicTimer);
      const panic = panicLine(this.#console);
      this.channel.fail(new GuestEndedError(this.#epitaph(exit, panic), this.consoleTail));
      this.#terminal.destroy();
      return { ...exit, panic };
    });
  }

  /**
   * Boots a guest; settles when it takes commands and its driver has found every device.
   * @throws MissingPeerError when a program is not installed, UnusablePeerError when none that is can run here
   * @throws GuestBootError for everything else, saying what to do where that is known
   */
  static async boot(options: UmlGuestOptions): Promise<UmlGuest> {
    const { memoryBytes, signal } = options;
    if (!(memoryBytes >= MEMORY_BYTES_MIN) || memoryBytes % 4096 !== 0) {
      throw new GuestBootError(
        `guest memory must be 128 MiB or more, in whole pages; not ${memoryBytes} bytes`,
      );
    }
    signal?.throwIfAborted();
    const kernel = options.kernel ?? findUmlKernel();
    const memory = memoryDirectory(memoryBytes, options.tmpdir);
    // Packed before there is a directory that a killed process would leave.
    const initrd = initramfs(kernel);
    const umlDirectory = mkdtempSync(join(tmpdir(), 'aerostat-uml-'));
    let guest: UmlGuest | undefined;
    try {
      const commandLine = kernelCommandLine(options, initrd, umlDirectory);
      const group = await ProcessGroup.start(...withFixedLayout(kernel.program, commandLine), {
        stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, HOME: umlDirectory, TMPDIR: memory },
        directory: umlDirectory,
      });
      guest = new UmlGuest(group, kernel, options);
      await guest.#comeUp(options);
      return guest;
    } catch (error) {
      guest?.kill();
      await guest?.exited;
      signal?.throwIfAborted();
      throw error;
    } finally {
      // A booted kernel needs its pid file and management socket no more, so nothing is left behind later.
      rmSync(umlDirectory, { recursive: true, force: true });
    }
  }

  /** Process id of the kernel, which is also the id of the group that all of the guest's processes are in. */
  get pid(): number {
    return this.#group.pid;
  }

  override get consoleTail(): string {
    return this.#console;
  }

  /**
   * A shell for a person, with job control, on a console of its own; settles with its exit code. Nothing is
   * powered off by that. One at a time.
   */
  async attachConsole(stdin: Readable, stdout: Writable): Promise<number> {
    const setSize = ({ rows, columns }: TerminalSize) =>
      `stty -F ${SHELL_TERMINAL} rows ${rows} cols ${columns}`;
    const size = terminalSize(stdout) ?? { rows: 24, columns: 80 };
    await this.check(`stty -F ${SHELL_TERMINAL} sane && ${setSize(size)}`);
    const disconnect = connectTerminal(this.#terminal, stdin, stdout, resized => {
      this.run(setSize(resized)).catch(() => {}); // The guest ended; the shell's own result tells.
    });
    try {
      const shell = `PS1='guest:\\w# ' exec sh -i <${SHELL_TERMINAL} >${SHELL_TERMINAL} 2>&1`;
      return (await this.run(shell, { timeoutMs: Number.POSITIVE_INFINITY })).exitCode;
    } finally {
      disconnect();
    }
  }

  /** Powers the guest off from inside, kills it if that takes too long, and waits until it is gone. Idempotent. */
  override async shutdown(): Promise<void> {
    if (!this.#shuttingDown && !this.#group.ended) {
      this.#shuttingDown = true;
      this.channel.powerOff();
    }
    const timer = setTimeout(() => this.kill(), POWER_OFF_TIMEOUT_MS);
    await this.exited;
    clearTimeout(timer);
  }

  /** SIGKILL to the kernel and everything in it, at once. `exited` tells when they are gone. */
  override kill(): void {
    this.#group.kill();
  }

  async #comeUp(options: UmlGuestOptions): Promise<void> {
    await bootedInTime(this.channel, options.bootTimeoutMs ?? BOOT_TIMEOUT_MS, () => this.consoleTail);
    if (options.balloonDriver !== false) {
      await this.loadBalloonDriver(options.sockets?.length ?? 0, options.moduleParameters);
    }
  }

  #hear(text: string): void {
    this.#console = (this.#console + text).slice(-CONSOLE_CHARACTERS_MAX);
    if (this.#panicTimer === undefined && panicLine(this.#console) !== undefined) {
      this.#panicTimer = setTimeout(() => this.kill(), PANIC_GRACE_MS);
    }
  }

  #epitaph({ code, signal }: ProcessExit, panic: string | undefined): string {
    const advice = hostAdvice(this.#console);
    if (advice !== undefined) return advice;
    if (panic !== undefined) return `the guest panicked: ${panic}`;
    if (this.#shuttingDown) return 'the guest was shut down';
    return signal === null ? `the guest ended with exit code ${code}` : `the guest was killed by ${signal}`;
  }
}
