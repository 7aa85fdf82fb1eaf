/**
 * One connection at the source: pages of its share, messages, and the destination's answers. Links of other threads
 * look the same ({@link Link}).
 */
import type { ByteChannel } from './byte-channel.ts';
import { MigrationError } from './errors.ts';
import { compressionUnder } from './features.ts';
import type { Clock } from './machine.ts';
import type { PageSender, SentCounts } from './page-sender.ts';
import type { PauseStep } from './pause.ts';
import {
  type Hello,
  type RegionShape,
  readBare,
  readRefused,
  readSpent,
  readWelcome,
  type StateSection,
  writeBare,
  writeCancel,
  writeEnd,
  writeHello,
  writeMemory,
  writeRehearse,
  writeRound,
  writeState,
} from './stream/messages.ts';
import {
  type FaultCounts,
  type MissingPages,
  readArrived,
  readMissing,
  readWant,
  type Want,
} from './stream/postcopy-messages.ts';
import { type SectionName, StreamError } from './stream/section.ts';
import { SectionReader } from './stream/section-reader.ts';
import { SectionWriter } from './stream/section-writer.ts';
import type { TokenBucket } from './token-bucket.ts';

/** A state, or what is said of one. */
interface StateMessage {
  readonly kind: StateSection;
  readonly name: string;
  readonly bytes: Uint8Array;
}

const isState = (message: SourceMessage): message is StateMessage =>
  message.kind === 'state' || message.kind === 'ahead' || message.kind === 'patch';

/** What the source says besides pages; plain data, so that it can go to another thread. */
export type SourceMessage =
  | ({ readonly kind: 'hello' } & Hello)
  | { readonly kind: 'memory'; readonly regions: readonly RegionShape[] }
  | { readonly kind: 'round'; readonly round: number }
  | StateMessage
  /** All states were sent ahead, for the time of this number. */
  | { readonly kind: 'rehearse'; readonly number: number }
  /** No page comes after it; the link adds up what came before. */
  | { readonly kind: 'end' }
  /** Nothing more of what was missing comes over this connection. */
  | { readonly kind: 'rest' }
  /** What a stop has brought so far counts for nothing: the guest goes on here, and so do its pages. */
  | { readonly kind: 'recall' }
  | { readonly kind: 'go' }
  | { readonly kind: 'cancel'; readonly reason: string };

export type DestinationAnswer =
  | { readonly kind: 'welcome'; readonly features: number }
  /** `spent` is where the destination's time went since the answer before. */
  | { readonly kind: 'ready' | 'rehearsed' | 'recalled' | 'running'; readonly spent?: readonly PauseStep[] }
  | ({ readonly kind: 'arrived' } & FaultCounts);

/** Takes what a destination says, at any time, whose guest waits for pages. @throws StreamError when it says too much */
export interface PostcopyListener {
  /** Pages of the guest. */
  readonly slots: number;
  want(want: Want): void;
  missing(missing: MissingPages): void;
}

/** What makes sections in `writer`, one after the other: the next, or undefined when there is none now. */
interface Sections {
  next(writer: SectionWriter): Uint8Array | undefined;
}

/** One connection of a migration, wherever its bytes are moved. */
export interface Link {
  send(message: SourceMessage): Promise<void>;
  /** Sends pages of this link's share until none is dirty, or other sections until there are none, or it is interrupted. */
  sendPages(sections?: Sections): Promise<void>;
  /** Before the guest is let go that waits for pages. */
  listen(listener: PostcopyListener): void;
  /** From now on no pages are sent; a round under way ends after the section that is being sent. */
  interrupt(): void;
  /** What was sent so far. */
  progress(): LinkProgress;
  /** The next answer of the destination. @throws MigrationError when it refuses or is gone */
  answer(): Promise<DestinationAnswer>;
  /** Rejects when the connection is gone or breaks the protocol. */
  readonly broken: Promise<never>;
  /** Since when the destination has not taken what was written; undefined while nothing waits for it. */
  readonly waitingSinceMs: number | undefined;
  useFeatures(features: number): void;
  /** `graceful`: what was sent still arrives. */
  close(graceful: boolean): void;
}

export interface LinkProgress extends Readonly<SentCounts> {
  /** Bytes of sections, headers included. */
  readonly bytes: number;
}

interface SourceLinkOptions {
  readonly channel: ByteChannel;
  readonly sender: PageSender;
  readonly bucket: TokenBucket;
  readonly clock: Clock;
}

export class SourceLink implements Link {
  readonly #channel: ByteChannel;
  readonly #sender: PageSender;
  readonly #bucket: TokenBucket;
  readonly #clock: Clock;
  readonly broken: Promise<never>;
  readonly #writer = new SectionWriter();
  readonly #answers: DestinationAnswer[] = [];
  #spent: readonly PauseStep[] = [];
  /** Waits for an answer, or learns that none will come. */
  #waiting: { resolve(answer: DestinationAnswer): void; reject(error: Error): void } | undefined;
  #failure: Error | undefined;
  #break: (error: Error) => void = () => {};
  #bytes = 0;
  #interrupted = false;
  /** Aborted when nothing is to be kept back any more for the sake of bandwidth: at low rates that takes minutes. */
  readonly #hurry = new AbortController();
  /** The write under way: the writer has two buffers, so one section may be made while another is sent. */
  #writing: Promise<void> = Promise.resolve();
  #waitingSinceMs: number | undefined;
  #listener: PostcopyListener | undefined;
  readonly #taken = () => {
    this.#waitingSinceMs = undefined;
  };

  constructor({ channel, sender, bucket, clock }: SourceLinkOptions) {
    this.#channel = channel;
    this.#sender = sender;
    this.#bucket = bucket;
    this.#clock = clock;
    this.broken = new Promise((_, reject) => {
      this.#break = reject;
    });
    // Not everybody waits for it.
    this.broken.catch(() => {});
    const reader = new SectionReader((name, payload) => this.#take(name, payload));
    channel.listen({
      data: bytes => {
        try {
          reader.push(bytes);
        } catch (error) {
          this.#fail(error as Error);
        }
      },
      closed: error => {
        this.#fail(new MigrationError('the connection to the destination is gone', { cause: error }));
      },
    });
  }

  async send(message: SourceMessage): Promise<void> {
    if (isState(message)) {
      const { kind, name, bytes } = message;
      await writeState(this.#writer, name, bytes, section => this.#write(section), kind);
    } else {
      await this.#write(this.#encode(message));
    }
    await this.#writing;
  }

  async sendPages(sections: Sections = this.#sender): Promise<void> {
    this.#bucket.begin(this.#clock.nowMs());
    while (!this.#interrupted) {
      const section = sections.next(this.#writer);
      if (section === undefined) break;
      if (section.length > 0) await this.#write(section);
      else await this.#clock.sleep(0);
    }
    await this.#writing;
  }

  listen(listener: PostcopyListener): void {
    this.#listener = listener;
  }

  interrupt(): void {
    this.#interrupted = true;
    this.#hurry.abort();
  }

  progress(): LinkProgress {
    return { ...this.#sender.counts, bytes: this.#bytes };
  }

  get waitingSinceMs(): number | undefined {
    return this.#waitingSinceMs;
  }

  answer(): Promise<DestinationAnswer> {
    const ready = this.#answers.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  useFeatures(features: number): void {
    this.#writer.compression = compressionUnder(features);
  }

  close(graceful: boolean): void {
    if (graceful) this.#channel.close();
    else this.#channel.destroy();
  }

  /** Waits for the write before, then begins this one: `section` must stay until the next but one is made. */
  async #write(section: Uint8Array): Promise<void> {
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure;
    const delayMs = this.#bucket.spend(section.length, this.#clock.nowMs());
    if (delayMs >= 1) await this.#clock.sleep(delayMs, this.#hurry.signal);
    if (this.#failure !== undefined) throw this.#failure;
    this.#bytes += section.length;
    this.#waitingSinceMs = this.#clock.nowMs();
    this.#writing = this.#channel.write(section);
    // The next write reports a failure; until then it is not unhandled.
    this.#writing.then(this.#taken, this.#taken);
  }

  #encode(message: Exclude<SourceMessage, StateMessage>): Uint8Array {
    const writer = this.#writer;
    switch (message.kind) {
      case 'hello':
        return writeHello(writer, message);
      case 'memory':
        return writeMemory(writer, message.regions);
      case 'round':
        return writeRound(writer, message.round);
      case 'rehearse':
        return writeRehearse(writer, message.number);
      case 'end': {
        const { pages, zeroPagesSent } = this.#sender.counts;
        return writeEnd(writer, { pages, zeroPages: zeroPagesSent });
      }
      case 'rest':
      case 'recall':
      case 'go':
        return writeBare(writer, message.kind);
      case 'cancel':
        return writeCancel(writer, message.reason);
    }
  }

  #take(name: SectionName, payload: Uint8Array): void {
    switch (name) {
      case 'welcome':
        this.#answered({ kind: 'welcome', features: readWelcome(payload) });
        return;
      case 'ready':
      case 'rehearsed':
      case 'recalled':
      case 'running':
        readBare(name, payload);
        this.#answered(this.#spent.length > 0 ? { kind: name, spent: this.#spent } : { kind: name });
        this.#spent = [];
        return;
      case 'spent':
        this.#spent = readSpent(payload);
        return;
      case 'want':
        this.#expectListener(name).want(readWant(payload, this.#expectListener(name).slots));
        return;
      case 'missing':
        this.#expectListener(name).missing(readMissing(payload, this.#expectListener(name).slots));
        return;
      case 'arrived':
        this.#answered({ kind: name, ...readArrived(payload) });
        return;
      case 'refused': {
        const { code, message } = readRefused(payload);
        this.#fail(new MigrationError(`the destination gave up: ${message} (${code})`));
        return;
      }
      default:
        throw new StreamError('order', `the destination sent ${name}`);
    }
  }

  #expectListener(name: SectionName): PostcopyListener {
    if (this.#listener !== undefined) return this.#listener;
    throw new StreamError('order', `${name} came before the guest was let go`);
  }

  #answered(answer: DestinationAnswer): void {
    // Each is awaited before the next can be due: a heap of them would only grow.
    if (this.#answers.length > 0) throw new StreamError('order', `${answer.kind} came before it was due`);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#answers.push(answer);
    else waiting.resolve(answer);
  }

  /** The first failure is the one that counts: others follow from it. */
  #fail(error: Error): void {
    this.#failure ??= error;
    this.#break(this.#failure);
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
    this.#hurry.abort();
  }
}
