/**
 * What happens to a simulated machine: a history of steps that one seed names. Messages, doorbells, time, the guest's
 * work and the host's wishes come in any order, and so do the faults: a connection lost at any message, a host that dies
 * within a discard, discards that fail, a guest out of memory, resets and removals in the middle of everything,
 * interrupts and notices that lie. The machine is checked after every step, and now and then it is left to come to rest
 * and checked to the last page.
 */
import type { ProfileName } from '../balloon/profiles.ts';
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../balloon/request-messages.ts';
import { DriverProbeError } from '../driver/errors.ts';
import type { Process } from '../guest/process.ts';
import { Random } from '../guest/random.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { HostDeath } from './sim-backing.ts';
import { type MachinePlan, planMachine, SimMachine, ViolationError } from './sim-machine.ts';

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
const WORKLOADS_MAX = 3;
/** How long the machine is left alone once nothing moves: longer than every delay and retry of the driver. */
const REST_MS = 5000;
/** Steps that a failure shows; what follows itself counts once. */
const TRACE_STEPS = 40;
const COMMANDS = [GET_UNUSED_PAGES, DROP_CACHE, SHRINK, 77];

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
  const life = new Life(machine, random.split('life'), handsOver);
  let made = 0;
  let failure: Error | undefined;
  try {
    await life.begin();
    for (; made < steps; made++) {
      await life.step();
      if ((made + 1) % REST_INTERVAL === 0) await life.rest();
    }
    await life.end();
  } catch (error) {
    failure = error as Error;
  } finally {
    machine.transport.close();
  }
  return { seed, plan, steps: made, failure, trace: life.trace, tally: life.tally };
}

/** Something that may happen, and how often it does. */
type Happening = readonly [weight: number, name: string, happen: () => unknown];

class Life {
  readonly trace: string[] = [];
  readonly tally: Record<string, number> = {};
  readonly #machine: SimMachine;
  readonly #random: Random;
  readonly #handsOver: boolean;
  /** Until the machine has come to its rest. */
  #handOversLeft = 0;
  readonly #happenings: readonly Happening[];
  readonly #weights: number;
  readonly #hogs: Process[] = [];
  #steps = 0;
  /** A reset or removal is under way. */
  #operating = false;
  #mishap: Error | undefined;
  /** The last line of the trace, and how often it came in a row. */
  #last = '';
  #times = 0;

  constructor(machine: SimMachine, random: Random, handsOver: boolean) {
    this.#machine = machine;
    this.#random = random;
    this.#handsOver = handsOver;
    this.#happenings = this.#allHappenings();
    this.#weights = this.#happenings.reduce((sum, [weight]) => sum + weight, 0);
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
    let at = this.#random.below(this.#weights);
    const [, name, happen] = this.#happenings.find(([weight]) => {
      at -= weight;
      return at < 0;
    }) as Happening;
    const detail = this.#guarded(happen);
    this.#note(name, detail);
    await this.#settle();
    this.#steps++;
    this.#machine.check();
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
    this.#freeHogs();
    const roundsMax = REST_ROUNDS_MAX + machine.memory.size / PAGE_SIZE;
    for (let quiet = 0, round = 0; quiet < 2; round++) {
      if (round > roundsMax) throw new ViolationError(`no rest: the driver is ${driver.state}`);
      const moved = await this.#move();
      if (moved) {
        quiet = 0;
        continue;
      }
      if ((driver.state === 'removed' || driver.state === 'new') && !machine.connection.searching) {
        await this.#operate('probe');
        if (transport.nextMessage === undefined) machine.kernel.dropCaches();
        continue;
      }
      scheduler.advance(REST_MS);
      quiet++;
      await this.#settle();
    }
    machine.check();
    if (driver.backingOff) return;
    machine.checkAtRest();
  }

  /** The guest gives everything back, and has what it had when it booted. */
  async end(): Promise<void> {
    const { machine, driver } = this.#parts();
    await this.rest();
    for (const workload of machine.guest.workloads) workload.stop();
    machine.kernel.shrinkAll();
    machine.kernel.dropCaches();
    await this.rest();
    await this.#operate('remove');
    const roundsMax = REST_ROUNDS_MAX + machine.memory.size / PAGE_SIZE;
    for (let round = 0; driver.state !== 'removed'; round++) {
      if (round > roundsMax) throw new ViolationError(`no end: the driver is ${driver.state}`);
      if (!(await this.#move())) machine.scheduler.advance(100);
    }
    machine.check();
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
    machine.check();
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

  /** A host that dies on the way is a part of life. */
  #guarded(happen: () => unknown): string | undefined {
    try {
      const detail = happen();
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

  /** Resets the driver, takes it out, or in; whatever is lost on the way is found again by its connection. */
  async #operate(what: 'reset' | 'remove' | 'probe'): Promise<void> {
    const { driver, connection, transport } = this.#machine;
    if (this.#operating) return;
    this.#operating = true;
    connection.driverWanted = what !== 'remove';
    transport.silent = false;
    const done = () => {
      this.#operating = false;
    };
    driver[what]().then(done, error => {
      done();
      const expected = error instanceof DriverProbeError || error.code === 'AEROSTAT_SIM_LOST';
      if (!expected) this.#mishap = error;
    });
    await new Promise(resolve => setImmediate(resolve));
  }

  #freeHogs(): void {
    for (const hog of this.#hogs.splice(0)) hog.exit();
  }

  #allHappenings(): readonly Happening[] {
    const handOvers: Happening[] = this.#handsOver ? [[8, 'hand over', () => this.#machine.handOver()]] : [];
    return [
      ...this.#movements(),
      ...this.#guestsDoings(),
      ...this.#hostsDoings(),
      ...this.#faults(),
      ...handOvers,
    ];
  }

  /** What is under way goes on, one thing at a time. */
  #movements(): Happening[] {
    const { scheduler, machine } = this.#parts();
    const random = this.#random;
    return [
      [60, 'go on', () => this.#goOn()],
      [8, 'discard', () => machine.discardSome()],
      [10, 'time', () => scheduler.advance(random.chance(0.8) ? random.below(30) : random.below(3000))],
    ];
  }

  /** A message, a kick, an interrupt or a notice that is on its way arrives. */
  #goOn(): string {
    const { transport } = this.#machine;
    const arrivals: [what: string, arrive: () => void][] = [
      ...transport.kicked.map((index): [string, () => void] => [
        `kick ${index}`,
        () => transport.serve(index),
      ]),
      ...transport.interrupted.map((index): [string, () => void] => [
        `interrupt ${index}`,
        () => transport.interrupt(index),
      ]),
    ];
    if (transport.nextMessage !== undefined) {
      arrivals.push([transport.nextMessage, () => transport.deliverMessage()]);
    }
    if (transport.notices > 0) arrivals.push(['notice', () => transport.notice()]);
    if (arrivals.length === 0) return 'nothing';
    const [what, arrive] = arrivals[this.#random.below(arrivals.length)];
    arrive();
    return what;
  }

  #guestsDoings(): Happening[] {
    const { machine, driver } = this.#parts();
    const { guest, kernel } = machine;
    const random = this.#random;
    const pages = kernel.allocator.managedPages;
    return [
      [25, 'work', () => `${guest.step(random.between(1, 600))} pages`],
      [
        3,
        'start',
        () => {
          if (guest.workloads.length >= WORKLOADS_MAX) return 'no more';
          const kind = (['build', 'churn', 'read', 'touch'] as const)[random.below(4)];
          const size = random.between(1, pages);
          guest.start(
            kind === 'build' ? { kind, jobs: 3, workingPages: 16 + (size >> 3) } : { kind, pages: size },
          );
          return kind;
        },
      ],
      [2, 'stop', () => guest.workloads[random.below(WORKLOADS_MAX)]?.stop()],
      [2, 'hog', () => this.#hog(random.below(pages))],
      [2, 'free hogs', () => this.#freeHogs()],
      [2, 'compact', () => kernel.compact()],
      [1, 'drop caches', () => `${kernel.dropCaches()}`],
      [1, 'shrink', () => `${kernel.shrinkAll()}`],
      [1, 'out of memory', () => `${kernel.oom.run().released}`],
      [2, 'reset', () => this.#operateIf('reset', driver.state === 'running')],
      [6, 'new driver without saying so', () => this.#replaceSilently()],
      [1, 'remove', () => this.#operateIf('remove', driver.state === 'running')],
      [3, 'probe', () => this.#operateIf('probe', driver.state === 'removed' || driver.state === 'new')],
    ];
  }

  #hostsDoings(): Happening[] {
    const { machine } = this.#parts();
    const random = this.#random;
    const pages = machine.memory.size / PAGE_SIZE;
    return [
      [
        14,
        'target',
        () => {
          // Sometimes more than there is.
          machine.device.targetPages = random.below(random.chance(0.2) ? pages * 2 : pages);
          return `${machine.device.targetPages}`;
        },
      ],
      [3, 'statistics', () => machine.device.statistics.request()],
      [
        12,
        'ask',
        () => {
          const { device } = machine;
          if (device.hints.running) {
            const action = (['begin', 'begin', 'end', 'done'] as const)[random.below(4)];
            if (action === 'begin') machine.hintWitness.begin();
            device.hints[action]();
            return action;
          }
          if (device.requests.running) device.requests.send(COMMANDS[random.below(COMMANDS.length)]);
          return 'a request';
        },
      ],
      [1, 'mode', () => machine.changeDiscardMode()],
    ];
  }

  #faults(): Happening[] {
    const { machine, transport } = this.#parts();
    const random = this.#random;
    return [
      [2, 'lose', () => machine.killHost('the cable')],
      [1, 'host down', () => Object.assign(machine, { hostDown: true })],
      [3, 'host up', () => Object.assign(machine, { hostDown: false })],
      [1, 'deadly discard', () => Object.assign(this.#backing(), { deadly: true })],
      [1, 'failing discards', () => Object.assign(this.#backing(), { failing: true })],
      [2, 'working discards', () => Object.assign(this.#backing(), { failing: false })],
      [2, 'false notice', () => transport.notice()],
      [
        2,
        'false interrupt',
        () => transport.interrupt(random.chance(0.3) ? null : random.below(transport.rings.length + 1)),
      ],
      [4, 'neglect', () => this.#one(transport.rings, index => transport.neglect(index))],
      [3, 'attend', () => transport.attend()],
      [2, 'false kick', () => this.#one(transport.rings, index => transport.serve(index))],
    ];
  }

  #one(of: readonly number[], act: (index: number) => void): string {
    if (of.length === 0) return 'none';
    const index = of[this.#random.below(of.length)];
    act(index);
    return `${index}`;
  }

  #backing() {
    const { backings } = this.#machine;
    return backings[this.#random.below(backings.length)];
  }

  /** A process that takes what it can get, up to `pages`. */
  #hog(pages: number): string {
    const hog = this.#machine.kernel.spawn('hog');
    this.#hogs.push(hog);
    let got = 0;
    while (got < pages && hog.write(got)) got++;
    return `${got} of ${pages} pages`;
  }

  /** Another driver begins, and the front-end announces no reset. */
  #replaceSilently(): string {
    const { driver, transport } = this.#machine;
    const begins = this.#operateIf('reset', driver.state === 'running' && !this.#operating);
    transport.silent = begins === 'begins';
    return begins;
  }

  #operateIf(what: 'reset' | 'remove' | 'probe', possible: boolean): string {
    if (!possible || this.#machine.connection.searching) return 'not now';
    void this.#operate(what);
    return 'begins';
  }
}
