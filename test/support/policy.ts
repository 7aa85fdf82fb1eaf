/**
 * A policy as a person starts it: `aerostat policy run` in a process of its own, which a test may kill and start again, with
 * its settings, its memory and its socket in a directory of the test's.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Control } from '../../src/control/operations.ts';
import type { PolicyStatus } from '../../src/control/policy.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { program } from '../cli/built.ts';

const PATIENCE_MS = 60_000;

export class PolicyProcess {
  readonly control: Control;
  readonly api: string;
  readonly config: string;
  log = '';
  readonly #directory: string;
  #child: ChildProcess | undefined;

  /** `settings` is the text of a TOML file. */
  constructor(directory: string, settings: string) {
    this.#directory = directory;
    this.api = join(directory, 'policy.sock');
    this.config = join(directory, 'aerostat.toml');
    this.configure(settings);
    this.control = remoteControl(parseAddress(this.api));
  }

  /** Writes other settings, which it reads when it is told to. */
  configure(settings: string): void {
    writeFileSync(this.config, settings);
  }

  /** Starts it, and waits for its first decision. */
  async start(): Promise<void> {
    const words = ['--config', this.config, '--state-dir', join(this.#directory, 'state'), '--api', this.api];
    const child = spawn(process.execPath, [program, 'policy', 'run', ...words], {
      env: { ...process.env, XDG_RUNTIME_DIR: this.#directory },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child = child;
    child.stderr.setEncoding('utf8').on('data', text => {
      this.log += text;
    });
    process.once('exit', this.#killAtExit);
    await this.until(({ decisions }) => decisions > 0);
  }

  /** Waits until its status is as it should be, and returns that. */
  async until(met: (status: PolicyStatus) => boolean): Promise<PolicyStatus> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const status = await this.control.policy().catch(() => undefined);
      if (status !== undefined && met(status)) return status;
      if (Date.now() > deadline || this.#child?.exitCode != null) {
        throw new Error(`the policy never came to it: ${JSON.stringify(status)}\n${this.log}`);
      }
      await delay(20);
    }
  }

  /** Ends it, with -9 unless another signal is named. */
  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    process.removeListener('exit', this.#killAtExit);
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  readonly #killAtExit = (): void => {
    this.#child?.kill('SIGKILL');
  };
}
