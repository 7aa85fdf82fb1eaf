/**
 * A bus in this process: buckets with revisions, questions, a record. It can be silent, as NATS without a quorum is, and
 * parted from one of its users, whose questions and answers are then lost.
 */
import {
  BUCKETS,
  type Bucket,
  type BucketName,
  type Bus,
  type BusState,
  type Entry,
  type Recorded,
  type Since,
} from '../../src/fleet/bus.ts';
import { FleetUnreachableError, RevisionError } from '../../src/fleet/errors.ts';

export class FakeBucket implements Bucket {
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Set<{ stored: (entry: Entry) => void; deleted: (key: string) => void }>();
  #revision = 0;
  /** No majority: nothing is read or written. */
  silent = false;
  /** Writes are stored, and their answers lost. */
  deaf = false;
  writes = 0;

  async create(key: string, text: string): Promise<number> {
    this.#answer();
    if (this.#entries.has(key)) throw new RevisionError(key);
    return this.#store(key, text);
  }

  async update(key: string, text: string, revision: number): Promise<number> {
    this.#answer();
    if ((this.#entries.get(key)?.revision ?? 0) !== revision) throw new RevisionError(key);
    return this.#store(key, text);
  }

  async put(key: string, text: string): Promise<number> {
    this.#answer();
    return this.#store(key, text);
  }

  async get(key: string): Promise<Entry | null> {
    this.#answer();
    return this.#entries.get(key) ?? null;
  }

  async delete(key: string): Promise<void> {
    this.#answer();
    this.expire(key);
    for (const { deleted } of this.#watchers) deleted(key);
  }

  async all(): Promise<readonly Entry[]> {
    this.#answer();
    return [...this.#entries.values()];
  }

  watch(stored: (entry: Entry) => void, deleted: (key: string) => void = () => {}): () => void {
    const watcher = { stored, deleted };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Its time to live is over: no watcher is told. */
  expire(key: string): void {
    this.#entries.delete(key);
  }

  #answer(): void {
    if (this.silent) throw new FleetUnreachableError('JetStream: it does not answer in time');
  }

  #store(key: string, text: string): number {
    this.writes++;
    const entry = { key, revision: ++this.#revision, bytes: new TextEncoder().encode(text) };
    this.#entries.set(key, entry);
    for (const { stored } of this.#watchers) stored(entry);
    if (this.deaf) throw new FleetUnreachableError('JetStream: it does not answer in time');
    return entry.revision;
  }
}

/** What all buses of a test share. */
export class FakeNats {
  readonly buckets = Object.fromEntries(BUCKETS.map(name => [name, new FakeBucket()])) as Record<
    BucketName,
    FakeBucket
  >;
  readonly recorded: Recorded[] = [];
  /** What the credentials of buses that are opened from now on do not allow. */
  denied: string | null = null;
  readonly #ids = new Set<string>();
  readonly #listeners = new Set<(state: BusState) => void>();
  readonly #served = new Map<string, Set<(bytes: Uint8Array) => Promise<string | undefined>>>();

  /** What the connections of all buses become. */
  become(state: BusState): void {
    for (const listener of this.#listeners) listener(state);
  }

  bus(): Bus {
    const state: BusState = 'connected';
    return {
      state,
      server: 'fake',
      buckets: this.buckets,
      onState: listener => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      denied: this.denied,
      onTrouble: () => () => {},
      ask: (to, text) => this.ask(to, text),
      serve: (at, answer) => {
        const answers = this.#served.get(at) ?? new Set();
        this.#served.set(at, answers.add(answer));
        return () => answers.delete(answer);
      },
      record: async (text, id) => {
        if (this.#ids.has(id)) return;
        this.#ids.add(id);
        const sequence = this.recorded.length + 1;
        this.recorded.push({ sequence, timeMs: 0, bytes: new TextEncoder().encode(text) });
      },
      recorded: async function* (this: FakeNats, since?: Since): AsyncIterable<Recorded> {
        const { after, last } = since ?? { after: 0, last: this.recorded.length };
        yield* this.recorded.filter(({ sequence }) => sequence > after).slice(-last);
      }.bind(this),
      close: async () => {},
    };
  }

  async ask(to: string, text: string): Promise<Uint8Array> {
    for (const answer of this.#served.get(to) ?? []) {
      const said = await answer(new TextEncoder().encode(text));
      if (said !== undefined) return new TextEncoder().encode(said);
    }
    throw new FleetUnreachableError(`${to}: no agent listens`);
  }
}
