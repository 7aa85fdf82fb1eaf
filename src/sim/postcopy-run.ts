/**
 * One simulated migration in post-copy: a guest that writes, gives pages away and reads them again, two hosts and a network,
 * all by a seed, with the network cut after a chosen message. The pages of the destination are as the kernel has them: a
 * touch of a missing one waits, and one that is there is not placed again. Whatever happens, the source never runs the guest
 * after it was let go, and the guest finds what it wrote. Hosts and faults of pre-copy are migration-run.ts's.
 */
import { Random } from '../guest/random.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { Convergence } from '../migration/convergence.ts';
import { MigrationDestination } from '../migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../migration/destination-link.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import { askWhetherRunning } from '../migration/inquiry.ts';
import type { DestinationMachine, SourceMachine } from '../migration/machine.ts';
import { PageSender } from '../migration/page-sender.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { MigrationSource } from '../migration/source.ts';
import { SourceLink } from '../migration/source-link.ts';
import type { Inquiry } from '../migration/source-links.ts';
import type { MigrationSummary } from '../migration/source-shapes.ts';
import { TokenBucket } from '../migration/token-bucket.ts';
import { AerostatError, assert } from '../sys/error.ts';
import { PostcopyGuest, type PostcopyMistake, SimLatePages } from './postcopy-guest.ts';
import { SimClock } from './sim-clock.ts';
import { SimHost, SimWire } from './sim-wire.ts';

interface PostcopySimOptions {
  readonly seed: number;
  /** All connections break after so many messages of either side; more than there are, and none does. */
  readonly cutAfter?: number;
  readonly mistake?: PostcopyMistake;
  /** The guest does nothing while it moves: after a round nothing is left to come later. */
  readonly still?: boolean;
  /** The destination is dead from the moment at which the source let the guest go and all was cut. */
  readonly dies?: boolean;
}

interface PostcopySimResult {
  readonly runsAt: 'source' | 'destination' | 'nowhere';
  readonly summary: MigrationSummary | undefined;
  readonly error: Error | undefined;
  /** Messages of both sides. */
  readonly messages: number;
  readonly recoveries: number;
}

const CONNECTIONS = 2;
const BYTES_PER_MS = 40 * PAGE_SIZE;
const TICK_MS = 1;
const AFTERLIFE_MS = 20;
/** How long a destination that is dead is looked for: that the source does not run its guest shows within it. */
const WAKE_MS = 20_000;
const INQUIRY_PAUSE_MS = 100;
const INQUIRY_TRIES = 20;
const INQUIRY_MS_MAX = 1500;

class PostcopySimulation {
  readonly clock = new SimClock();
  readonly #random: Random;
  readonly #options: PostcopySimOptions;
  readonly #here: PostcopyGuest;
  readonly #log: SoftwareDirtyLog;
  #there: PostcopyGuest | undefined;
  #late: SimLatePages | undefined;
  readonly #host = new SimHost();
  readonly #wires: SimWire[] = [];
  readonly #destination: MigrationDestination;
  readonly #source: MigrationSource;
  #messages = 0;
  #letGo = false;
  #dead = false;
  #lost: Error | undefined;
  #over = false;

  constructor(options: PostcopySimOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    const random = this.#random;
    const slots = random.between(40, 160);
    this.#log = new SoftwareDirtyLog(slots);
    this.#here = new PostcopyGuest(slots, random.split('guest'), this.#log);
    for (let slot = 0; slot < slots; slot++) if (random.chance(0.7)) this.#here.write(slot);
    const dirty = new SlotBitmap(slots);
    const sent = new SlotBitmap(slots);
    const { clock } = this;
    this.#destination = new MigrationDestination({
      machine: this.#place(),
      ramOf: () => this.#guestThere.ram,
      memoryBytesMax: 2 ** 30,
      clock,
      inquiryMsMax: INQUIRY_MS_MAX,
    });
    this.#destination.outcome.catch(() => {});
    const bucket = new TokenBucket(BYTES_PER_MS * 1e3);
    this.#source = new MigrationSource({
      id: new Uint8Array(16).map(() => random.below(256)),
      ram: this.#here.ram,
      machine: this.#machine(),
      log: this.#log,
      dirty,
      sent,
      connector: {
        open: async (index, of) => {
          const sender = new PageSender({ ram: this.#here.ram, dirty, sent, share: { index, of } });
          return new SourceLink({ channel: this.#connect().ends[0], sender, bucket, clock });
        },
        inquire: id => this.#inquire(id),
      },
      connections: CONNECTIONS,
      convergence: new Convergence({ downtimeMsMax: 0, roundsMax: 10, autoConverge: false }),
      postcopy: { afterRound: random.below(3) },
      patchLate: options.mistake === 'patches-late',
      clock,
      observer: () => this.#checkOne(),
    });
  }

  async run(): Promise<PostcopySimResult> {
    const { clock } = this;
    this.#here.running = true;
    if (this.#options.still !== true) void this.#live();
    let summary: MigrationSummary | undefined;
    let error: Error | undefined;
    const leaving = this.#source.run().then(
      result => {
        summary = result;
      },
      reason => {
        error = reason;
      },
    );
    await clock.run(this.#options.dies ? Promise.race([leaving, this.#waitInVain()]) : leaving);
    await clock.run(clock.sleep(AFTERLIFE_MS));
    this.#over = true;
    await clock.run(clock.sleep(TICK_MS));
    this.#checkOne();
    if (this.#lost !== undefined) throw this.#lost;
    const there = this.#there?.running === true && !this.#dead;
    const runsAt = there ? 'destination' : this.#here.running ? 'source' : 'nowhere';
    if (summary !== undefined) this.#checkAll();
    const recoveries = this.#source.postcopy?.recoveries ?? 0;
    return { runsAt, summary, error, messages: this.#messages, recoveries };
  }

  /** All has come, and all of it is what the guest wrote. */
  #checkAll(): void {
    const guest = this.#guestThere;
    assert(!guest.waits && guest.running, 'all has come, and the guest waits');
    for (let slot = 0; slot < guest.ram.slots; slot++) guest.check(slot);
  }

  async #waitInVain(): Promise<void> {
    while (!this.#dead && !this.#over) await this.clock.sleep(TICK_MS);
    await this.clock.sleep(WAKE_MS);
  }

  async #live(): Promise<void> {
    while (!this.#over && this.#lost === undefined) {
      await this.clock.sleep(TICK_MS);
      try {
        for (const guest of [this.#here, this.#there]) if (guest?.running) guest.live();
      } catch (error) {
        this.#lost = error as Error;
        this.#cut();
      }
    }
  }

  #checkOne(): void {
    const there = this.#there?.running === true;
    assert(!(there && this.#here.running), 'the guest runs at both ends');
    assert(!(this.#letGo && there && this.#here.running), 'the source runs a guest that it let go');
  }

  get #guestThere(): PostcopyGuest {
    assert(this.#there !== undefined, 'no guest at the destination');
    return this.#there;
  }

  #machine(): SourceMachine {
    const here = this.#here;
    const states = async () => [{ name: 'guest', bytes: new Uint8Array(here.numbers.slice().buffer) }];
    return {
      stop: async () => {
        here.running = false;
      },
      resume: async () => {
        here.running = true;
        this.#checkOne();
      },
      throttle: async () => {},
      save: states,
      // Some sources send nothing ahead.
      ...(this.#random.chance(0.8) || this.#options.mistake === 'patches-late' ? { saveAhead: states } : {}),
      handOver: async () => {
        this.#letGo = true;
      },
      forEachVitalPage: visit => visit(0, 2),
    };
  }

  #place(): DestinationMachine {
    const late = () => this.#late;
    return {
      createMemory: async ([{ size }]) => {
        const guest = new PostcopyGuest(size / PAGE_SIZE, this.#random.split('there'));
        const pages = new SimLatePages(guest.ram, this.#options.mistake);
        guest.touch = slot => pages.touch(slot);
        guest.gaveAway = slot => pages.gaveAway(slot);
        this.#there = guest;
        this.#late = pages;
      },
      get latePages() {
        return late();
      },
      prepare: async () => void (await this.clock.sleep(this.#random.below(4))),
      load: async ([{ bytes }]) => {
        this.#guestThere.numbers.set(new Uint32Array(Uint8Array.from(bytes).buffer));
        // What the states are read with is there.
        for (const slot of [0, 1]) this.#guestThere.check(slot);
      },
      run: async () => {
        if (this.#dead) return;
        this.#guestThere.running = true;
        this.#checkOne();
      },
      abandon: async () => {
        if (this.#there !== undefined) this.#there.running = false;
      },
    };
  }

  #connect(): SimWire {
    if (this.#dead) throw new AerostatError('AEROSTAT_TRANSFER', 'no host is there');
    const { clock } = this;
    const random = this.#random.split('wire');
    const wire = new SimWire({ clock, random, bytesPerMs: BYTES_PER_MS, latencyMs: 1, host: this.#host });
    this.#wires.push(wire);
    for (const end of wire.ends) {
      const write = end.write.bind(end);
      end.write = bytes => {
        this.#messages++;
        const written = write(bytes);
        if (this.#messages === this.#options.cutAfter) this.#cut();
        return written;
      };
    }
    let take: (message: DestinationMessage) => void = () => {};
    const link = new DestinationLink(wire.ends[1], message => take(message));
    take = this.#destination.accept(link);
    return wire;
  }

  #cut(): void {
    for (const wire of this.#wires) wire.cut();
    if (!this.#options.dies || !this.#letGo) return;
    this.#dead = true;
    if (this.#there !== undefined) this.#there.running = false;
  }

  async #inquire(id: Uint8Array): Promise<Inquiry> {
    for (let tries = 0; tries < INQUIRY_TRIES; tries++) {
      if (this.#dead) return 'unreachable';
      const answer = await askWhetherRunning(this.#connect().ends[0], id);
      if (answer !== 'unheard') return answer;
      await this.clock.sleep(INQUIRY_PAUSE_MS);
    }
    return 'unreachable';
  }
}

/**
 * Moves a guest of this seed.
 * @throws AerostatError AEROSTAT_SIM_LOST when data was lost, AEROSTAT_INVARIANT when something happened that must not
 */
export const runPostcopy = (options: PostcopySimOptions): Promise<PostcopySimResult> =>
  new PostcopySimulation(options).run();
