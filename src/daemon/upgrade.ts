/**
 * Has another process take this daemon's place while guests are served: it starts beside this one, and this one serves until
 * that one does. Whatever fails before, this one serves on.
 */
import type { UpgradeAnswer } from '../control/contract.ts';
import type { LogRecord } from '../hosting/options.ts';
import { handOverError } from '../keeping/hand-over.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import type { Daemon } from './options.ts';
import { type Program, Successor } from './successor.ts';

/** Where clients come. */
interface Entrance {
  readonly listening: OwnedFd;
  suspend(): void;
  resume(): Promise<void>;
}

export interface UpgradeWorld {
  readonly daemon: Daemon;
  readonly entrance: Entrance;
  readonly program: Program;
  readonly log: (record: LogRecord) => void;
}

export class Upgrades {
  /** Resolves when another process serves in place of this one; never rejects. */
  readonly done: Promise<void>;
  readonly #world: UpgradeWorld;
  #isDone: () => void = () => {};
  #finished = false;
  #underway: Promise<UpgradeAnswer> | undefined;

  constructor(world: UpgradeWorld) {
    this.#world = world;
    this.done = new Promise(resolve => {
      this.#isDone = resolve;
    });
  }

  /** Another process serves. */
  get isDone(): boolean {
    return this.#finished;
  }

  /** @throws AerostatError AEROSTAT_HAND_OVER when this process serves on */
  async run(timeoutMs: number): Promise<UpgradeAnswer> {
    if (this.#underway !== undefined) throw handOverError('another process is taking the place of this one');
    const { log } = this.#world;
    this.#underway = this.#run(timeoutMs);
    try {
      const answer = await this.#underway;
      log({ level: 'info', message: `version ${answer.version} serves, as process ${answer.pid}` });
      this.#finished = true;
      this.#isDone();
      return answer;
    } catch (error) {
      this.#underway = undefined;
      const message = error instanceof Error ? error.message : String(error);
      log({ level: 'error', message: `no upgrade, and this process serves on: ${message}` });
      throw error;
    }
  }

  /** Resolves when none is under way. */
  async settled(): Promise<void> {
    await this.#underway?.catch(() => {});
  }

  async #run(timeoutMs: number): Promise<UpgradeAnswer> {
    const { daemon, entrance, program, log } = this.#world;
    const { toHandOver: guests, keeper } = daemon;
    log({ level: 'info', message: `starting ${program.words.join(' ')} to take the place of this process` });
    const handedOver = { guests, keeper, api: entrance.listening };
    const successor = await Successor.start(program, handedOver, timeoutMs);
    const beganMs = monotonicMs();
    // Clients that come meanwhile are answered by the process that has the guests then.
    entrance.suspend();
    try {
      await daemon.handOver(successor);
    } catch (error) {
      await entrance.resume();
      throw error;
    }
    const { pid, version } = successor;
    return { pid, version, guests: guests.length, handOverMs: monotonicMs() - beganMs };
  }
}
