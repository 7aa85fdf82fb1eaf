/**
 * The side where the guest arrives. It believes nothing: what does not fit ends the migration, and the guest is not run
 * before everything has come, its states could be read, and the source has said `go`.
 */
import { DestinationConnections, type MigrationConnection } from './destination-connections.ts';
import type { DestinationMessage, Inlet } from './destination-link.ts';
import type { DestinationOptions, DestinationPhase } from './destination-shapes.ts';
import { checkRoom, INQUIRY_MS_MAX } from './destination-shapes.ts';
import { MigrationCancelled, MigrationError, refusalOf } from './errors.ts';
import { featuresTaken } from './features.ts';
import { PauseWatch } from './pause.ts';
import { type ArrivalState, PostcopyArrival } from './postcopy-arrival.ts';
import type { Ram } from './ram.ts';
import { SlotBitmap } from './slot-bitmap.ts';
import { StandbyStates } from './standby.ts';
import {
  FEATURE_AHEAD,
  FEATURE_POSTCOPY,
  FEATURE_RECALL,
  type Hello,
  type RegionShape,
} from './stream/messages.ts';
import { StreamError } from './stream/section.ts';

/** What is answered goes at once, but where the source reads nothing. */
const ANSWER_MS = 5;

export class MigrationDestination {
  readonly #options: DestinationOptions;
  readonly #connections = new DestinationConnections();
  #phase: DestinationPhase = 'waiting';
  #round = 0;
  #id: Uint8Array | undefined;
  #features = 0;
  /** Memory was asked for; it may not be there yet. */
  #memoryNamed = false;
  #ram: Ram | undefined;
  #held: SlotBitmap | undefined;
  readonly #states = new StandbyStates();
  #go = false;
  /** Where the source may want pages to come when the guest runs, and this host can have that. */
  #postcopy: PostcopyArrival | undefined;
  readonly #lostSource = new AbortController();
  #settle: { resolve(): void; reject(error: Error): void } | undefined;
  #outcome: Promise<void>;
  /** What the machine is being asked: one thing after the other. */
  #busy: Promise<void> = Promise.resolve();

  constructor(options: DestinationOptions) {
    this.#options = options;
    this.#outcome = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#outcome.catch(() => {});
  }

  get phase(): DestinationPhase {
    return this.#phase;
  }

  /** Resolves when the guest runs here; rejects when it never will, with what was made taken down. */
  get outcome(): Promise<void> {
    return this.#outcome;
  }

  /** Of a guest that runs here before all of its pages have come. */
  get arrival(): ArrivalState | undefined {
    return this.#phase === 'running' ? this.#postcopy?.state : undefined;
  }

  /** A connection was accepted. Returns who takes its messages. */
  accept(inlet: Inlet): (message: DestinationMessage) => void {
    const connection: MigrationConnection = { inlet, hello: undefined, ended: false, recalled: false };
    return message => {
      try {
        this.#take(connection, message);
      } catch (error) {
        this.#refuse(connection, error as Error);
      }
    };
  }

  /** The destination's operator gives the guest up. */
  cancel(reason: string): boolean {
    if (this.#phase === 'running' || this.#go) return false;
    this.#fail(new MigrationCancelled(reason));
    return true;
  }

  #take(connection: MigrationConnection, message: DestinationMessage): void {
    if (message.kind === 'hello') {
      this.#greet(connection, message.hello);
      return;
    }
    if (message.kind === 'closed') {
      this.#closed(connection, message.error);
      return;
    }
    const { hello } = connection;
    if (hello === undefined || hello.purpose === 'inquire')
      throw new StreamError('order', `${message.kind} from an unknown sender`);
    if (message.kind === 'end') {
      connection.ended = true;
      this.#completeMaybe();
      return;
    }
    if (message.kind === 'recall') {
      this.#recall(connection);
      return;
    }
    if (message.kind === 'missing') {
      this.#expectPhase('receiving', message.kind);
      if (this.#postcopy === undefined) throw new StreamError('order', 'missing, which was not agreed on');
      this.#postcopy.expect(message);
      return;
    }
    if (message.kind === 'rest') {
      this.#postcopy?.rest(this.#connections.count).catch(error => this.#refuse(connection, error));
      return;
    }
    // All but pages comes over the first connection.
    if (hello.connection !== 0)
      throw new StreamError('order', `${message.kind} on connection ${hello.connection}`);
    switch (message.kind) {
      case 'memory':
        this.#expectPhase('waiting', message.kind);
        if (this.#memoryNamed) throw new StreamError('order', 'memory came again');
        this.#createMemory(connection, message.regions);
        return;
      case 'round':
        this.#expectPhase('receiving', message.kind);
        this.#round = message.round;
        this.#notify();
        return;
      case 'state':
      case 'ahead':
      case 'patch':
        this.#expectPhase('receiving', message.kind);
        this.#states.take(message, this.#ram?.slots ?? 0);
        return;
      case 'rehearse':
        this.#expectPhase('receiving', message.kind);
        this.#rehearse(message.number);
        return;
      case 'go':
        this.#expectPhase('ready', message.kind);
        this.#run();
        return;
      case 'cancel':
        if (this.#phase !== 'running') this.#fail(new MigrationCancelled(message.reason));
        return;
    }
  }

  #greet(connection: MigrationConnection, hello: Hello): void {
    if (hello.purpose === 'inquire') {
      this.#inquired(connection, hello);
      return;
    }
    if (hello.purpose === 'recover') {
      this.#recover(connection, hello);
      return;
    }
    if (hello.connection === 0) {
      if (this.#id !== undefined) {
        const there = this.#phase === 'running' ? 'a guest runs here already' : 'another guest is on its way';
        throw new MigrationError(`${there}; each needs an \`aerostat receive\` of its own`);
      }
      this.#id = hello.id;
      this.#features = featuresTaken(hello.features, this.#options.machine);
      this.#states.agreed = (this.#features & FEATURE_AHEAD) !== 0;
    } else {
      this.#expectPhase('receiving', 'hello');
      if (!this.#isOurs(hello.id)) throw new StreamError('order', 'a connection of another migration');
    }
    this.#connections.add(connection, hello);
    if (this.#ram !== undefined) this.#receiveOn(connection);
  }

  /** The source lost us after it had handed the guest over; or a stranger asks. */
  #inquired(connection: MigrationConnection, { id }: Hello): void {
    const refused = refusalOf(new MigrationError('no such guest is here'));
    const answer = () =>
      this.#replyAndClose(connection, this.#phase === 'running' ? { kind: 'running' } : refused);
    if (!this.#isOurs(id)) {
      // Whatever runs here: its guest is elsewhere, or nowhere.
      this.#replyAndClose(connection, refused);
    } else if (this.#phase === 'ready') {
      // The asker has handed it over: this is the `go` that was lost.
      this.#run();
      this.#busy.then(answer);
    } else {
      // Anything earlier, and the source has taken the guest back before it could ask.
      if (this.#phase !== 'running')
        this.#fail(new MigrationError('the source asked for a guest that is not all here'));
      this.#busy.then(answer);
    }
  }

  #isOurs(id: Uint8Array): boolean {
    return this.#id !== undefined && Buffer.compare(this.#id, id) === 0;
  }

  #createMemory(connection: MigrationConnection, regions: readonly RegionShape[]): void {
    const { memoryBytesMax, machine, ramOf } = this.#options;
    checkRoom(regions, memoryBytesMax);
    this.#memoryNamed = true;
    this.#then(async () => {
      await machine.createMemory(regions, (this.#features & FEATURE_POSTCOPY) !== 0);
      if (this.#phase !== 'waiting') return;
      this.#ram = ramOf();
      this.#held = new SlotBitmap(this.#ram.slots);
      this.#postcopy = PostcopyArrival.open(this.#features, this.#ram, this.#held, this.#options);
      if (this.#postcopy === undefined) this.#features &= ~FEATURE_POSTCOPY;
      this.#enter('receiving');
      this.#receiveOn(connection);
      await connection.inlet.reply({ kind: 'welcome', features: this.#features });
    });
  }

  /** The source comes again to a guest that runs here, and hears what it is to bring. */
  #recover(connection: MigrationConnection, hello: Hello): void {
    const arrival = this.#postcopy;
    if (!this.#isOurs(hello.id) || this.#phase !== 'running' || arrival?.expected !== true) {
      throw new MigrationError('no guest is here that waits for pages of it');
    }
    if (hello.connection === 0) this.#connections.drop();
    this.#connections.add(connection, hello);
    this.#receiveOn(connection);
    arrival.receiveOver(connection.inlet);
    if (hello.connection === 0) void arrival.recover(connection.inlet, this.#features);
  }

  #receiveOn({ inlet }: MigrationConnection): void {
    if (this.#ram === undefined || this.#held === undefined) throw new StreamError('order', 'no memory yet');
    inlet.receiveInto(this.#ram, this.#held, this.#features);
  }

  /** The states are here that were sent ahead: the machine makes ready for them while the guest runs at the source. */
  #rehearse(number: number): void {
    const { machine, clock } = this.#options;
    const prepare = this.#states.rehearsal(number, machine, clock);
    this.#then(async () => {
      if (this.#phase !== 'receiving') return;
      await this.#answer({ kind: 'spent', steps: await prepare() }, { kind: 'rehearsed' });
    });
  }

  /** When every connection has come to its end, so has the memory. */
  #completeMaybe(): void {
    this.#expectPhase('receiving', 'end');
    if (!this.#connections.allEnded) return;
    const states = this.#states.complete(this.#ram?.slots ?? 0);
    this.#enter('loading');
    const watch = new PauseWatch(this.#options.clock);
    this.#then(async () => {
      await this.#options.machine.load(states, watch.note);
      if (this.#phase !== 'loading') return;
      this.#states.recall();
      watch.done('load/machine');
      this.#enter('ready');
      await this.#answer({ kind: 'spent', steps: watch.steps }, { kind: 'ready' });
    });
  }

  /**
   * The source has called a stop off, and its guest goes on there. When all connections have said so, nothing of the stop is
   * under way, and what came of it counts for nothing; pages come again when that is answered.
   */
  #recall(connection: MigrationConnection): void {
    const { machine } = this.#options;
    const agreed = (this.#features & FEATURE_RECALL) !== 0;
    const stopped = this.#phase === 'loading' || this.#phase === 'ready';
    if (!agreed || this.#go || (!stopped && this.#phase !== 'receiving')) {
      throw new StreamError('order', `recall came while ${this.#phase}`);
    }
    if (!this.#connections.recall(connection)) return;
    this.#enter('recalling');
    this.#states.recall();
    this.#then(async () => {
      if (stopped) await machine.unload?.();
      if (this.#phase !== 'recalling') return;
      this.#enter('receiving');
      await this.#answer({ kind: 'recalled' });
    });
  }

  /** On the source's word, which may come more than once: as `go`, and as a question when the answer was lost. */
  #run(): void {
    if (this.#go) return;
    this.#go = true;
    this.#lostSource.abort();
    const watch = new PauseWatch(this.#options.clock);
    this.#then(async () => {
      await this.#options.machine.run(watch.note);
      watch.done('run/machine');
      this.#states.clear();
      this.#enter('running');
      this.#postcopy?.begin(this.#connections.all.map(({ inlet }) => inlet));
      // If this does not arrive, the source will ask.
      const answered = this.#answer({ kind: 'spent', steps: watch.steps }, { kind: 'running' });
      // The pause ends at the source when it hears this, and those who waited for the guest may have much to do.
      await Promise.race([answered, this.#options.clock.sleep(ANSWER_MS)]);
      this.#settle?.resolve();
      await answered;
    });
  }

  /** Over the first connection, which may be gone. */
  async #answer(...replies: readonly Parameters<Inlet['reply']>[0][]): Promise<void> {
    for (const reply of replies) await this.#connections.first?.reply(reply).catch(() => {});
  }

  #closed(connection: MigrationConnection, error: Error | undefined): void {
    const { hello } = connection;
    this.#postcopy?.pause(connection.inlet);
    const ours = hello?.purpose === 'migrate' && this.#connections.has(connection);
    if (!ours) {
      if (error instanceof StreamError) throw error;
      connection.inlet.close(false);
      return;
    }
    if (this.#phase === 'running' || this.#phase === 'failed' || this.#go) return;
    const gone = new MigrationError('the source is gone; if it still runs, so does the guest there', {
      cause: error,
    });
    // One that dies while it writes leaves a section in pieces: it is gone, and did not talk nonsense.
    if (error instanceof StreamError) throw error.fault === 'truncated' ? gone : error;
    // All that it had to bring is here; the rest comes over the first.
    if (connection.ended && hello.connection !== 0) return;
    if (this.#phase === 'ready') {
      this.#awaitInquiry();
      return;
    }
    this.#fail(gone);
  }

  /** The source may have let the guest go, or not: only it knows. */
  #awaitInquiry(): void {
    const { clock, inquiryMsMax = INQUIRY_MS_MAX } = this.#options;
    clock.sleep(inquiryMsMax, this.#lostSource.signal).then(() => {
      if (this.#go || this.#phase !== 'ready') return;
      const waited = `${inquiryMsMax / 1e3} s`;
      this.#fail(
        new MigrationError(
          `the source was lost at the hand-over and did not ask for the guest within ${waited}; the guest is not run here`,
        ),
      );
    });
  }

  /** One connection made no sense. A stranger's costs only itself. */
  #refuse(connection: MigrationConnection, error: Error): void {
    const { hello } = connection;
    const ours = hello?.purpose === 'migrate' && this.#connections.has(connection);
    if (ours && this.#phase !== 'running' && !this.#go) this.#fail(error);
    else this.#replyAndClose(connection, refusalOf(error));
  }

  #fail(error: Error): void {
    if (this.#phase === 'failed' || this.#phase === 'running' || this.#go) return;
    this.#enter('failed');
    this.#lostSource.abort();
    this.#states.clear();
    for (const connection of this.#connections.all) this.#replyAndClose(connection, refusalOf(error));
    this.#busy = this.#busy
      .then(() => this.#options.machine.abandon(error))
      .catch(() => {})
      .then(() => this.#settle?.reject(error));
  }

  #replyAndClose({ inlet }: MigrationConnection, reply: Parameters<Inlet['reply']>[0]): void {
    inlet
      .reply(reply)
      .catch(() => {})
      .then(() => inlet.close(true));
  }

  /** Does something with the machine after what is under way; its failure is the migration's. */
  #then(act: () => Promise<void>): void {
    this.#busy = this.#busy.then(act).catch((error: Error) => {
      this.#go = false;
      this.#fail(error);
    });
  }

  #expectPhase(phase: DestinationPhase, what: string): void {
    if (this.#phase !== phase) throw new StreamError('order', `${what} came while ${this.#phase}`);
  }

  #enter(phase: DestinationPhase): void {
    this.#phase = phase;
    this.#notify();
  }

  #notify(): void {
    this.#options.observer?.(this.#phase, this.#round);
  }
}
