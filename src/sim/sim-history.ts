/**
 * What happens to a simulated machine: a history of steps that one seed names. Messages, doorbells, time, the guest's
 * work and the host's wishes come in any order, and so do the faults: a connection lost at any message, a host that dies
 * within a discard, discards that fail, a guest out of memory, resets and removals in the middle of everything,
 * interrupts and notices that lie. The machine is checked after every step, and now and then it is left to come to rest
 * and checked to the last page.
 */
import type { ProfileName } from '../balloon/profiles.ts';
import { Random } from '../guest/random.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { HostDeath } from './sim-backing.ts';
import { ViolationError } from './sim-checks.ts';
import { SimEvents } from './sim-events.ts';
import { SimMachine } from './sim-machine.ts';
import { type MachinePlan, planMachine } from './sim-plan.ts';

/** Steps between two rests. */
const REST_INTERVAL = 150;
/**
 * Far more rounds than any machine needs to come to rest, beside one for every page in the balloon: a small ring without
 * indirect descriptors takes them back one at a time. A machine that needs more is a violation.
 */
const REST_ROUNDS_MAX = 3000;
/** Each has all that the balloon holds discarded anew, so with more of them no machine would come to its rest. */
const REST_HAND_OVERS_MAX = 6;
const CONTENT_CHECK_INTERVAL = 25;
/** How long the machine is left alone once nothing moves: longer than every delay and retry of the driver. */
const REST_MS = 5000;
/** Steps that a failure shows; what follows itself counts once. */
const TRACE_STEPS = 40;

interface HistoryOptions {
  readonly seed: number;
  readonly steps: number;
  readonly profile?: ProfileName;
  /** The back-end hands its guest to a successor now and then, in the middle of everything. */
  readonly handsOver?: boolean;
}

interface History {
  readonly seed: number;
  readonly plan: MachinePlan;
  /** Steps that were made. */
  readonly steps: number;
  readonly failure: Error | undefined;
  /** The last steps, the newest at the end. */
  readonly trace: readonly string[];
  /** What the history had in it. */
  readonly tally: Readonly<Record<string, number>>;
}

/** Lives through one history. The same options give the same history. */
export async function liveHistory({
  seed,
  steps,
  profile,
  handsOver = false,
}: HistoryOptions): Promise<History> {
  const random = new Random(seed);
  const plan = planMachine(random.split('plan'), profile);
  const machine = new SimMachine(plan, random.split('machine'));
  const run = new HistoryRun(machine, random.split('life'), handsOver);
  let made = 0;
  let failure: Error | undefined;
  try {
    await run.begin();
    for (; made < steps; made++) {
      await run.step();
      if ((made + 1) % REST_INTERVAL === 0) await run.rest();
    }
    await run.end();
  } catch (error) {
    failure = error as Error;
  } finally {
    machine.transport.close();
  }
  return { seed, plan, steps: made, failure, trace: run.trace, tally: run.tally };
}

class HistoryRun {
  readonly trace: string[] = [];
  readonly tally: Record<string, number> = {};
  readonly #machine: SimMachine;
  readonly #random: Random;
  readonly #handsOver: boolean;
  /** Until the machine has come to its rest. */
  #handOversLeft = 0;
  readonly #events: SimEvents;
  #steps = 0;
  #mishap: Error | undefined;
  /** The last line of the trace, and how often it came in a row. */
  #last = '';
  #times = 0;

  constructor(machine: SimMachine, random: Random, handsOver: boolean) {
    this.#machine = machine;
    this.#random = random;
    this.#handsOver = handsOver;
    const onMishap = (error: Error) => {
      this.#mishap = error;
    };
    this.#events = new SimEvents(machine, random, { handsOver, onMishap });
  }

  async begin(): Promise<void> {
    const { plan, transport } = this.#machine;
    this.#note('begin', `${plan.profile}, ${plan.sizeMiB} MiB`);
    transport.reconnect('simulated', new Map()).catch(error => {
      this.#mishap = error;
    });
    await this.rest();
  }

  async step(): Promise<void> {
    const [, name, act] = this.#events.next();
    const detail = this.#guarded(act);
    this.#note(name, detail);
    await this.#settle();
    this.#steps++;
    this.#machine.checks.check();
    if (this.#steps % CONTENT_CHECK_INTERVAL === 0) this.#machine.guest.verify();
  }

  /** Lets everything that is under way come to its end, without faults, and checks the machine to the last page. */
  async rest(): Promise<void> {
    const { machine, transport, driver, scheduler } = this.#parts();
    this.#note('rest');
    this.#handOversLeft = this.#handsOver ? REST_HAND_OVERS_MAX : 0;
    machine.hostDown = false;
    transport.attend();
    for (const backing of machine.backings) {
      backing.failing = false;
      backing.deadly = false;
    }
    this.#events.freeHogs();
    const roundsMax = REST_ROUNDS_MAX + machine.memory.size / PAGE_SIZE;
    for (let quiet = 0, round = 0; quiet < 2; round++) {
      if (round > roundsMax) throw new ViolationError(`no rest: the driver is ${driver.state}`);
      const moved = await this.#move();
      if (moved) {
        quiet = 0;
        continue;
      }
      if ((driver.state === 'removed' || driver.state === 'new') && !machine.connection.searching) {
        await this.#events.operate('probe');
        if (transport.nextMessage === undefined) machine.kernel.dropCaches();
        continue;
      }
      scheduler.advance(REST_MS);
      quiet++;
      await this.#settle();
    }
    machine.checks.check();
    if (driver.backingOff) return;
    machine.checks.checkAtRest();
  }

  /** The guest gives everything back, and has what it had when it booted. */
  async end(): Promise<void> {
    const { machine, driver } = this.#parts();
    await this.rest();
    for (const workload of machine.guest.workloads) workload.stop();
    machine.kernel.shrinkAll();
    machine.kernel.dropCaches();
    await this.rest();
    await this.#events.operate('remove');
    const roundsMax = REST_ROUNDS_MAX + machine.memory.size / PAGE_SIZE;
    for (let round = 0; driver.state !== 'removed'; round++) {
      if (round > roundsMax) throw new ViolationError(`no end: the driver is ${driver.state}`);
      if (!(await this.#move())) machine.scheduler.advance(100);
    }
    machine.checks.check();
    machine.kernel.dropCaches();
    const { freePages, bootPages } = machine;
    if (freePages !== bootPages)
      throw new ViolationError(`${freePages} pages are free in the end, ${bootPages} were`);
    if (machine.device.accounts.balloonedPages !== 0) throw new ViolationError('the host kept an account');
  }

  /** One round of everything that moves by itself; false when nothing did. */
  async #move(): Promise<boolean> {
    const { machine, transport, scheduler } = this.#parts();
    let moved = false;
    while (transport.nextMessage !== undefined) {
      this.#note('arrives', transport.nextMessage);
      transport.deliverMessage();
      await this.#settle();
      moved = true;
    }
    for (const index of transport.kicked) {
      this.#note('serves', `${index}`);
      transport.serve(index);
      moved = true;
    }
    await this.#settle();
    for (const index of transport.interrupted) {
      transport.interrupt(index);
      moved = true;
    }
    while (transport.notices > 0) {
      transport.notice();
      moved = true;
    }
    if (machine.pendingPages > 0) {
      machine.discardSome();
      moved = true;
    }
    const due = scheduler.nextDueMs;
    if (due !== undefined && due <= scheduler.now() + (transport.connected ? 0 : 1000)) {
      scheduler.advance(Math.max(0, due - scheduler.now()));
      moved = true;
    }
    // Most of an inflation is in these rounds.
    if (moved && this.#handOversLeft > 0 && this.#random.chance(0.1)) {
      this.#handOversLeft--;
      this.#note('hand over', machine.handOver());
    }
    await this.#settle();
    machine.checks.check();
    return moved;
  }

  #parts() {
    const machine = this.#machine;
    const { transport, driver, scheduler } = machine;
    return { machine, transport, driver, scheduler };
  }

  /** Lets every promise go on as far as it can. */
  async #settle(): Promise<void> {
    await new Promise(resolve => setImmediate(resolve));
    if (this.#mishap !== undefined) throw this.#mishap;
  }

  /** A host that dies on the way is part of what may happen. */
  #guarded(act: () => unknown): string | undefined {
    try {
      const detail = act();
      return typeof detail === 'string' ? detail : undefined;
    } catch (error) {
      if (!(error instanceof HostDeath)) throw error;
      this.#machine.killHost('the host died in a discard');
      return 'the host died';
    }
  }

  #note(name: string, detail?: string): void {
    this.tally[name] = (this.tally[name] ?? 0) + 1;
    const line = detail === undefined ? name : `${name} ${detail}`;
    if (line === this.#last) {
      this.#times++;
      this.trace[this.trace.length - 1] = `${line}, ${this.#times} times`;
      return;
    }
    this.#last = line;
    this.#times = 1;
    this.trace.push(line);
    if (this.trace.length > TRACE_STEPS) this.trace.shift();
  }
}
