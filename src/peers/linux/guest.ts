/**
 * A Linux guest as tests, demo and benchmarks see it, whatever it runs on: a shell to run commands in, and its own
 * account of its memory. How it lives, and over which console the commands travel, its classes know.
 */
import type { CommandChannel, CommandResult } from './channel.ts';
import { GuestBootError, GuestCommandError, GuestTimeoutError } from './errors.ts';
import { BALLOON_MODULE } from './init.ts';

export interface RunOptions {
  /** Default: a minute. Infinity is allowed. */
  readonly timeoutMs?: number;
}

const RUN_TIMEOUT_MS = 60_000;
/** setTimeout's limit; longer means never. */
const TIMER_MS_MAX = 2 ** 31 - 1;

const numberTable = (text: string, pattern: RegExp, unit: (suffix: string) => number) =>
  Object.fromEntries(
    [...text.matchAll(pattern)].map(([, name, value, suffix]) => [name, Number(value) * unit(suffix ?? '')]),
  );

export abstract class LinuxGuest {
  abstract readonly memoryBytes: number;
  /** The last of what the kernel wrote to its console. */
  abstract get consoleTail(): string;
  /** Settles when the guest and all that it was made of is gone; never rejects. */
  abstract get exited(): Promise<unknown>;
  protected abstract get channel(): CommandChannel;

  /** Ends the guest at once, as SIGKILL does; {@link exited} tells when it is gone. Idempotent. */
  abstract kill(): void | Promise<void>;
  /** Powers the guest off from inside, kills it if that takes too long, and waits until it is gone. Idempotent. */
  abstract shutdown(): Promise<void>;

  /**
   * Runs a script in the guest's shell (busybox), in a session of its own, with an empty standard input.
   * Several may run at once. It ends when nothing holds its output open any more: what shall go on in the
   * background needs `>/dev/null 2>&1 &`.
   * @throws GuestTimeoutError after `timeoutMs`; the script and all it started are killed
   * @throws GuestEndedError when the guest ends meanwhile
   * @throws GuestCommandError for a script that is too long, or output beyond 64 MiB
   */
  async run(script: string, { timeoutMs = RUN_TIMEOUT_MS }: RunOptions = {}): Promise<CommandResult> {
    const { channel } = this;
    const { id, result } = channel.start(script);
    if (timeoutMs > TIMER_MS_MAX) return result;
    const timer = setTimeout(() => {
      const what = `a command of the guest took longer than ${timeoutMs} ms: ${script}`;
      channel.abandon(id, new GuestTimeoutError(what, this.consoleTail));
    }, timeoutMs);
    return result.finally(() => clearTimeout(timer));
  }

  /**
   * The output of a script that must succeed. @throws GuestCommandError when it exits with another code
   * than 0
   */
  async check(script: string, options?: RunOptions): Promise<string> {
    const { exitCode, output } = await this.run(script, options);
    if (exitCode === 0) return output;
    throw new GuestCommandError(
      `a command of the guest exited with ${exitCode}: ${script}`,
      exitCode,
      output,
    );
  }

  /** /proc/meminfo, in bytes (counts of huge pages as they are). */
  async meminfo(): Promise<Record<string, number>> {
    const text = await this.check('cat /proc/meminfo');
    return numberTable(text, /^(\S+):\s+(\d+)( kB)?$/gm, suffix => (suffix === '' ? 1 : 1024));
  }

  /** /proc/vmstat: events and pages. `balloon_inflate` and `balloon_deflate` count the balloon's pages. */
  async vmstat(): Promise<Record<string, number>> {
    return numberTable(await this.check('cat /proc/vmstat'), /^(\S+) (\d+)$/gm, () => 1);
  }

  /** All of the kernel's messages that it still holds. */
  kernelLog(): Promise<string> {
    return this.check('dmesg');
  }

  /** @throws GuestBootError when the driver does not take all `devices` of them */
  async loadBalloonDriver(devices: number, parameters: readonly string[] = []): Promise<void> {
    const loaded = await this.run(`insmod ${[BALLOON_MODULE, ...parameters].join(' ')}`);
    if (loaded.exitCode !== 0) {
      throw new GuestBootError(`the balloon's driver cannot be loaded: ${loaded.output}`, this.consoleTail);
    }
    const found = await this.balloonDevices();
    if (found === devices) return;
    throw new GuestBootError(
      `the guest's driver took ${found} of ${devices} balloon devices; ` +
        'each must be listening on its socket before the guest boots, and speak to one guest at a time.',
      this.consoleTail,
    );
  }

  /** How many devices the balloon's driver serves. */
  async balloonDevices(): Promise<number> {
    return Number(await this.check('ls -d /sys/bus/virtio/drivers/*_balloon/virtio* 2>/dev/null | wc -l'));
  }

  /** Removes the driver, which gives every page back first. */
  async unloadBalloonDriver(): Promise<void> {
    // The kernel's own is called virtio_balloon; ours of linux/ is not.
    await this.check('cd /sys/module && rmmod *_balloon', { timeoutMs: Number.POSITIVE_INFINITY });
  }
}
