/**
 * A real daemon with its guests, for a trace that is played: started in processes of their own, steered through the
 * daemon's API, gone with everything they made when it is closed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { GuestStatus } from '../../../control/contract.ts';
import type { Control } from '../../../control/operations.ts';
import { bound } from '../../../peers/lifeline.ts';
import { parseAddress } from '../../../server/address.ts';
import { remoteControl } from '../../../server/client.ts';
import { AerostatError } from '../../../sys/error.ts';
import { monotonicMs } from '../../../sys/poll.ts';
import type { RealGuest } from './guests.ts';

/** What takes longer never comes. */
const PATIENCE_MS = 60_000;
const LOOK_MS = 10;

/** Starts `aerostat device` with these words. */
export type DaemonStart = (words: readonly string[]) => readonly [program: string, ...args: string[]];

interface RealHostOptions {
  readonly daemon: DaemonStart;
  readonly names: readonly string[];
  /** How often guests are asked for statistics. */
  readonly pollMs: number;
  readonly boot: (name: string, socketPath: string) => Promise<RealGuest>;
}

export class RealHost {
  readonly control: Control;
  readonly directory: string;
  readonly guests: RealGuest[] = [];
  readonly #child: ChildProcess;
  #complaint = '';

  private constructor(directory: string, { daemon, names, pollMs }: RealHostOptions) {
    this.directory = directory;
    const api = join(directory, 'api.sock');
    const sockets = names.flatMap(name => ['--socket-path', this.#socketOf(name), '--name', name]);
    // As in the model: guests report free pages, and take nothing back by themselves.
    const words = ['--without', 'deflate-on-oom', '--poll-interval', `${pollMs}ms`];
    const [program, ...args] = daemon(['--api', api, ...sockets, ...words]);
    const [guard, guarded] = bound(program, args);
    this.#child = spawn(guard, guarded, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint = (this.#complaint + text).slice(-4096);
    });
    this.control = remoteControl(parseAddress(api));
  }

  static async start(options: RealHostOptions): Promise<RealHost> {
    const host = new RealHost(mkdtempSync(join(tmpdir(), 'aerostat-policy-')), options);
    try {
      await host.until(async () => {
        const found = await host.control.daemon().catch(() => undefined);
        return found !== undefined;
      }, 'the daemon does not come up');
      const booting = options.names.map(async name => {
        const guest = await options.boot(name, host.#socketOf(name));
        host.guests.push(guest);
        return guest;
      });
      const booted = await Promise.allSettled(booting);
      const failed = booted.find(({ status }) => status === 'rejected');
      if (failed?.status === 'rejected') throw failed.reason;
      host.guests.sort((a, b) => options.names.indexOf(a.name) - options.names.indexOf(b.name));
      await host.until(async () => {
        const samples = await host.control.samples();
        return options.names.every(name => samples[name]?.ageMs !== null);
      }, 'a guest sends no statistics');
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  /** @throws AerostatError when `met` is never true */
  async until(met: () => Promise<boolean>, what: string): Promise<void> {
    const deadline = monotonicMs() + PATIENCE_MS;
    while (!(await met())) {
      if (monotonicMs() > deadline || this.#child.exitCode !== null) {
        throw new AerostatError('AEROSTAT_BENCH', `${what}: ${this.#complaint.trim()}`);
      }
      await delay(LOOK_MS);
    }
  }

  /** Sets targets, and waits until the guests and the host have come to them. */
  async reach(targets: ReadonlyMap<string, number>): Promise<void> {
    const set = [...targets].map(([name, targetBytes]) =>
      this.control.change(name, { targetBytes, force: true }),
    );
    await Promise.all(set);
    const there = ({ name, actualBytes, pendingBytes }: GuestStatus) =>
      !targets.has(name) || (actualBytes === targets.get(name) && (pendingBytes ?? 0) === 0);
    await this.until(
      async () => (await this.control.guests()).every(there),
      `guests do not come to their targets (${[...targets].join(' ')})`,
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.guests.map(guest => guest.close().catch(() => {})));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill();
      await once(this.#child, 'exit');
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  #socketOf(name: string): string {
    return join(this.directory, `${name}.sock`);
  }
}
