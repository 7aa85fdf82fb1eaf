/**
 * A trace on real memory: guests want what the trace says, the policy at work steers them through a daemon's API, and what
 * becomes of them is measured in the words of the model. It begins where the model is once the policy has got hold of its
 * guests, so that no time goes by with that. The host's size is the trace's; what its guests hold of it is real.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { GuestStatus, HostStatus } from '../../../control/contract.ts';
import { reserveOf } from '../../../policy/settings.ts';
import type { PolicyMemory } from '../../../policy/types.ts';
import { GIB } from '../../../policy/units.ts';
import { DOWN_S, LEFT_AFTER_KILL, READ_RATE_MIN } from '../../../sim/policy/guests.ts';
import { Recalls } from '../../../sim/policy/recalls.ts';
import { type Demand, type Trace, watermarkOf } from '../../../sim/policy/trace.ts';
import { PolicyRunner } from '../../../steering/runner.ts';
import { DEFAULT_SETTINGS } from '../../../steering/settings.ts';
import { StateFile } from '../../../steering/state-file.ts';
import type { Calibrated } from './calibrate.ts';
import type { RealHost } from './host.ts';
import { realBytes, type Scale, ScaledControl, scaledClock } from './scale.ts';

/** Between two looks at the guests, in seconds of the trace. */
const TICK_S = 0.125;
/** The trace goes on in less than this of its time, or the machine is too slow for it. */
const LATE_S = 2;

/** Where the policy and its guests are when a run begins. */
export interface Beginning {
  readonly atS: number;
  /** By the policy's clock. */
  readonly atMs: number;
  readonly memory: PolicyMemory;
  readonly balloons: readonly number[];
  readonly caches: readonly number[];
}

export interface Played {
  readonly kills: number;
  readonly recallS: readonly number[];
  readonly reclaimedGiBh: number;
  readonly neededGiBh: number;
  readonly decisions: number;
  /** The most by which a look came late, in seconds of the trace: how far the machine was from keeping up. */
  readonly lateS: number;
}

interface PlayOptions {
  readonly host: RealHost;
  readonly trace: Trace;
  readonly scale: Scale;
  readonly measured: Calibrated;
  readonly beginning: Beginning;
  readonly signal: AbortSignal;
}

export class Play {
  readonly #options: PlayOptions;
  readonly #scaled: ScaledControl;
  readonly #demand: Demand = { programsBytes: 0, cacheBytes: 0, accesses: 0, committedBytes: 0 };
  readonly #downUntilS: Float64Array;
  #statuses: readonly GuestStatus[] = [];
  #atS: number;
  #kills = 0;
  #reclaimed = 0;
  #needed = 0;
  #lateS = 0;
  readonly #recalls: Recalls;
  #failure: unknown;

  constructor(options: PlayOptions) {
    this.#options = options;
    this.#scaled = new ScaledControl(options.host.control, options.scale);
    this.#downUntilS = new Float64Array(options.trace.guests.length);
    this.#atS = options.beginning.atS;
    this.#recalls = new Recalls(options.trace);
  }

  async run(): Promise<Played> {
    const { host, beginning, trace, scale, signal } = this.#options;
    await this.#prepare();
    const directory = mkdtempSync(join(host.directory, 'state-'));
    const clock = scaledClock(beginning.atMs, scale);
    const runner = new PolicyRunner({
      sources: [{ control: this.#scaled }],
      host: () => this.#hostStatus(),
      settings: { ...DEFAULT_SETTINGS, guests: trace.settings.guests },
      clock,
      state: await this.#remembered(directory),
      onError: error => {
        this.#failure ??= error;
      },
    });
    runner.start();
    try {
      for (;;) {
        const atS = beginning.atS + (clock.nowMs() - beginning.atMs) / 1000;
        if (atS >= trace.seconds) break;
        signal.throwIfAborted();
        if (this.#failure !== undefined) throw this.#failure;
        await this.#tick(atS);
        const nextMs = beginning.atMs + (atS - beginning.atS + TICK_S) * 1000;
        await delay(Math.max(1, (nextMs - clock.nowMs()) / scale.speed));
      }
    } finally {
      await runner.close();
      rmSync(directory, { recursive: true, force: true });
    }
    return {
      kills: this.#kills,
      recallS: this.#recalls.seconds,
      reclaimedGiBh: this.#reclaimed,
      neededGiBh: this.#needed,
      decisions: runner.decisions,
      lateS: this.#lateS,
    };
  }

  /** Balloons, programs and page cache as in the model; what guests have free is with the host. */
  async #prepare(): Promise<void> {
    const { host, trace, scale, beginning, measured } = this.#options;
    const { guests } = host;
    const nothing = { programsBytes: 0, filesBytes: 0, readBytes: 0 };
    await Promise.all(guests.map(guest => guest.want(nothing)));
    const targets = (of: (at: number) => number) =>
      new Map(guests.map(({ name }, at) => [name, realBytes(of(at), scale)]));
    const most = (at: number) =>
      0.95 * (trace.guests[at].memoryBytes - measured.baseBytes[at] * scale.size) - watermarkOf(GIB);
    await host.reach(targets(most));
    await host.reach(targets(at => beginning.balloons[at]));
    await Promise.all(
      guests.map((guest, at) => {
        const { programsBytes, cacheBytes } = this.#ask(at, beginning.atS);
        return guest.want({
          programsBytes: this.#own(at, programsBytes),
          filesBytes: realBytes(cacheBytes, scale),
          readBytes: realBytes(beginning.caches[at], scale),
        });
      }),
    );
  }

  #ask(at: number, atS: number): Demand {
    this.#options.trace.guests[at].demand(atS, this.#demand);
    return this.#demand;
  }

  /** What a guest's programs are to have here: its kernel uses the rest of what the trace says. */
  #own(at: number, programsBytes: number): number {
    const { trace, scale, measured } = this.#options;
    const kernel = measured.baseBytes[at] * scale.size;
    return realBytes(programsBytes + watermarkOf(trace.guests[at].memoryBytes) - kernel, scale);
  }

  /** The policy's memory of the model, as if the policy had been killed and started anew over real guests. */
  async #remembered(directory: string): Promise<StateFile> {
    const { beginning } = this.#options;
    const statuses = await this.#scaled.guests();
    const guests = beginning.memory.guests.map(memory => {
      const counters = statuses.find(({ name }) => name === memory.name)?.counters;
      return {
        ...memory,
        epoch: 1 + (counters?.resets ?? 0) + (counters?.connections ?? 0),
        // The counters of these guests are others.
        stalls: -1,
        oomKills: -1,
        swapOutBytes: -1,
        majorFaults: -1,
      };
    });
    const state = new StateFile(directory);
    state.write(() => ({
      version: 1,
      memory: { ...beginning.memory, guests },
      // It has not looked after these before, so that it takes over the targets that it finds.
      guests: {},
      settings: {},
      dryRun: false,
      reservations: [],
    }));
    await state.settled();
    return state;
  }

  async #hostStatus(): Promise<HostStatus> {
    const { totalBytes, others } = this.#options.trace;
    this.#statuses = await this.#scaled.guests();
    const held = this.#statuses.reduce((sum, { residentBytes }) => sum + (residentBytes ?? 0), 0);
    const availableBytes = Math.max(0, totalBytes - others(this.#atS).usedBytes - held);
    return {
      totalBytes,
      availableBytes,
      sharedBytes: null,
      swapTotalBytes: null,
      swapFreeBytes: null,
      pressure: null,
    };
  }

  async #tick(atS: number): Promise<void> {
    const elapsedS = atS - this.#atS;
    this.#lateS = Math.max(this.#lateS, elapsedS - TICK_S);
    this.#atS = atS;
    this.#wish(atS, Math.min(elapsedS, LATE_S));
    this.#statuses = await this.#scaled.guests();
    this.#count(atS, elapsedS);
    const { guests } = this.#options.trace;
    this.#recalls.follow(
      atS,
      at => guests[at].memoryBytes - (this.#of(at)?.actualBytes ?? 0),
      at => guests[at].memoryBytes,
    );
  }

  #wish(atS: number, elapsedS: number): void {
    const { host, scale } = this.#options;
    for (const [at, guest] of host.guests.entries()) {
      const { programsBytes, cacheBytes } = this.#ask(at, atS);
      const left = atS < this.#downUntilS[at] ? LEFT_AFTER_KILL : 1;
      const wish = {
        programsBytes: this.#own(at, programsBytes * left),
        filesBytes: realBytes(cacheBytes, scale),
        readBytes: realBytes(READ_RATE_MIN * elapsedS, scale),
      };
      guest.want(wish).then(
        alive => {
          if (alive) return;
          this.#kills++;
          this.#downUntilS[at] = this.#atS + DOWN_S;
        },
        (error: unknown) => {
          this.#failure ??= error;
        },
      );
    }
  }

  #count(atS: number, elapsedS: number): void {
    const { trace } = this.#options;
    let given = 0;
    let all = 0;
    for (const [at, { memoryBytes }] of trace.guests.entries()) {
      const status = this.#of(at);
      given += (status?.balloonedBytes ?? 0) - (status?.pendingBytes ?? 0) - (status?.incompleteBytes ?? 0);
      const { programsBytes, cacheBytes } = this.#ask(at, atS);
      all += Math.min(memoryBytes, programsBytes + cacheBytes);
    }
    const reserve = reserveOf(trace.settings, { ...NO_HOST, totalBytes: trace.totalBytes });
    const needed = Math.max(0, all - (trace.totalBytes - reserve - trace.others(atS).usedBytes));
    const part = elapsedS / 3600 / GIB;
    this.#needed += needed * part;
    this.#reclaimed += Math.min(given, needed) * part;
  }

  #of(at: number): GuestStatus | undefined {
    const { name } = this.#options.host.guests[at];
    return this.#statuses.find(status => status.name === name);
  }
}

const NO_HOST = { totalBytes: 0, availableBytes: 0, freeBytes: 0, reservedBytes: 0 };
