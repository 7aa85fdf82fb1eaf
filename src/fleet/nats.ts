/**
 * A fleet's messaging on NATS: its clients are loaded here and nowhere before, and only the files beside this one whose
 * names begin with nats know them. What the messages mean is not known here.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { JetStreamClient, JetStreamManager } from '@nats-io/jetstream';
import type { KV } from '@nats-io/kv';
import type { Authenticator, Msg, NatsConnection } from '@nats-io/transport-node';
import { monotonicMs } from '../sys/poll.ts';
import { BackOff } from './back-off.ts';
import {
  BUCKETS,
  type Bucket,
  type BucketName,
  type Bus,
  type BusState,
  type Recorded,
  type Since,
} from './bus.ts';
import { FleetRefusalError, FleetUnreachableError, NoAgentError } from './errors.ts';
import { MESSAGE_BYTES_MAX } from './messages.ts';
import { NatsBucket } from './nats-bucket.ts';
import { connectFailure, deniedIn, storeFailure } from './nats-errors.ts';
import { readServers } from './nats-servers.ts';

/** Credentials as NATS has them: contents of the files, not their paths. */
export interface Credentials {
  /** Of `--creds`: a JWT and its seed. */
  readonly creds?: string;
  /** Of `--nkey`: a seed. */
  readonly nkey?: string;
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
}

export interface BusOptions extends Credentials {
  readonly servers: readonly string[];
  /** Under which all of its keys and subjects are. */
  readonly fleet: string;
  /** How the server's own monitoring calls this connection. */
  readonly client: string;
  /** Copies of everything that is kept: as many servers must be there to keep it, and a majority must live. */
  readonly replicas: number;
  /** How long a value lives that is not written again; null for ever. */
  readonly lifeMs: Readonly<Record<BucketName, number | null>>;
  readonly timeoutMs: number;
  /** A host's: what is not there yet is made. Else it is an error. */
  readonly joins: boolean;
}

const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 4000;
/** Also when nothing is sent, a server that is gone is noticed. */
const PING_MS = 2000;
/** A person waits so long for servers that choose a leader. */
const CLIENT_PATIENCE_MS = 10_000;
const DAY_NS = 24 * 3600 * 1e9;
const AUDIT_BYTES_MAX = 1024 * 1024 * 1024;
/** The same event twice within this is one: longer than any host repeats itself. */
const DUPLICATES_NS = 120e9;

/** @throws FleetUnreachableError when no server lets us in, or JetStream is silent; FleetRefusalError */
export async function openBus(options: BusOptions): Promise<Bus> {
  const [
    { connect, credsAuthenticator, nkeyAuthenticator, tokenAuthenticator, usernamePasswordAuthenticator },
    { jetstream },
    { Kvm },
  ] = await Promise.all([
    import('@nats-io/transport-node'),
    import('@nats-io/jetstream'),
    import('@nats-io/kv'),
  ]);
  const { urls, login, tls } = readServers(options.servers, options.tls);
  const encoder = new TextEncoder();
  const authenticators: Authenticator[] = [
    ...(options.creds === undefined ? [] : [credsAuthenticator(encoder.encode(options.creds))]),
    ...(options.nkey === undefined ? [] : [nkeyAuthenticator(encoder.encode(options.nkey.trim()))]),
    ...(login === undefined
      ? []
      : [
          'token' in login
            ? tokenAuthenticator(login.token)
            : usernamePasswordAuthenticator(login.user, login.pass),
        ]),
  ];
  const pause = new BackOff(RECONNECT_MS_MIN, RECONNECT_MS_MAX);
  let connection: NatsConnection;
  try {
    connection = await connect({
      servers: [...urls],
      name: options.client,
      maxReconnectAttempts: -1,
      reconnectDelayHandler: () => pause.next(),
      // Credentials may be mended while an agent runs on.
      ignoreAuthErrorAbort: true,
      pingInterval: PING_MS,
      maxPingOut: 2,
      timeout: options.timeoutMs,
      noAsyncTraces: true,
      ...(authenticators.length === 0 ? {} : { authenticator: authenticators }),
      ...(tls === undefined ? {} : { tls }),
    });
  } catch (error) {
    throw connectFailure(urls, error);
  }
  const js = jetstream(connection, { timeout: options.timeoutMs });
  const bus = new NatsBus(connection, js, options, pause);
  try {
    const kvm = new Kvm(js);
    const open = (name: BucketName) =>
      options.joins
        ? kvm.create(bucketName(options.fleet, name), bucketOptions(options, name))
        : kvm.open(bucketName(options.fleet, name), { allow_direct: false });
    await patiently(options.joins ? 0 : CLIENT_PATIENCE_MS, () => bus.open(open));
    return bus;
  } catch (error) {
    await bus.close();
    throw error;
  }
}

/** Tries again what JetStream did not answer, as while its servers choose a leader. */
async function patiently(patienceMs: number, action: () => Promise<void>): Promise<void> {
  for (const endMs = monotonicMs() + patienceMs; ; await delay(RECONNECT_MS_MIN)) {
    try {
      return await action();
    } catch (error) {
      if (error instanceof FleetRefusalError) throw error;
      if (monotonicMs() >= endMs || deniedIn(error) !== null)
        throw storeFailure('what the fleet keeps', error);
    }
  }
}

const bucketName = (fleet: string, name: BucketName): string => `aerostat_${fleet}_${name}`;

const bucketOptions = ({ fleet, replicas, lifeMs, timeoutMs }: BusOptions, name: BucketName) => ({
  replicas,
  history: 1,
  timeout: timeoutMs,
  maxValueSize: MESSAGE_BYTES_MAX,
  // A copy that lags behind must not answer: who leads is read from here.
  allow_direct: false,
  republish: { src: '>', dest: `aerostat.${fleet}.stored.${name}.>` },
  ...(lifeMs[name] === null ? {} : { ttl: lifeMs[name] }),
});

class NatsBus implements Bus {
  readonly #connection: NatsConnection;
  readonly #js: JetStreamClient;
  readonly #options: BusOptions;
  readonly #listeners = new Set<(state: BusState) => void>();
  readonly #troubled = new Set<(why: string) => void>();
  #buckets: Record<BucketName, Bucket> | undefined;
  state: BusState = 'connected';
  denied: string | null = null;

  constructor(connection: NatsConnection, js: JetStreamClient, options: BusOptions, pause: BackOff) {
    this.#connection = connection;
    this.#js = js;
    this.#options = options;
    pause.reset();
    void this.#follow(pause);
  }

  async open(bucket: (name: BucketName) => Promise<KV>): Promise<void> {
    const manager = await this.#js.jetstreamManager();
    const opened = await Promise.all(
      BUCKETS.map(async name => {
        const kept = { name: bucketName(this.#options.fleet, name), stored: this.#stored(name) };
        return [name, new NatsBucket(this.#connection, manager, await bucket(name), kept)];
      }),
    );
    this.#buckets = Object.fromEntries(opened) as Record<BucketName, Bucket>;
    await this.#openAudit(manager);
  }

  get buckets(): Readonly<Record<BucketName, Bucket>> {
    return this.#buckets as Record<BucketName, Bucket>;
  }

  get server(): string | null {
    return this.state === 'connected' ? this.#connection.getServer() : null;
  }

  onState(listener: (state: BusState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onTrouble(listener: (why: string) => void): () => void {
    this.#troubled.add(listener);
    return () => this.#troubled.delete(listener);
  }

  async ask(to: string, text: string, timeoutMs: number): Promise<Uint8Array> {
    try {
      return (await this.#connection.request(this.#subject(to), text, { timeout: timeoutMs })).data;
    } catch (error) {
      const { message } = error as Error;
      const denied = deniedIn(error);
      if (denied !== null) throw new FleetRefusalError(denied);
      if (/no responders/i.test(message)) throw new NoAgentError(`${to}: no agent listens`, { cause: error });
      throw new FleetUnreachableError(`${to}: ${/timeout/i.test(message) ? 'no answer' : message}`, {
        cause: error,
      });
    }
  }

  serve(at: string, answer: (bytes: Uint8Array) => Promise<string | undefined>): () => void {
    const subscription = this.#connection.subscribe(this.#subject(at), {
      callback: (error, message: Msg) => {
        if (error !== null) return;
        answer(message.data).then(
          text => {
            if (text !== undefined && !this.#connection.isClosed()) message.respond(text);
          },
          () => {},
        );
      },
    });
    return () => subscription.unsubscribe();
  }

  async record(text: string, id: string): Promise<void> {
    try {
      await this.#js.publish(this.#subject('audit'), text, { msgID: id, timeout: this.#options.timeoutMs });
    } catch (error) {
      throw storeFailure('the audit stream', error);
    }
  }

  async *recorded(since?: Since): AsyncIterable<Recorded> {
    const from = since === undefined ? 1 : await this.#firstOf(since);
    if (from === undefined) return;
    const consumer = await this.#js.consumers.get(this.#auditStream, { opt_start_seq: from });
    try {
      let { num_pending: left } = await consumer.info();
      while (left > 0) {
        const max_messages = Math.min(left, 500);
        const before = left;
        for await (const message of await consumer.fetch({
          max_messages,
          expires: this.#options.timeoutMs,
        })) {
          left--;
          yield { sequence: message.seq, timeMs: message.time.getTime(), bytes: message.data };
        }
        if (left === before) throw new FleetUnreachableError('the audit stream does not answer in time');
      }
    } finally {
      // The server would keep it for minutes.
      await consumer.delete().catch(() => {});
    }
  }

  /** Undefined where there is none. */
  async #firstOf({ after, last }: Since): Promise<number | undefined> {
    try {
      const manager = await this.#js.jetstreamManager();
      const { state } = await manager.streams.info(this.#auditStream);
      const from = Math.max(1, after + 1, state.last_seq - last + 1);
      return from > state.last_seq ? undefined : from;
    } catch (error) {
      throw storeFailure('the audit stream', error);
    }
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    this.#troubled.clear();
    await this.#connection.close();
  }

  get #auditStream(): string {
    return `aerostat_${this.#options.fleet}_audit`;
  }

  #subject(of: string): string {
    return `aerostat.${this.#options.fleet}.${of}`;
  }

  #stored(name: BucketName): string {
    return this.#subject(`stored.${name}`);
  }

  async #openAudit(manager: JetStreamManager): Promise<void> {
    try {
      await manager.streams.info(this.#auditStream);
    } catch (error) {
      if ((error as { code?: number }).code !== STREAM_NOT_FOUND) throw error;
      if (!this.#options.joins)
        throw new FleetRefusalError(`no fleet ${this.#options.fleet} is kept there; join a host to it first`);
      await manager.streams.add({
        name: this.#auditStream,
        subjects: [this.#subject('audit')],
        num_replicas: this.#options.replicas,
        max_age: 90 * DAY_NS,
        max_bytes: AUDIT_BYTES_MAX,
        duplicate_window: DUPLICATES_NS,
        deny_delete: true,
      });
    }
  }

  async #follow(pause: BackOff): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type === 'disconnect') this.#become('disconnected');
      if (status.type === 'error') this.#tell(status.error);
      if (status.type === 'reconnect') {
        pause.reset();
        this.#become('connected');
      }
    }
  }

  /** What belongs to a question of ours is thrown to who asked it; the rest is told here. */
  #tell(error: Error): void {
    const denied = deniedIn(error);
    if (denied !== null) {
      // A subscription that is denied is not made again; an answer that is denied is never heard.
      const isOwn = / subscribe to | publish to _INBOX/.test(denied);
      if (!isOwn) return;
      this.denied = denied;
    }
    const why = denied ?? connectFailure([this.#connection.getServer()], error).message;
    for (const listener of this.#troubled) listener(why);
  }

  #become(state: BusState): void {
    this.state = state;
    for (const listener of this.#listeners) listener(state);
  }
}

/** JetStream's own number for a stream that is not there. */
const STREAM_NOT_FOUND = 10_059;
