/**
 * One simulated migration: a busy guest, two hosts and a network, all by a seed. Whatever goes wrong, at most one of the
 * two guests runs, and the one that does has lost nothing.
 */
import { Random } from '../guest/random.ts';
import { HeapBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { Convergence } from '../migration/convergence.ts';
import { MigrationDestination } from '../migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../migration/destination-link.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import { HintedPages } from '../migration/hinted-pages.ts';
import { askWhetherRunning } from '../migration/inquiry.ts';
import { PageSender } from '../migration/page-sender.ts';
import { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { MigrationSource } from '../migration/source.ts';
import { SourceLink } from '../migration/source-link.ts';
import type { Inquiry } from '../migration/source-links.ts';
import type { MigrationSummary, SourcePhase } from '../migration/source-shapes.ts';
import { TokenBucket } from '../migration/token-bucket.ts';
import { AerostatError, assert, SystemError } from '../sys/error.ts';
import { SimClock } from './sim-clock.ts';
import { SimGuest } from './sim-guest.ts';
import { SimHost, SimWire } from './sim-wire.ts';

const ECONNREFUSED = 111;

/** What goes wrong, once, at a moment of chance. */
export const SIM_FAULTS = [
  'none',
  'cancel',
  'cut',
  'outage',
  'destination-hangs',
  'destination-dies',
  'source-dies',
] as const;
export type SimFault = (typeof SIM_FAULTS)[number];

interface SimOptions {
  readonly seed: number;
  readonly fault: SimFault;
  /** The test switch of {@link SimHints.ignoreIds}. */
  readonly ignoreIds?: boolean;
  /** Test switches of MigrationSource: states that were sent ahead are patched late; a stop is called off after `go`. */
  readonly patchLate?: boolean;
  readonly goesOnLate?: boolean;
  /** False: a stop is gone through with that takes longer than the guest may stand still. */
  readonly keepsLimit?: boolean;
  /** The guest lies about its free pages, and may lose data of its own at the destination; nothing else may happen. */
  readonly lies?: boolean;
}

interface SimResult {
  /** Where the guest runs in the end. */
  readonly runsAt: 'source' | 'destination' | 'nowhere';
  readonly summary: MigrationSummary | undefined;
  /** What each reported that did not succeed. */
  readonly sourceError: Error | undefined;
  readonly destinationError: Error | undefined;
  /** When the fault came, in simulated milliseconds. */
  readonly faultMs: number | undefined;
  /** What a guest lost that lied; any other's loss is thrown. */
  readonly lost: Error | undefined;
  /** Pages that the guest named out of turn, and that counted for nothing. */
  readonly stalePages: number;
}

/** How long the simulated guest lives on before its memory is looked at for the last time. */
const AFTERLIFE_MS = 20;
const INQUIRY_TRIES = 20;
const INQUIRY_PAUSE_MS = 500;
/** Some outages are longer than the destination waits, and some hangs than a source waits whose guest stands still. */
const OUTAGE_MS_MAX = 2000;
const HANG_MS_MAX = 30_000;
const DESTINATION_PATIENCE_MS = 1500;

const FAULT_PHASES: readonly SourcePhase[] = ['connecting', 'copying', 'stopping', 'handing-over'];

class Simulation {
  readonly clock = new SimClock();
  readonly random: Random;
  readonly options: SimOptions;
  readonly wires: SimWire[] = [];
  readonly sourceGuest: SimGuest;
  readonly source: MigrationSource;
  readonly destination: MigrationDestination;
  destinationGuest: SimGuest | undefined;
  /** Nothing of a dead host acts any more, though its promises may. */
  sourceDead = false;
  destinationDead = false;
  unreachable = false;
  readonly #host = new SimHost();
  readonly #bytesPerMs: number;
  readonly #latencyMs: number;
  readonly #dirty: SlotBitmap;
  readonly #sent: SlotBitmap;
  #onPhase: (phase: SourcePhase) => void = () => {};
  #faultMs: number | undefined;
  #lost: Error | undefined;

  constructor(options: SimOptions) {
    this.options = options;
    this.random = new Random(options.seed);
    const { random, clock } = this;
    const sizes = Array.from({ length: random.between(1, 3) }, () => random.between(50, 400) * PAGE_SIZE);
    const slots = sizes.reduce((sum, size) => sum + size, 0) / PAGE_SIZE;
    this.#bytesPerMs = random.between(10, 100) * PAGE_SIZE;
    this.#latencyMs = random.below(3);
    const log = new SoftwareDirtyLog(slots);
    const load = {
      writesPerMs: random.chance(0.2) ? 0 : random.between(1, 60),
      hintsPerMs: random.between(1, 60),
      earlyRelease: random.chance(0.3) ? 0.5 : 0.05,
      servedPerMs: random.between(1, 40),
      liesPerMs: options.lies === true ? random.between(1, 10) : 0,
    };
    this.sourceGuest = new SimGuest(ramOf(sizes), random.split('guest'), clock, load, log);
    this.sourceGuest.populate(random.chance(0.5) ? 0.1 : 0.6);
    const { ram } = this.sourceGuest;
    this.#dirty = new SlotBitmap(slots);
    this.#sent = new SlotBitmap(slots);
    const hinted = new HintedPages(ram, this.#dirty, new SlotBitmap(slots), new SlotBitmap(slots));
    this.sourceGuest.hints.sink = hinted;
    this.sourceGuest.hints.ignoreIds = options.ignoreIds ?? false;
    this.destination = this.#makeDestination();
    this.source = new MigrationSource({
      id: new Uint8Array(16).map(() => random.below(256)),
      ram,
      machine: this.#sourceMachine(),
      log,
      dirty: this.#dirty,
      sent: this.#sent,
      connector: {
        open: async (index, count) => this.#openLink(index, count),
        inquire: id => this.#inquire(id),
      },
      connections: random.between(1, 3),
      convergence: new Convergence({
        downtimeMsMax: random.between(1, 10),
        keepsLimit: options.keepsLimit ?? true,
        roundsMax: 10,
        autoConverge: random.chance(0.5),
      }),
      clock,
      patchLate: options.patchLate ?? false,
      goesOnLate: options.goesOnLate ?? false,
      observer: ({ phase }) => this.#onPhase(phase),
      ...(random.chance(0.9) ? { hints: { channel: this.sourceGuest.hints, pages: hinted } } : {}),
    });
  }

  async run(): Promise<SimResult> {
    const { clock, sourceGuest } = this;
    sourceGuest.run();
    // Where a hinting workload begins in the middle of its life.
    await clock.run(clock.sleep(this.random.below(20)));
    this.#scheduleFault();
    let summary: MigrationSummary | undefined;
    let sourceError: Error | undefined;
    let destinationError: Error | undefined;
    const leaving = this.source.run().then(
      result => {
        summary = result;
      },
      error => {
        sourceError = error;
      },
    );
    const arriving = this.destination.outcome.catch(error => {
      destinationError = error;
    });
    // A host that died waits for nothing; the living side comes to an end. A destination that never heard of the guest
    // goes on listening.
    await clock.run(Promise.race([leaving, this.#until(() => this.sourceDead)]));
    await clock.run(clock.sleep(AFTERLIFE_MS));
    const unheard = () => this.destinationDead || this.destination.phase === 'waiting';
    await clock.run(Promise.race([arriving, this.#until(unheard)]));
    await clock.run(clock.sleep(AFTERLIFE_MS));
    this.#checkOne();
    const faultMs = this.#faultMs;
    if (faultMs === undefined)
      assert(summary !== undefined, `a migration failed for nothing: ${sourceError}`);
    const runsAt = this.#destinationRuns ? 'destination' : this.#sourceRuns ? 'source' : 'nowhere';
    if (runsAt === 'destination') this.#verifyThere('after it has run at the destination');
    if (runsAt === 'source') sourceGuest.verify('after it went on at the source');
    if (this.#lost !== undefined && this.options.lies !== true) throw this.#lost;
    const { stalePages } = sourceGuest.hints;
    return { runsAt, summary, sourceError, destinationError, faultMs, lost: this.#lost, stalePages };
  }

  /** No host would notice a loss; the simulation does, when all is over. */
  #verifyThere(where: string): void {
    try {
      this.#guestThere.verify(where);
    } catch (error) {
      if (!isLoss(error)) throw error;
      this.#lost ??= error as Error;
    }
  }

  get #sourceRuns(): boolean {
    return this.sourceGuest.running && !this.sourceDead;
  }

  get #destinationRuns(): boolean {
    return (this.destinationGuest?.running ?? false) && !this.destinationDead;
  }

  #checkOne(): void {
    assert(!(this.#sourceRuns && this.#destinationRuns), 'the guest runs at both ends');
  }

  #sourceMachine() {
    const { clock, random, sourceGuest } = this;
    return {
      stop: async () => {
        await clock.sleep(random.below(2));
        sourceGuest.running = false;
      },
      resume: async () => {
        if (!sourceGuest.running) sourceGuest.run();
        this.#checkOne();
      },
      throttle: async (share: number) => {
        sourceGuest.share = share;
      },
      save: async () => [{ name: 'guest', bytes: sourceGuest.save() }],
      // Some sources send nothing ahead, and some destinations make nothing ready.
      ...(random.chance(0.8) || this.options.patchLate === true
        ? { saveAhead: async () => [{ name: 'guest', bytes: sourceGuest.save() }] }
        : {}),
      expectedStopMs: async () => 0,
      handOver: async () => assert(!sourceGuest.running, 'a guest was let go that runs'),
    };
  }

  #makeDestination(): MigrationDestination {
    const { clock, random } = this;
    const machine = {
      createMemory: async (regions: readonly { readonly guestAddress: number; readonly size: number }[]) => {
        const ram = ramOf(regions.map(({ size }) => size));
        this.destinationGuest = new SimGuest(ram, random.split('there'), clock, this.sourceGuest.load);
      },
      ...(random.chance(0.8) || this.options.patchLate === true
        ? { prepare: async () => void (await clock.sleep(random.below(4))) }
        : {}),
      load: async (states: readonly { readonly name: string; readonly bytes: Uint8Array }[]) => {
        await clock.sleep(random.below(4));
        for (const { bytes } of states) this.#guestThere.restore(bytes);
      },
      run: async () => {
        await clock.sleep(random.below(4));
        if (this.destinationDead) return;
        this.#verifyThere('on its way');
        this.#guestThere.run();
        this.#checkOne();
      },
      expectedRunMs: async () => 0,
      // Some destinations cannot take back what a stop brought.
      ...(random.chance(0.9) ? { unload: () => clock.sleep(random.below(2)) } : {}),
      abandon: async () => {
        this.destinationGuest = undefined;
      },
    };
    return new MigrationDestination({
      machine,
      ramOf: () => this.#guestThere.ram,
      memoryBytesMax: 2 ** 30,
      clock,
      inquiryMsMax: DESTINATION_PATIENCE_MS,
    });
  }

  get #guestThere(): SimGuest {
    assert(this.destinationGuest !== undefined, 'no guest at the destination');
    return this.destinationGuest;
  }

  #connect(): SimWire {
    if (this.sourceDead || this.destinationDead || this.unreachable)
      throw new SystemError('connect', ECONNREFUSED);
    const wire = new SimWire({
      clock: this.clock,
      random: this.random.split('wire'),
      bytesPerMs: this.#bytesPerMs,
      latencyMs: this.#latencyMs,
      host: this.#host,
    });
    this.wires.push(wire);
    let take: (message: DestinationMessage) => void = () => {};
    const link = new DestinationLink(wire.ends[1], message => take(message));
    take = this.destination.accept(link);
    return wire;
  }

  #openLink(index: number, of: number): SourceLink {
    const sender = new PageSender({
      ram: this.sourceGuest.ram,
      dirty: this.#dirty,
      sent: this.#sent,
      share: { index, of },
    });
    const bucket = new TokenBucket(this.#bytesPerMs * 1e3);
    return new SourceLink({ channel: this.#connect().ends[0], sender, bucket, clock: this.clock });
  }

  async #inquire(id: Uint8Array): Promise<Inquiry> {
    for (let i = 0; i < INQUIRY_TRIES && !this.sourceDead; i++) {
      if (this.destinationDead) return 'absent';
      if (!this.unreachable) {
        const answer = await askWhetherRunning(this.#connect().ends[0], id);
        if (answer !== 'unheard') return answer;
      }
      await this.clock.sleep(INQUIRY_PAUSE_MS);
    }
    return 'unreachable';
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.clock.sleep(1);
  }

  /** Some time after a phase has begun, so that the short ones have their share of faults. */
  #scheduleFault(): void {
    if (this.options.fault === 'none') return;
    const phase = FAULT_PHASES[this.random.below(FAULT_PHASES.length)];
    // A hang is of interest above all in the short phases, while the guest stands still.
    const delayMs =
      this.options.fault === 'destination-hangs' ? this.random.below(4) : this.random.below(100) ** 2 / 500;
    this.#onPhase = entered => {
      if (entered !== phase || this.#faultMs !== undefined) return;
      this.#faultMs = this.clock.nowMs() + delayMs;
      this.clock.later(delayMs, () => this.#breakSomething());
    };
  }

  #breakSomething(): void {
    const cutAll = () => {
      for (const wire of this.wires) wire.cut();
    };
    switch (this.options.fault) {
      case 'cancel':
        this.source.cancel('the operator thought better of it');
        return;
      case 'cut':
        this.wires[this.random.below(this.wires.length)]?.cut();
        return;
      case 'outage':
        this.unreachable = true;
        cutAll();
        this.clock.later(this.random.below(OUTAGE_MS_MAX), () => {
          this.unreachable = false;
        });
        return;
      case 'destination-hangs':
        this.#host.hang();
        this.clock.later(this.random.below(HANG_MS_MAX), () => this.#host.resume());
        return;
      case 'destination-dies':
        this.destinationDead = true;
        if (this.destinationGuest !== undefined) this.destinationGuest.running = false;
        cutAll();
        return;
      case 'source-dies':
        this.sourceDead = true;
        this.sourceGuest.running = false;
        cutAll();
        return;
    }
  }
}

function ramOf(sizes: readonly number[]): Ram {
  const regions = sizes.map((size, index) => {
    const addresses = { guestAddress: index * 2 ** 32, size, userAddress: index * 2 ** 33 };
    return new MemoryRegion(addresses, new HeapBacking(size));
  });
  return new Ram(new GuestMemory(regions));
}

/**
 * Moves a guest of this seed.
 * @throws AerostatError AEROSTAT_SIM_LOST when data was lost, AEROSTAT_INVARIANT when something happened that must not
 */
export async function runMigration(options: SimOptions): Promise<SimResult> {
  const simulation = new Simulation(options);
  try {
    return await simulation.run();
  } finally {
    simulation.sourceGuest.running = false;
    if (simulation.destinationGuest !== undefined) simulation.destinationGuest.running = false;
  }
}

/** Whether an error says that the guest lost data. */
export const isLoss = (error: unknown): boolean =>
  error instanceof AerostatError && error.code === 'AEROSTAT_SIM_LOST';
