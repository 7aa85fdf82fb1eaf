/**
 * What a fleet needs of its messaging: keys with revisions, questions with answers, and a record that only grows.
 * {@link Bus} is NATS in nats.ts, and a fake in tests. What the messages mean is messages.ts's.
 */

/** A value under a key; the revision is another one after each change. */
export interface Entry {
  readonly key: string;
  readonly revision: number;
  readonly bytes: Uint8Array;
}

/** Where a fleet keeps what all hosts see. */
export const BUCKETS = ['hosts', 'leader', 'wishes', 'orders'] as const;
export type BucketName = (typeof BUCKETS)[number];

/** @throws FleetUnreachableError each of them, when there is no answer in time; FleetRefusalError for want of a permission */
export interface Bucket {
  /** @throws RevisionError when there is a value */
  create(key: string, text: string): Promise<number>;
  /** @throws RevisionError when the value is another one */
  update(key: string, text: string, revision: number): Promise<number>;
  put(key: string, text: string): Promise<number>;
  get(key: string): Promise<Entry | null>;
  delete(key: string): Promise<void>;
  all(): Promise<readonly Entry[]>;
  /** Calls `stored` for each value that is stored from now on, `deleted` for each key, until the returned function is called. */
  watch(stored: (entry: Entry) => void, deleted?: (key: string) => void): () => void;
}

export interface Recorded {
  readonly sequence: number;
  /** Wall clock of the server that stored it, milliseconds since the epoch. For people: nothing is decided by it. */
  readonly timeMs: number;
  readonly bytes: Uint8Array;
}

/** A part of what is recorded: later than `after`, and of that the newest `last`. */
export interface Since {
  readonly after: number;
  readonly last: number;
}

export type BusState = 'connecting' | 'connected' | 'disconnected';

export interface Bus {
  readonly state: BusState;
  /** Of the server that it is connected to, for people. */
  readonly server: string | null;
  readonly buckets: Readonly<Record<BucketName, Bucket>>;
  /** Calls `listener` when the connection was lost, and when there is one again. */
  onState(listener: (state: BusState) => void): () => void;
  /** What the credentials do not allow and will be missed, such as a subscription; null while it is not known of any. */
  readonly denied: string | null;
  /** Calls `listener` with what a server refuses without having been asked a question. */
  onTrouble(listener: (why: string) => void): () => void;
  /**
   * @throws FleetUnreachableError when no program listens, or none answers in time: then it is not known whether the
   *   question arrived, and it may still arrive
   */
  ask(to: string, text: string, timeoutMs: number): Promise<Uint8Array>;
  /** Answers questions; an answer of undefined is none. */
  serve(at: string, answer: (bytes: Uint8Array) => Promise<string | undefined>): () => void;
  /** Resolves when it is stored; the same `id` twice is stored once. */
  record(text: string, id: string): Promise<void>;
  /** What is recorded by now, oldest first; all of it where `since` says nothing. */
  recorded(since?: Since): AsyncIterable<Recorded>;
  close(): Promise<void>;
}
