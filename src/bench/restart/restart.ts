/**
 * What a restart costs guests: a daemon with a keeper serves guests that give pages and take them back all the time, and is
 * replaced, by an upgrade, or after it was killed, by one that is started then, or by one that stood by. Told are the time until the next one has all guests and until its API
 * answers, from its process's start and from its program's, and how long each guest's ring stood still: the longest that one
 * of its buffers took meanwhile.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus } from '../../control/contract.ts';
import type { Control } from '../../control/operations.ts';
import { bound } from '../../peers/lifeline.ts';
import { parseAddress } from '../../server/address.ts';
import { remoteControl } from '../../server/client.ts';
import { AerostatError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/monotonic.ts';
import { ownCommandLine } from '../../sys/own-program.ts';
import type { BenchRow, Measured } from '../report.ts';
import { spreadOf } from '../report.ts';
import { ClockedGuest } from './guest.ts';

export const RESTART_WAYS = ['upgrade', 'kill', 'standby'] as const;
export type RestartWay = (typeof RESTART_WAYS)[number];

export interface RestartBenchOptions {
  readonly ways: readonly RestartWay[];
  readonly guests: number;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

/** What is aimed at: from the new process's start, or the order, until all is served, and for each ring. */
const OPEN_MS_LIMIT = 200;
const STALL_MS_LIMIT = 100;

const PATIENCE_MS = 60_000;
const UPGRADE_MS = 30_000;
/** How long the guests work before each restart and after it. */
const WORK_MS = 300;

export async function benchRestart(options: RestartBenchOptions): Promise<Measured> {
  const { ways, runs, guests, signal, progress } = options;
  const bench = await Bench.start(guests);
  const rows: BenchRow[] = [];
  const ratios: Record<string, number> = {};
  try {
    for (const [at, way] of ways.entries()) {
      const openMs: number[] = [];
      const starts: Start[] = [];
      const stallMs: number[] = [];
      const handOverMs: number[] = [];
      for (let run = 0; run < runs; run++) {
        signal.throwIfAborted();
        progress(at * runs + run, ways.length * runs, way);
        await bench.work(WORK_MS);
        if (way === 'standby') await bench.standBy();
        for (const guest of bench.guests) guest.worstMs = 0;
        const took = await bench.replace(way);
        await bench.work(WORK_MS);
        openMs.push(took.openMs);
        starts.push(bench.start);
        handOverMs.push(took.handOverMs);
        stallMs.push(...bench.guests.map(({ worstMs }) => worstMs));
      }
      const [open, stall] = [spreadOf(openMs), spreadOf(stallMs)];
      rows.push({
        case: way,
        scenario: `${guests} guests`,
        peer: 'front-ends by hand',
        elapsedMs: open,
        handOverMs: spreadOf(handOverMs),
        ...(way === 'standby' ? {} : sinceItsStart(starts)),
        stallMs: stall,
      });
      ratios[`${way}.takeover.toLimit`] =
        (way === 'kill' ? open : spreadOf(handOverMs)).median / OPEN_MS_LIMIT;
      ratios[`${way}.stall.toLimit`] = stall.median / STALL_MS_LIMIT;
      ratios[`${way}.worstStall.toLimit`] = stall.max / STALL_MS_LIMIT;
    }
    return { rows, ratios, notes: NOTES };
  } finally {
    await bench.close();
  }
}

const sinceItsStart = (starts: readonly Start[]) => ({
  servedMs: spreadOf(starts.map(({ served }) => served.processMs)),
  servedByProgramMs: spreadOf(starts.map(({ served }) => served.programMs)),
  answersByProgramMs: spreadOf(starts.map(({ answers }) => answers.programMs)),
});

const NOTES = [
  'elapsed: upgrade: from the order until another process serves, its start included; kill: from the start of the next process until its API answers; standby: from the kill until the other process says that its API answers',
  'hand-over: upgrade: from the first guest that stands still until all are served; standby: from the kill until the other process says that all are served',
  'served: from the start of the next process until it has all guests; by program: from when Node had the program to run; answers: until its API answers',
  `takeover.toLimit: kill: elapsed to ${OPEN_MS_LIMIT} ms; upgrade and standby: hand-over to ${OPEN_MS_LIMIT} ms`,
  'daemons start as units start them, without NODE_EXTRA_CA_CERTS: Node 20 reads what that names before it runs a program, which takes as long as all else of its start, or longer',
  `stall: the longest that one buffer of a guest took, to ${STALL_MS_LIMIT} ms; the guests' own process has its share in it`,
];

/** What a daemon says of its start: milliseconds since its process began, and since Node had the program to run. */
interface Moment {
  readonly processMs: number;
  readonly programMs: number;
  /** When this process heard of it. */
  readonly atMs: number;
}

const SERVED = 'guests are served';
const ANSWERS = 'the API answers';

interface Start {
  readonly served: Moment;
  readonly answers: Moment;
}

interface Took {
  readonly openMs: number;
  readonly handOverMs: number;
}

class Bench {
  readonly guests: ClockedGuest[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), 'aerostat-bench-'));
  readonly #names: readonly string[];
  readonly #control: Control<DeviceGuestStatus>;
  #keeper: ChildProcess | undefined;
  #daemonPid = 0;
  #standby: ChildProcess | undefined;
  #stands = false;
  #log = '';
  /** What the last daemon said of its start. */
  readonly #moments = new Map<string, Moment>();
  #line = '';

  private constructor(guests: number) {
    this.#names = Array.from({ length: guests }, (_, index) => `guest${index}`);
    this.#control = remoteControl(parseAddress(this.#at('api.sock')));
  }

  static async start(guests: number): Promise<Bench> {
    const bench = new Bench(guests);
    try {
      const path = bench.#at('keeper.sock');
      bench.#keeper = bench.#spawn(['keep', path]);
      await bench.#until(async () => existsSync(path), 'the keeper does not listen');
      await bench.#startDaemon();
      for (const name of bench.#names) bench.guests.push(new ClockedGuest(bench.#at(name)));
      return bench;
    } catch (error) {
      await bench.close();
      throw error;
    }
  }

  #at(name: string): string {
    return join(this.#directory, name);
  }

  #spawn(words: readonly string[]): ChildProcess {
    const [program, ...line] = ownCommandLine(...words);
    const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
    const child = spawn(...bound(program, line), { stdio: ['ignore', 'ignore', 'pipe'], env });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(-4096);
      const lines = (this.#line + text).split('\n');
      this.#line = lines.pop() ?? '';
      for (const line of lines) {
        if (line.includes('"programMs"')) this.#noteMoment(JSON.parse(line));
        if (line.includes('standing by')) this.#stands = true;
      }
    });
    return child;
  }

  #noteMoment({ message, processMs, programMs }: Moment & { readonly message: string }): void {
    this.#moments.set(message, { processMs, programMs, atMs: monotonicMs() });
  }

  /** Of the last daemon. */
  get start(): Start {
    const served = this.#moments.get(SERVED);
    const answers = this.#moments.get(ANSWERS);
    if (served === undefined || answers === undefined)
      throw new AerostatError('AEROSTAT_BENCH', `a daemon says nothing of its start: ${this.#log}`);
    return { served, answers };
  }

  async #startDaemon(): Promise<void> {
    const child = this.#spawnDaemon();
    await this.#until(async () => (await this.#pid()) === child.pid, 'the daemon does not come up');
    this.#daemonPid = child.pid ?? 0;
  }

  #spawnDaemon(...more: readonly string[]): ChildProcess {
    const sockets = this.#names.flatMap(name => ['--socket-path', this.#at(name)]);
    const log = ['--log-level', 'debug', '--log-format', 'json'];
    const places = ['--api', this.#at('api.sock'), '--keep', this.#at('keeper.sock')];
    return this.#spawn(['device', ...log, ...places, ...sockets, ...more]);
  }

  /** Another process waits for the end of the daemon from now on. */
  async standBy(): Promise<void> {
    this.#stands = false;
    this.#standby = this.#spawnDaemon('--standby');
    await this.#until(async () => this.#stands, 'no daemon stands by');
    await this.work(WORK_MS);
  }

  #pid(): Promise<number> {
    return this.#control.daemon().then(
      ({ pid }) => pid,
      () => 0,
    );
  }

  /** All guests give and take meanwhile. */
  async #until(met: () => Promise<boolean>, complaint: string): Promise<void> {
    let done = false;
    let failure: unknown;
    const deadline = monotonicMs() + PATIENCE_MS;
    const watch = (async () => {
      while (!done) {
        if (await met()) break;
        if (monotonicMs() > deadline) throw new AerostatError('AEROSTAT_BENCH', `${complaint}: ${this.#log}`);
        await delay(1);
      }
    })().catch(error => {
      failure = error;
    });
    void watch.then(() => {
      done = true;
    });
    while (!done) {
      for (const guest of this.guests) guest.step();
      await delay(1);
    }
    if (failure !== undefined) throw failure;
  }

  async work(ms: number): Promise<void> {
    const untilMs = monotonicMs() + ms;
    await this.#until(async () => monotonicMs() > untilMs, 'the guests stand still');
    // Each has had something back since.
    const before = this.guests.map(({ exchanges }) => exchanges);
    await this.#until(
      async () => this.guests.every(({ exchanges }, at) => exchanges > before[at]),
      'the guests stand still',
    );
  }

  replace(way: RestartWay): Promise<Took> {
    if (way === 'upgrade') return this.#upgrade();
    return way === 'kill' ? this.#kill() : this.#killBesideStandby();
  }

  async #killBesideStandby(): Promise<Took> {
    this.#moments.clear();
    process.kill(this.#daemonPid, 'SIGKILL');
    const beganMs = monotonicMs();
    await this.#until(async () => this.#moments.has(ANSWERS), 'the daemon that stood by does not take over');
    this.#daemonPid = this.#standby?.pid ?? 0;
    this.#standby = undefined;
    const { served, answers } = this.start;
    return { openMs: answers.atMs - beganMs, handOverMs: served.atMs - beganMs };
  }

  async #kill(): Promise<Took> {
    process.kill(this.#daemonPid, 'SIGKILL');
    const beganMs = monotonicMs();
    await this.#startDaemon();
    const openMs = monotonicMs() - beganMs;
    return { openMs, handOverMs: openMs };
  }

  async #upgrade(): Promise<Took> {
    const beganMs = monotonicMs();
    const order = this.#control.upgrade({ timeoutMs: UPGRADE_MS });
    let ended = false;
    order.then(
      () => {
        ended = true;
      },
      () => {
        ended = true;
      },
    );
    await this.#until(async () => ended, 'no other process serves');
    const { pid, handOverMs } = await order;
    this.#daemonPid = pid;
    return { openMs: monotonicMs() - beganMs, handOverMs };
  }

  async close(): Promise<void> {
    for (const guest of this.guests) guest.close();
    const standby = this.#standby;
    if (standby?.exitCode === null && standby.kill()) await once(standby, 'exit');
    // The last daemon may be no child of this process.
    if (this.#daemonPid > 0) {
      try {
        process.kill(this.#daemonPid, 'SIGTERM');
        const deadline = monotonicMs() + PATIENCE_MS;
        while (monotonicMs() < deadline && process.kill(this.#daemonPid, 0)) await delay(5);
      } catch {
        // It has ended.
      }
    }
    if (this.#keeper?.exitCode === null && this.#keeper.kill()) await once(this.#keeper, 'exit');
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
