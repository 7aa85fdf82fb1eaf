/**
 * All connections of a migration at the source, as one: made, greeted, written to together, and heard over the first. What
 * is said when, and what becomes of the guest, is {@link ./source.ts}'s.
 */
import { MigrationError } from './errors.ts';
import { featuresAgreed, featuresToOffer } from './features.ts';
import type { Clock } from './machine.ts';
import { answerMsMax } from './patience.ts';
import type { Ram } from './ram.ts';
import type {
  DestinationAnswer,
  Link,
  LinkProgress,
  PostcopyListener,
  SourceMessage,
} from './source-link.ts';
import { FEATURE_AHEAD, FEATURE_POSTCOPY, FEATURE_RECALL, shapeOf } from './stream/messages.ts';

/** What the destination says when it is asked whether it has taken over. */
export type Inquiry = 'running' | 'absent' | 'unreachable';

export interface Connector {
  /** Opens connection `index` of `count`. */
  open(index: number, count: number): Promise<Link>;
  /**
   * Asks, over a new connection, what became of the migration `id`; tries again for `msMax`, or for as long as that makes
   * sense where it is left out.
   */
  inquire(id: Uint8Array, msMax?: number): Promise<Inquiry>;
}

interface SourceLinksOptions {
  readonly id: Uint8Array;
  readonly ram: Ram;
  readonly connector: Connector;
  readonly connections: number;
  readonly compress?: boolean;
  /** Offer to send states ahead. */
  readonly ahead?: boolean;
  /** Pages may come when the guest runs there. */
  readonly postcopy?: object | undefined;
  readonly clock: Clock;
  /** No answer is waited for any more. */
  readonly cancelled: AbortSignal;
}

const NOTHING_SENT: LinkProgress = { pages: 0, zeroPages: 0, zeroPagesSent: 0, resentPages: 0, bytes: 0 };

export class SourceLinks {
  readonly #options: SourceLinksOptions;
  readonly #links: Link[] = [];
  /** Over connections that are gone. */
  #sentBefore = NOTHING_SENT;
  #features = 0;

  constructor(options: SourceLinksOptions) {
    this.#options = options;
  }

  /** States may be sent ahead: both sides agreed on it. */
  get ahead(): boolean {
    return (this.#features & FEATURE_AHEAD) !== 0;
  }

  /** A stop may be called off, and before it the destination tells what it has: both sides agreed on it. */
  get recallable(): boolean {
    return (this.#features & FEATURE_RECALL) !== 0;
  }

  /** Those that are open; they become more. */
  get all(): readonly Link[] {
    return this.#links;
  }

  /** Makes them all, the first one alone until the destination has a place for pages. */
  async open(): Promise<void> {
    const { id, ram, connections, connector } = this.#options;
    const offered = this.#offered;
    const hello = { kind: 'hello', id, purpose: 'migrate', connections, features: offered } as const;
    const first = await connector.open(0, connections);
    this.#links.push(first);
    await first.send({ ...hello, connection: 0 });
    await first.send({ kind: 'memory', regions: shapeOf(ram.memory) });
    const welcome = await this.expect('welcome');
    const features = featuresAgreed(offered, welcome.features);
    this.#features = features;
    first.useFeatures(features);
    for (let index = 1; index < connections; index++) {
      const link = await connector.open(index, connections);
      this.#links.push(link);
      await link.send({ ...hello, connection: index });
      link.useFeatures(features);
    }
  }

  /**
   * Makes them anew, to a destination where the guest runs already. It says over the first what it has not got, which
   * `listener` hears before this resolves.
   */
  async recover(listener: PostcopyListener): Promise<void> {
    const { id, connections, connector } = this.#options;
    this.#sentBefore = this.sent;
    for (const link of this.#links.splice(0)) link.close(false);
    const offered = this.#offered;
    for (let index = 0; index < connections; index++) {
      const link = await connector.open(index, connections);
      this.#links.push(link);
      link.listen(listener);
      await link.send({
        kind: 'hello',
        id,
        purpose: 'recover',
        connection: index,
        connections,
        features: offered,
      });
      if (index === 0) {
        await this.expect('welcome');
        await this.expect('ready');
      }
      link.useFeatures(offered);
    }
  }

  get #offered(): number {
    const { compress = false, ahead = false, postcopy } = this.#options;
    // Who writes a guest into a file asks for no answers.
    const more = (ahead ? FEATURE_RECALL : 0) | (postcopy === undefined ? 0 : FEATURE_POSTCOPY);
    return featuresToOffer(compress, undefined, ahead) | more;
  }

  /** Says something over the first, if there is one. */
  async tell(message: SourceMessage): Promise<void> {
    await this.#links[0]?.send(message);
  }

  async onAll(act: (link: Link, index: number) => Promise<void>): Promise<void> {
    const acts = this.#links.map((link, index) =>
      act(link, index).catch((error: Error) => {
        // One is lost, so the others need not go on; but all of them have to be at rest before the source goes on.
        this.interrupt();
        throw error;
      }),
    );
    const results = await Promise.allSettled(acts);
    const failed = results.find(result => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** All that a stop has brought counts for nothing. Resolves when the destination is as it was, and pages may go on. */
  async recall(): Promise<void> {
    await this.onAll(link => link.send({ kind: 'recall' }));
    await this.expect('recalled');
  }

  /**
   * Resolves when the destination has in its memory what was sent so far, as far as it tells; how long that took. What is
   * under way when the guest is stopped is what the guest waits for: the buffers on the way hold tens of megabytes.
   */
  async taken(): Promise<number> {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    // Of a stop that has not begun: it is answered behind all pages.
    if (this.recallable) await this.recall();
    return clock.nowMs() - startMs;
  }

  /** The next answer, which has to be this one and come in time, and before it is given up. */
  async expect<K extends DestinationAnswer['kind']>(
    kind: K,
    givenUp?: AbortSignal,
  ): Promise<DestinationAnswer & { kind: K }> {
    const { clock, ram, cancelled } = this.#options;
    const msMax = answerMsMax(kind, ram.slots);
    const waiting = new AbortController();
    const late = clock
      .sleep(msMax, AbortSignal.any([waiting.signal, cancelled, ...(givenUp === undefined ? [] : [givenUp])]))
      .then((): DestinationAnswer => {
        cancelled.throwIfAborted();
        givenUp?.throwIfAborted();
        throw new MigrationError(`the destination did not answer ${kind} within ${msMax / 1e3} s`);
      });
    late.catch(() => {});
    try {
      // What is lost on any connection is missed by the destination, which then waits for it; once it has all, nothing is.
      const broken = kind === 'running' ? [] : this.#links.map(link => link.broken);
      const next = () => Promise.race([this.#links[0].answer(), late, ...broken]);
      let answer = await next();
      // What a stop was waiting for that was called off may have been on its way.
      if (kind === 'recalled' && answer.kind === 'ready') answer = await next();
      if (answer.kind === kind) return answer as DestinationAnswer & { kind: K };
      throw new MigrationError(`the destination answered ${answer.kind} where ${kind} was due`);
    } finally {
      waiting.abort();
    }
  }

  /** No more pages are sent. */
  interrupt(): void {
    for (const link of this.#links) link.interrupt();
  }

  /** What was sent still arrives. */
  close(): void {
    for (const link of this.#links) link.close(true);
  }

  get sent(): LinkProgress {
    return this.#links
      .map(link => link.progress())
      .reduce(
        (sum, one) => ({
          pages: sum.pages + one.pages,
          zeroPages: sum.zeroPages + one.zeroPages,
          zeroPagesSent: sum.zeroPagesSent + one.zeroPagesSent,
          resentPages: sum.resentPages + one.resentPages,
          bytes: sum.bytes + one.bytes,
        }),
        this.#sentBefore,
      );
  }
}
