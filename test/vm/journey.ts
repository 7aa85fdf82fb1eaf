/**
 * A machine's journey to a place in the same process: a source and a destination of a migration, and connections of
 * memory between them. What a test wants to break it breaks through the hooks.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { ByteChannel } from '../../src/migration/byte-channel.ts';
import type { DestinationMessage } from '../../src/migration/destination-link.ts';
import type { Clock, DestinationMachine, SavedState, SourceMachine } from '../../src/migration/machine.ts';
import type { NoteStep } from '../../src/migration/pause.ts';
import type { Ram } from '../../src/migration/ram.ts';
import type { Inquiry } from '../../src/migration/source-links.ts';
import type { MigrationProgress, MigrationSummary } from '../../src/migration/source-shapes.ts';
import type { ChannelName } from '../../src/vm/free-page-channel.ts';
import type { Vm as AnyVm } from '../../src/vm/vm.ts';
import {
  Convergence,
  DestinationLink,
  Guest,
  IncomingVm,
  MigrationDestination,
  MigrationSource,
  OutgoingMigration,
  PageSender,
  SourceLink,
  TokenBucket,
  VmThreads,
} from './built.ts';

export const clock: Clock = {
  nowMs: () => performance.now(),
  sleep: (delayMs, signal) =>
    delay(delayMs, undefined, signal === undefined ? {} : { signal }).catch(() => {}),
};

type Taker = Parameters<ByteChannel['listen']>[0];

/** One end of a connection of memory. What is written arrives in turns of the loop to come. */
class End implements ByteChannel {
  other!: End;
  #taker: Taker | undefined;
  readonly #arrived: (Uint8Array | null)[] = [];
  #closed = false;
  #hung = false;
  #stuck: ((error: Error) => void) | undefined;

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#closed || this.other.#closed) throw new Error('the connection is gone');
    if (this.#hung) {
      await new Promise((_, reject) => {
        this.#stuck = reject;
      });
    }
    this.other.#arrive(bytes.slice());
    await new Promise(resolve => setImmediate(resolve));
  }

  listen(taker: Taker): void {
    this.#taker = taker;
    this.#deliver();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stuck?.(new Error('the connection was cut'));
    this.other.#arrive(null);
  }

  destroy(): void {
    this.close();
  }

  /** The other side takes nothing any more, and says nothing, until {@link resume}. */
  hang(): void {
    this.#hung = true;
    this.other.#hung = true;
  }

  resume(): void {
    for (const end of [this, this.other]) {
      end.#hung = false;
      end.#deliver();
    }
  }

  /** The network breaks: both sides learn of it, and what is under way is lost. */
  cut(): void {
    for (const end of [this, this.other]) {
      end.#closed = true;
      end.#arrived.length = 0;
      end.#taker?.closed(new Error('the network is gone'));
      end.#taker = undefined;
    }
  }

  #arrive(bytes: Uint8Array | null): void {
    this.#arrived.push(bytes);
    setImmediate(() => this.#deliver());
  }

  #deliver(): void {
    while (!this.#hung && this.#taker !== undefined && this.#arrived.length > 0) {
      const bytes = this.#arrived.shift();
      if (bytes != null) this.#taker.data(bytes);
      else this.#taker.closed();
    }
  }
}

function connection(): [End, End] {
  const ends: [End, End] = [new End(), new End()];
  ends[0].other = ends[1];
  ends[1].other = ends[0];
  return ends;
}

export interface JourneyOptions {
  readonly channel?: ChannelName;
  readonly ignoreIds?: boolean;
  readonly connections?: number;
  readonly compress?: boolean;
  /** The pages of the destination's memory. */
  readonly hugePageSize?: number;
  readonly bytesPerSecond?: number;
  readonly downtimeMsMax?: number;
  readonly roundsMax?: number;
  readonly overLimit?: 'stop' | 'refuse';
  /** Rounds after which the guest runs there, and gets the rest later. */
  readonly postcopyAfter?: number;
  readonly observer?: (progress: MigrationProgress, journey: Journey) => void;
  /** Changes what the destination is told to load. */
  readonly tamper?: (states: readonly SavedState[]) => readonly SavedState[];
  /** Stops that would take longer than the guest may stand still: so many ms more each, at the step that is named. */
  readonly slowStops?: {
    readonly at: 'stop' | 'save' | 'load';
    readonly times: number;
    readonly ms: number;
  };
  /** Looks at both memories when everything has arrived and nothing runs. */
  readonly atTheStop?: (states: readonly SavedState[], here: Ram, there: Ram) => void;
}

export class Journey {
  readonly vm: AnyVm;
  readonly place: Awaited<ReturnType<typeof IncomingVm.open>>;
  readonly destination: InstanceType<typeof MigrationDestination>;
  source: InstanceType<typeof MigrationSource> | undefined;
  summary: MigrationSummary | undefined;
  sourceError: (Error & { code?: string }) | undefined;
  destinationError: (Error & { code?: string }) | undefined;
  readonly #options: JourneyOptions;
  readonly #ends: End[] = [];
  #lingered = 0;

  private constructor(vm: AnyVm, place: Journey['place'], options: JourneyOptions) {
    this.vm = vm;
    this.place = place;
    this.#options = options;
    this.destination = new MigrationDestination({
      machine: this.#machine(),
      ramOf: () => this.place.ram,
      memoryBytesMax: vm.memoryBytes,
      clock,
    });
  }

  /** Goes as far as it gets; both sides are at their end then. The caller closes both machines. */
  static async of(vm: AnyVm, options: JourneyOptions = {}): Promise<Journey> {
    const { hugePageSize } = options;
    // Warming the threads up takes longer than the whole journey, and makes nothing but the downtime shorter.
    const threads = await VmThreads.open();
    const place = { name: 'there', threads, ...(hugePageSize === undefined ? {} : { hugePageSize }) };
    return new Journey(vm, await IncomingVm.open(place), options).#run();
  }

  async #run(): Promise<this> {
    const { vm, destination } = this;
    const { channel = 'auto', ignoreIds = false, observer } = this.#options;
    const { connections = 1, compress = false, downtimeMsMax = 30, roundsMax = 20 } = this.#options;
    const { overLimit = 'stop' } = this.#options;
    const { postcopyAfter } = this.#options;
    const outgoing = await OutgoingMigration.of(vm, { channel, ignoreIds });
    this.source = new MigrationSource({
      ...outgoing.source,
      machine: this.#leaving(outgoing.source.machine),
      id: new Uint8Array(16).fill(7),
      connections,
      compress,
      postcopy: postcopyAfter === undefined ? undefined : { afterRound: postcopyAfter },
      connector: {
        open: async (index, of) => this.#open(outgoing, { index, of }),
        inquire: async (): Promise<Inquiry> => (destination.phase === 'running' ? 'running' : 'absent'),
      },
      convergence: new Convergence({ downtimeMsMax, roundsMax, overLimit, autoConverge: true }),
      clock,
      observer: progress => observer?.(progress, this),
    });
    const arriving = destination.outcome.catch(error => {
      this.destinationError = error;
    });
    try {
      this.summary = await this.source.run();
    } catch (error) {
      this.sourceError = error as Error;
    }
    for (const end of this.#ends) end.resume();
    if (destination.phase !== 'waiting') await arriving;
    await outgoing.close();
    return this;
  }

  readonly cut = (): void => {
    for (const end of this.#ends) end.cut();
  };

  /** The destination hangs, and the source cannot tell that from a network that drops everything. */
  hang(): void {
    for (const end of this.#ends) end.hang();
  }

  /** The machine that arrived, if it did. */
  get there(): AnyVm {
    return this.place.vm;
  }

  #open(outgoing: Awaited<ReturnType<typeof OutgoingMigration.of>>, share: { index: number; of: number }) {
    const [here, there] = connection();
    this.#ends.push(here);
    let take: (message: DestinationMessage) => void = () => {};
    const link = new DestinationLink(there, message => take(message));
    take = this.destination.accept(link);
    const { ram } = outgoing.vm;
    const sender = new PageSender({ ram, dirty: outgoing.dirty, sent: outgoing.sent, share });
    const bucket = new TokenBucket(this.#options.bytesPerSecond ?? Number.POSITIVE_INFINITY);
    return new SourceLink({ channel: here, sender, bucket, clock });
  }

  async #linger(step: 'stop' | 'save' | 'load'): Promise<void> {
    const { at, times = 0, ms = 0 } = this.#options.slowStops ?? {};
    if (at === step && this.#lingered++ < times) await delay(ms);
  }

  /** The machine with its slow stops. */
  #leaving(machine: SourceMachine): SourceMachine {
    if (this.#options.slowStops === undefined) return machine;
    return {
      stop: async note => {
        await machine.stop(note);
        await this.#linger('stop');
      },
      save: async note => {
        await this.#linger('save');
        return machine.save(note);
      },
      resume: () => machine.resume(),
      throttle: share => machine.throttle(share),
      saveAhead: async () => (await machine.saveAhead?.()) ?? [],
      expectedStopMs: async () => (await machine.expectedStopMs?.()) ?? 0,
      handOver: () => machine.handOver(),
    };
  }

  #machine(): DestinationMachine {
    const { place, vm } = this;
    const { tamper = states => states, atTheStop } = this.#options;
    return {
      createMemory: (regions, late) => place.createMemory(regions, late),
      get latePages() {
        return place.latePages;
      },
      ...(this.#options.slowStops === undefined
        ? {}
        : {
            prepare: (states: readonly SavedState[], note: NoteStep) => place.prepare(states, note),
            expectedRunMs: () => place.expectedRunMs(),
            unload: () => place.unload(),
          }),
      load: async states => {
        atTheStop?.(states, vm.ram, place.ram);
        await this.#linger('load');
        await place.load(tamper(states));
      },
      run: () => place.run(),
      abandon: () => place.abandon(),
    };
  }
}

/** The owners of pages that hold nothing: what was given away, and what was named as free. */
const OWNERS_OF_NOTHING = ['balloon', 'balloon-hints'];

/**
 * Every page that the guest uses has the same bytes in both memories, judged by the guest's own books at the stop and by
 * no log; returns how many there are, and how many pages of theirs are not used.
 */
export function compareMemories(states: readonly SavedState[], here: Ram, there: Ram) {
  const saved = states.find(({ name }) => name === 'guest');
  if (saved === undefined) throw new Error('no guest was saved');
  const { kernel } = Guest.restore({ memory: there.memory }, saved.bytes);
  const { allocator, pages } = kernel;
  const names = allocator.owners.names;
  const pageHere = new Uint8Array(PAGE_SIZE);
  const pageThere = new Uint8Array(PAGE_SIZE);
  let used = 0;
  let unused = 0;
  for (const { start, end } of allocator.spans) {
    for (let pfn = start; pfn < end; ) {
      const count = allocator.isAllocated(pfn) ? 1 << allocator.orderOf(pfn) : 1;
      const holds = allocator.isAllocated(pfn) && !OWNERS_OF_NOTHING.includes(names[pages.owner[pfn]]);
      for (let page = pfn; holds && page < pfn + count; page++) {
        here.read(page, 1, pageHere, 0);
        there.read(page, 1, pageThere, 0);
        if (Buffer.compare(pageHere, pageThere) !== 0) {
          throw new Error(`page ${page} of ${names[pages.owner[pfn]]} did not arrive as it was`);
        }
      }
      if (holds) used += count;
      else unused += count;
      pfn += count;
    }
  }
  return { used, unused, verified: kernel.verify() };
}
