/**
 * A fleet as a person's command sees it: the hosts' reports, who leads, and questions to the leader. It is of no host, writes
 * nothing that is stored, and orders nothing itself.
 */
import { randomUUID } from 'node:crypto';
import type { Bus, Since } from './bus.ts';
import { FleetRefusalError, FleetUnreachableError } from './errors.ts';
import { type HostSeen, HostsSeen } from './hosts-seen.ts';
import {
  type LeaderAnswer,
  type LeaderQuestion,
  type OrderOutcome,
  readMessage,
  VERSION,
  type WishRecord,
  writeMessage,
} from './messages.ts';

const ANSWER_MS = 2000;
/** A leader that has died is followed by then. */
const PATIENCE_MS = 15_000;
const PAUSE_MS = 100;

/** Without what the client adds. */
type Asked<Question> = Question extends LeaderQuestion ? Omit<Question, 'version' | 'id'> : never;

export class FleetClient {
  readonly #bus: Bus;
  readonly #hosts: HostsSeen;
  readonly #now: () => number;
  readonly #sleep: (ms: number) => Promise<void>;
  readonly #leave: () => void;

  private constructor(bus: Bus, now: () => number, sleep: (ms: number) => Promise<void>) {
    this.#bus = bus;
    this.#now = now;
    this.#sleep = sleep;
    this.#hosts = new HostsSeen(now, () => {});
    this.#leave = bus.buckets.hosts.watch(
      entry => this.#hosts.heard(entry),
      key => this.#hosts.gone(key),
    );
  }

  /** @throws FleetUnreachableError, FleetRefusalError */
  static async over(bus: Bus, now: () => number, sleep: (ms: number) => Promise<void>): Promise<FleetClient> {
    const client = new FleetClient(bus, now, sleep);
    for (const entry of await client.#patiently(() => bus.buckets.hosts.all())) client.#hosts.found(entry);
    // The server has read our subscription by now. Without it no report would ever seem to change.
    if (bus.denied !== null) throw new FleetRefusalError(bus.denied);
    return client;
  }

  get hosts(): readonly HostSeen[] {
    return this.#hosts.all();
  }

  get messagesRefused() {
    return this.#hosts.refusals;
  }

  /** Waits until each report was seen to change, for as long as its host should need for that at most. */
  async look(): Promise<readonly HostSeen[]> {
    const periods = this.hosts.map(({ report }) => report.periodMs);
    const endMs = this.#now() + Math.min(5000, Math.max(0, ...periods) * 1.5);
    while (this.#now() < endMs && this.hosts.some(({ ageMs }) => ageMs === null)) await this.#sleep(PAUSE_MS);
    return this.hosts;
  }

  /** Who leads by the key; the leader itself is not asked. */
  async leader(): Promise<{ readonly host: string; readonly epoch: number } | null> {
    const entry = await this.#patiently(() => this.#bus.buckets.leader.get('leader'));
    const read = entry === null ? undefined : readMessage('leader', entry.bytes);
    if (entry === null || read === undefined || !('value' in read)) return null;
    return { host: read.value.host, epoch: read.value.epoch ?? entry.revision };
  }

  async wishes(): Promise<WishRecord> {
    const entry = await this.#patiently(() => this.#bus.buckets.wishes.get('wishes'));
    const read = entry === null ? undefined : readMessage('wishes', entry.bytes);
    return read !== undefined && 'value' in read
      ? read.value
      : { version: VERSION, draining: [], moves: [], ended: [] };
  }

  /** How the wish ended; null while it has not. */
  async endOf(id: string): Promise<OrderOutcome | null> {
    return (await this.wishes()).ended.find(outcome => outcome.id === id) ?? null;
  }

  /**
   * Asks the leader, and the next one when it is gone: with the same id, so that nothing is wished twice.
   * @throws FleetRefusalError, FleetUnreachableError
   */
  async ask(asked: Asked<LeaderQuestion>): Promise<LeaderAnswer & { readonly id: string }> {
    const id = randomUUID();
    const question = (
      asked.ask === 'plan' ? { ...asked, version: VERSION } : { ...asked, version: VERSION, id }
    ) as LeaderQuestion;
    return this.#patiently(async () => {
      const bytes = await this.#bus.ask('leader', writeMessage('leaderQuestion', question), ANSWER_MS);
      const read = readMessage('leaderAnswer', bytes);
      if ('refusal' in read)
        throw new FleetRefusalError(`the leader answers in words that are not understood: ${read.why}`);
      if (read.value.refusal !== null) throw new FleetRefusalError(read.value.refusal);
      return { ...read.value, id };
    });
  }

  /** What is not answered is asked again: a leader, or a server of NATS, may have to be followed first. */
  async #patiently<Value>(action: () => Promise<Value>): Promise<Value> {
    for (const endMs = this.#now() + PATIENCE_MS; ; await this.#sleep(PAUSE_MS)) {
      try {
        return await action();
      } catch (error) {
        if (!(error instanceof FleetUnreachableError) || this.#now() >= endMs) throw error;
      }
    }
  }

  recorded(since?: Since): ReturnType<Bus['recorded']> {
    return this.#bus.recorded(since);
  }

  async close(): Promise<void> {
    this.#leave();
    await this.#bus.close();
  }
}
