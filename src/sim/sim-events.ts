/**
 * All that may happen to a simulated machine in one step, and how often: messages, doorbells and time go on, the guest
 * works, the host wishes for something, and faults of all kinds. When what happens is sim-history.ts's.
 */
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../balloon/request-messages.ts';
import { DriverProbeError } from '../driver/errors.ts';
import type { Process } from '../guest/process.ts';
import type { Random } from '../guest/random.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { SimMachine } from './sim-machine.ts';

const WORKLOADS_MAX = 3;
const COMMANDS = [GET_UNUSED_PAGES, DROP_CACHE, SHRINK, 77];

/** Something that may happen, and how often it does. */
type SimEvent = readonly [weight: number, name: string, act: () => unknown];

interface TimelineOptions {
  /** The back-end hands its guest to a successor now and then, in the middle of everything. */
  readonly handsOver: boolean;
  /** A reset, removal or probe of the driver failed for no reason that the history knows. */
  readonly onMishap: (error: Error) => void;
}

export class SimEvents {
  readonly #machine: SimMachine;
  readonly #random: Random;
  readonly #onMishap: (error: Error) => void;
  readonly #events: readonly SimEvent[];
  readonly #weights: number;
  readonly #hogs: Process[] = [];
  /** A reset or removal is under way. */
  #operating = false;

  constructor(machine: SimMachine, random: Random, { handsOver, onMishap }: TimelineOptions) {
    this.#machine = machine;
    this.#random = random;
    this.#onMishap = onMishap;
    this.#events = this.#all(handsOver);
    this.#weights = this.#events.reduce((sum, [weight]) => sum + weight, 0);
  }

  /** Chooses one. */
  next(): SimEvent {
    let at = this.#random.below(this.#weights);
    return this.#events.find(([weight]) => {
      at -= weight;
      return at < 0;
    }) as SimEvent;
  }

  /** Resets the driver, takes it out, or in; whatever is lost on the way is found again by its connection. */
  async operate(what: 'reset' | 'remove' | 'probe'): Promise<void> {
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
      if (!expected) this.#onMishap(error);
    });
    await new Promise(resolve => setImmediate(resolve));
  }

  /** Ends the processes that took what they could get. */
  freeHogs(): void {
    for (const hog of this.#hogs.splice(0)) hog.exit();
  }

  #all(handsOver: boolean): readonly SimEvent[] {
    const handOvers: SimEvent[] = handsOver ? [[8, 'hand over', () => this.#machine.handOver()]] : [];
    return [
      ...this.#movements(),
      ...this.#guestEvents(),
      ...this.#hostEvents(),
      ...this.#faults(),
      ...handOvers,
    ];
  }

  /** What is under way goes on, one thing at a time. */
  #movements(): SimEvent[] {
    const machine = this.#machine;
    const { scheduler } = machine;
    const random = this.#random;
    return [
      [60, 'go on', () => this.#resume()],
      [8, 'discard', () => machine.discardSome()],
      [10, 'time', () => scheduler.advance(random.chance(0.8) ? random.below(30) : random.below(3000))],
    ];
  }

  /** A message, a kick, an interrupt or a notice that is on its way arrives. */
  #resume(): string {
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

  #guestEvents(): SimEvent[] {
    const { driver, guest, kernel } = this.#machine;
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
      [2, 'free hogs', () => this.freeHogs()],
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

  #hostEvents(): SimEvent[] {
    const machine = this.#machine;
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

  #faults(): SimEvent[] {
    const machine = this.#machine;
    const { transport } = machine;
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
    void this.operate(what);
    return 'begins';
  }
}
