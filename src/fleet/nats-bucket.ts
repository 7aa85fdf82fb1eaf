/**
 * One of a fleet's key-value buckets in JetStream. What is stored in it is published again by the server: a host hears of
 * it over a plain subscription, which survives the loss of a server. What the values mean is not known here.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { KV } from '@nats-io/kv';
import type { Msg, NatsConnection } from '@nats-io/transport-node';
import type { Bucket, Entry } from './bus.ts';
import { RevisionError } from './errors.ts';
import { storeFailure } from './nats-errors.ts';

/** JetStream's own numbers for a revision that is another one. */
const WRONG_LAST_SEQUENCE = [10_071, 10_164];

/** Keys whose values are asked for at a time. */
const ASKED_AT_ONCE = 64;

export class NatsBucket implements Bucket {
  readonly #connection: NatsConnection;
  readonly #manager: JetStreamManager;
  readonly #kv: KV;
  readonly #name: string;
  readonly #stored: string;

  /** @param stored where the server publishes again what is stored */
  constructor(
    connection: NatsConnection,
    manager: JetStreamManager,
    kv: KV,
    { name, stored }: { readonly name: string; readonly stored: string },
  ) {
    this.#connection = connection;
    this.#manager = manager;
    this.#kv = kv;
    this.#name = name;
    this.#stored = stored;
  }

  create(key: string, text: string): Promise<number> {
    return this.#try(key, () => this.#kv.create(key, text));
  }

  update(key: string, text: string, revision: number): Promise<number> {
    return this.#try(key, () => this.#kv.update(key, text, revision));
  }

  put(key: string, text: string): Promise<number> {
    return this.#try(key, () => this.#kv.put(key, text));
  }

  async get(key: string): Promise<Entry | null> {
    const found = await this.#try(key, () => this.#kv.get(key));
    if (found === null || found.operation !== 'PUT') return null;
    return { key, revision: found.revision, bytes: found.value };
  }

  delete(key: string): Promise<void> {
    return this.#try(key, () => this.#kv.purge(key));
  }

  /**
   * Key by key, by questions that are answered or not. A consumer that is to bring all keys can be lost with its server,
   * and then brings none, without an end (seen with nats-server 2.9).
   */
  async all(): Promise<readonly Entry[]> {
    const keys = await this.#try('all keys', () => this.#keys());
    const entries: Entry[] = [];
    for (let at = 0; at < keys.length; at += ASKED_AT_ONCE) {
      const found = await Promise.all(keys.slice(at, at + ASKED_AT_ONCE).map(key => this.get(key)));
      entries.push(...found.filter(entry => entry !== null));
    }
    return entries;
  }

  async #keys(): Promise<string[]> {
    const prefix = `$KV.${this.#name}.`;
    const { state } = await this.#manager.streams.info(`KV_${this.#name}`, { subjects_filter: `${prefix}>` });
    return Object.keys(state.subjects ?? {}).map(subject => subject.slice(prefix.length));
  }

  watch(stored: (entry: Entry) => void, deleted: (key: string) => void = () => {}): () => void {
    // The server publishes `$KV.BUCKET.KEY` again as `STORED.$KV.BUCKET.KEY`, with the revision in a header.
    const subscription = this.#connection.subscribe(`${this.#stored}.>`, {
      callback: (error, { subject, data, headers }: Msg) => {
        const revision = Number(headers?.get('Nats-Sequence'));
        if (error !== null || !Number.isSafeInteger(revision)) return;
        const key = subject
          .slice(this.#stored.length + 1)
          .split('.')
          .slice(2)
          .join('.');
        if (headers?.has('KV-Operation')) deleted(key);
        else stored({ key, revision, bytes: data });
      },
    });
    return () => subscription.unsubscribe();
  }

  async #try<Value>(key: string, action: () => Promise<Value>): Promise<Value> {
    try {
      return await action();
    } catch (error) {
      if (WRONG_LAST_SEQUENCE.includes((error as { code?: number }).code ?? 0)) {
        throw new RevisionError(key, { cause: error });
      }
      throw storeFailure(key, error);
    }
  }
}
