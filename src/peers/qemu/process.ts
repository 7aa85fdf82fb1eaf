/**
 * A QEMU as a child process: its sockets in a directory that only we can enter, its guest memory in a file
 * without a name, its monitor connected, the end of its standard error kept. However it ends, or we do,
 * nothing of it stays behind. What machine it is, the arguments say.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { OwnedFd } from '../../sys/fd.ts';
import { createMemfd } from '../../sys/file.ts';
import type { PeerCommand } from '../private/roots.ts';
import { type ProcessExit, ProcessGroup } from '../process-group.ts';
import { QemuProcessError, QmpConnectionError } from './errors.ts';
import type { PendingConnection } from './listen-once.ts';
import { defaultQemu } from './programs.ts';
import { connectQmp, type QmpConnection } from './qmp.ts';
import { quit } from './qmp-commands.ts';

const START_TIMEOUT_MS = 20_000;
const START_POLL_MS = 10;
/** QEMU tears down gigabytes of guest memory when it quits. */
const QUIT_TIMEOUT_MS = 10_000;
const STDERR_TAIL_BYTES = 8 * 1024;
/** For what is removed when we exit, while a QEMU may still be starting there. */
const REMOVE_MS_MAX = 1000;
/** Where the guest's memory is among the descriptors that QEMU starts with. */
const MEMORY_FD = 3;

interface QemuOptions {
  /** Arguments after those that this module gives: memory, monitor, no display, no default devices. */
  readonly args: readonly string[];
  /** Bytes of guest memory. */
  readonly memoryBytes: number;
  /** For example `q35`, with options of its own. */
  readonly machine: string;
  /**
   * Puts guest memory into a file that we share with QEMU, {@link QemuProcess.memoryFd}. Default: QEMU's
   * own memory, which is what most guests in the world have.
   */
  readonly sharedMemory?: boolean;
  /** Which QEMU; see programs.ts, also for the default. */
  readonly qemu?: PeerCommand;
  /**
   * The object that holds guest memory, without its id and size, for example `memory-backend-memfd,share=on`.
   * Default: see {@link sharedMemory}.
   */
  readonly memoryBackend?: string;
  /** QEMU writes to all of shared memory before the guest runs, as a guest that used all of it would have. */
  readonly preallocated?: boolean;
}

export class QemuProcess {
  /** Path of a second monitor's socket, for others; it takes one client at a time. */
  readonly qmpPath: string;
  /** For sockets and small files; goes away with the process. */
  readonly directory: string;
  /** The guest's memory, where it was asked to be shared. Ours; closed with the process. */
  readonly memoryFd: OwnedFd | undefined;
  readonly #ownQmpPath: string;
  readonly #group: ProcessGroup;
  readonly #stderr: { tail: string };
  readonly #exited: Promise<ProcessExit>;
  #qmp: QmpConnection | undefined;

  private constructor(group: ProcessGroup, place: Place, stderr: { tail: string }) {
    this.#group = group;
    this.#stderr = stderr;
    this.directory = place.directory;
    this.qmpPath = place.qmpPath;
    this.#ownQmpPath = place.ownQmpPath;
    this.memoryFd = place.memoryFd;
    this.#exited = group.exited.then(exit => {
      this.#qmp?.close();
      release(place);
      return exit;
    });
  }

  /**
   * Starts QEMU and connects to its monitor. `prepare` is called with the private directory before QEMU
   * starts; what it returns is added to the arguments.
   * @throws MissingPeerError when QEMU is not installed, QemuProcessError when it does not come up
   */
  static async start(
    options: QemuOptions,
    prepare: (directory: string) => readonly string[] | Promise<readonly string[]> = () => [],
  ): Promise<QemuProcess> {
    const command = options.qemu ?? defaultQemu();
    const place = makePlace(options);
    let qemu: QemuProcess;
    try {
      const prepared = await prepare(place.directory);
      const { program } = command;
      const args = [...command.args, ...ownArguments(options, place), ...options.args, ...prepared];
      const stderr = { tail: '' };
      const group = await ProcessGroup.start(program, args, {
        stdio: ['ignore', 'ignore', 'pipe', place.memoryFd?.number ?? 'ignore'],
        env: { ...process.env, ...command.env },
        directory: place.directory,
      });
      group.leader.stderr!.setEncoding('utf8').on('data', (text: string) => {
        stderr.tail = (stderr.tail + text).slice(-STDERR_TAIL_BYTES);
      });
      qemu = new QemuProcess(group, place, stderr);
    } catch (error) {
      release(place);
      throw error;
    }
    try {
      qemu.#qmp = await qemu.#connect();
      return qemu;
    } catch (error) {
      await qemu.kill();
      throw error;
    }
  }

  /** The monitor. Lost when QEMU ends. */
  get qmp(): QmpConnection {
    return this.#qmp!;
  }

  get pid(): number {
    return this.#group.pid;
  }

  get ended(): boolean {
    return this.#group.ended;
  }

  /** The last that QEMU said on its standard error. */
  get stderrTail(): string {
    return this.#stderr.tail;
  }

  /** Settles when QEMU is gone and all that it had is released; never rejects. */
  get exited(): Promise<ProcessExit> {
    return this.#exited;
  }

  /** Settles when QEMU is gone, however it was doing. Idempotent. */
  async kill(): Promise<void> {
    this.#group.kill();
    await this.#exited;
  }

  /** Asks QEMU to end, and kills it when it does not. Idempotent. */
  async quit(): Promise<void> {
    if (this.ended) return void (await this.#exited);
    // The connection may go before the answer comes; either way the process tells.
    quit(this.qmp).catch(() => {});
    const timeout = new AbortController();
    const late = delay(QUIT_TIMEOUT_MS, true, { signal: timeout.signal }).catch(() => false);
    if (await Promise.race([late, this.#exited.then(() => false)])) this.#group.kill();
    timeout.abort();
    await this.#exited;
  }

  /**
   * A connection that QEMU makes to us while it starts.
   * @throws QemuProcessError when it does not, or ends before
   */
  async connection({ connected, close }: PendingConnection, what: string): Promise<Socket> {
    const timeout = new AbortController();
    try {
      return await Promise.race([
        connected,
        this.#exited.then(() => {
          throw this.endedError(`QEMU ended before it connected its ${what}`);
        }),
        delay(START_TIMEOUT_MS, undefined, { signal: timeout.signal }).then(() => {
          throw this.endedError(`QEMU did not connect its ${what}`);
        }),
      ]);
    } finally {
      timeout.abort();
      close();
    }
  }

  /** QEMU's end as an error, for calls that wait for an answer. */
  endedError(what: string): QemuProcessError {
    return new QemuProcessError(what, this.stderrTail);
  }

  async #connect(): Promise<QmpConnection> {
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        return await connectQmp(this.#ownQmpPath);
      } catch (error) {
        if (this.ended) {
          const { code, signal } = await this.#exited;
          throw this.endedError(`QEMU ended while it started (${signal ?? `exit code ${code}`})`);
        }
        if (!(error instanceof QmpConnectionError) || performance.now() > deadline) {
          throw this.endedError(`QEMU did not open its monitor: ${(error as Error).message}`);
        }
      }
      await delay(START_POLL_MS);
    }
  }
}

interface Place {
  readonly directory: string;
  readonly ownQmpPath: string;
  readonly qmpPath: string;
  readonly memoryFd: OwnedFd | undefined;
}

function makePlace({ memoryBytes, sharedMemory }: QemuOptions): Place {
  const memoryFd = sharedMemory ? createMemfd({ name: 'qemu-guest', size: memoryBytes }) : undefined;
  try {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-qemu-'));
    if (directories.size === 0) process.once('exit', removeDirectoriesAtExit);
    directories.add(directory);
    return { directory, ownQmpPath: join(directory, 'own'), qmpPath: join(directory, 'qmp'), memoryFd };
  } catch (error) {
    memoryFd?.close();
    throw error;
  }
}

function release({ directory, memoryFd }: Place): void {
  memoryFd?.close();
  removeDirectory(directory);
}

const directories = new Set<string>();

function removeDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  directories.delete(directory);
  if (directories.size === 0) process.off('exit', removeDirectoriesAtExit);
}

function removeDirectoriesAtExit(): void {
  const deadline = performance.now() + REMOVE_MS_MAX;
  for (const directory of directories) {
    // A QEMU that is still starting may put a socket beside those that are being removed.
    for (;;) {
      try {
        removeDirectory(directory);
        break;
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
    }
  }
}

function ownArguments(
  { machine, memoryBytes, sharedMemory, memoryBackend, preallocated = false }: QemuOptions,
  { ownQmpPath, qmpPath }: Place,
): string[] {
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-m', `${memoryBytes}B`];
  if (sharedMemory) {
    // The name leads to our memfd, which has no other; so there is nothing to remove, even if we are killed.
    const file = `memory-backend-file,id=ram,mem-path=/proc/self/fd/${MEMORY_FD},size=${memoryBytes},share=on`;
    args.push('-machine', `${machine},memory-backend=ram`);
    args.push('-object', preallocated ? `${file},prealloc=on` : file);
  } else if (memoryBackend !== undefined) {
    args.push('-machine', `${machine},memory-backend=ram`);
    args.push('-object', `${memoryBackend},id=ram,size=${memoryBytes}`);
  } else {
    args.push('-machine', machine);
  }
  const monitors = [ownQmpPath, qmpPath].flatMap(path => ['-qmp', `unix:${path},server=on,wait=off`]);
  return [...args, ...monitors];
}
