/**
 * One connection at the destination: takes its bytes apart, puts pages into memory, and tells the rest to the one that
 * coordinates ({@link ./destination.ts}), which may be another thread.
 */
import type { ByteChannel } from './byte-channel.ts';
import { compressionUnder } from './features.ts';
import { type PagePlacer, PageReceiver } from './page-receiver.ts';
import type { PauseStep } from './pause.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';
import {
  type Hello,
  type RefusedBody,
  type RegionShape,
  readBare,
  readCancel,
  readEnd,
  readHello,
  readMemory,
  readRehearse,
  readRound,
  readState,
  type StateSection,
  writeBare,
  writeRefused,
  writeSpent,
  writeWelcome,
} from './stream/messages.ts';
import {
  type FaultCounts,
  type MissingPages,
  readMissing,
  type Want,
  writeArrived,
  writeMissing,
  writeWant,
} from './stream/postcopy-messages.ts';
import { type SectionName, StreamError } from './stream/section.ts';
import { SectionReader } from './stream/section-reader.ts';
import { SectionWriter } from './stream/section-writer.ts';

/** What one connection brought besides pages; plain data, so that it can come from another thread. */
export type DestinationMessage =
  | { readonly kind: 'hello'; readonly hello: Hello }
  | { readonly kind: 'memory'; readonly regions: readonly RegionShape[] }
  | { readonly kind: 'round'; readonly round: number }
  | { readonly kind: StateSection; readonly name: string; readonly last: boolean; readonly bytes: Uint8Array }
  /** All states came ahead, for the time of this number. */
  | { readonly kind: 'rehearse'; readonly number: number }
  /** These pages come when the guest runs. */
  | ({ readonly kind: 'missing' } & MissingPages)
  /** Every page that was sent over this connection is in memory. */
  | { readonly kind: 'end' }
  /** Nothing more comes over this connection of what was missing. */
  | { readonly kind: 'rest' }
  /** All that was sent over this connection at a stop has come, and counts for nothing; pages go on. */
  | { readonly kind: 'recall' }
  | { readonly kind: 'go' }
  | { readonly kind: 'cancel'; readonly reason: string }
  /** The connection is gone: as it should, or with an error. */
  | { readonly kind: 'closed'; readonly error: Error | undefined };

type Reply =
  | { readonly kind: 'welcome'; readonly features: number }
  | { readonly kind: 'ready' | 'rehearsed' | 'recalled' | 'running' }
  | { readonly kind: 'spent'; readonly steps: readonly PauseStep[] }
  | ({ readonly kind: 'refused' } & RefusedBody)
  | ({ readonly kind: 'want' } & Want)
  | ({ readonly kind: 'arrived' } & FaultCounts)
  /** What is missing here, of a guest that runs here. */
  | { readonly kind: 'missing'; readonly missing: SlotBitmap };

/** One connection from a source, wherever its bytes are taken. */
export interface Inlet {
  /** Memory is there: pages may come. */
  receiveInto(ram: Ram, held: SlotBitmap, features: number): void;
  /** The guest runs: what comes from now on was missing. */
  receiveLate(late: PagePlacer): void;
  reply(reply: Reply): Promise<void>;
  /** `graceful`: what was replied still arrives. */
  close(graceful: boolean): void;
}

const NOTHING = new Uint8Array();
/** What the source may say when all has been sent. */
const AFTER_END: ReadonlySet<SectionName> = new Set(['go', 'cancel', 'recall']);

export class DestinationLink implements Inlet {
  readonly #channel: ByteChannel;
  readonly #reader: SectionReader;
  readonly #writer = new SectionWriter();
  readonly #tell: (message: DestinationMessage) => void;
  /** One reply after the other: they are made in the same memory. */
  #replying: Promise<void> = Promise.resolve();
  #slots = 0;
  #receiver: PageReceiver | undefined;
  #greeted = false;
  #ended = false;
  #over = false;

  /** `tell` gets the messages of this connection, `closed` last and once. */
  constructor(channel: ByteChannel, tell: (message: DestinationMessage) => void) {
    this.#channel = channel;
    this.#tell = tell;
    this.#reader = new SectionReader(this.#take.bind(this));
    const link = this;
    channel.listen({
      data: bytes => this.#guard(() => this.#reader.push(bytes)),
      direct: {
        get space() {
          return link.#over ? NOTHING : link.#reader.space;
        },
        filled: count => this.#guard(() => this.#reader.filled(count)),
      },
      closed: error => {
        this.#guard(() => {
          if (error === undefined) this.#reader.end();
          this.#close(error);
        });
      },
    });
  }

  receiveInto(ram: Ram, held: SlotBitmap, features: number): void {
    this.#receiver = new PageReceiver(ram, held);
    this.#slots = ram.slots;
    this.#reader.compression = compressionUnder(features);
  }

  receiveLate(late: PagePlacer): void {
    this.#expectPages().late = late;
  }

  reply(reply: Reply): Promise<void> {
    // The memory that pages would go to may be on its way out.
    if (reply.kind === 'refused') this.#over = true;
    const replied = this.#replying.then(async () => {
      if (reply.kind !== 'missing') return this.#channel.write(this.#encode(reply));
      for (const section of writeMissing(this.#writer, reply.missing)) await this.#channel.write(section);
    });
    this.#replying = replied.catch(() => {});
    return replied;
  }

  close(graceful: boolean): void {
    this.#over = true;
    if (graceful) this.#channel.close();
    else this.#channel.destroy();
  }

  #guard(act: () => void): void {
    // Nothing counts that comes after nonsense.
    if (this.#over) return;
    try {
      act();
    } catch (error) {
      this.#close(error as Error);
    }
  }

  #close(error: Error | undefined): void {
    this.#over = true;
    this.#tell({ kind: 'closed', error });
  }

  #encode(reply: Exclude<Reply, { kind: 'missing' }>): Uint8Array {
    switch (reply.kind) {
      case 'welcome':
        return writeWelcome(this.#writer, reply.features);
      case 'refused':
        return writeRefused(this.#writer, reply);
      case 'want':
        return writeWant(this.#writer, reply);
      case 'arrived':
        return writeArrived(this.#writer, reply);
      case 'spent':
        return writeSpent(this.#writer, reply.steps);
      default:
        return writeBare(this.#writer, reply.kind);
    }
  }

  #take(name: SectionName, payload: Uint8Array): void {
    if (this.#greeted === (name === 'hello')) {
      throw new StreamError('order', `${name} ${this.#greeted ? 'came again' : 'came before hello'}`);
    }
    const late = this.#receiver?.late !== undefined;
    if (late && name !== 'pages' && name !== 'zeroPages' && name !== 'rest') {
      throw new StreamError('order', `${name} came when the guest ran already`);
    }
    if (this.#ended && !late && !AFTER_END.has(name)) {
      throw new StreamError('order', `${name} came after the end`);
    }
    switch (name) {
      case 'hello':
        this.#greeted = true;
        this.#tell({ kind: 'hello', hello: readHello(payload) });
        return;
      case 'memory':
        this.#tell({ kind: 'memory', regions: readMemory(payload) });
        return;
      case 'pages':
        this.#expectPages().takePages(payload);
        return;
      case 'zeroPages':
        this.#expectPages().takeZeroPages(payload);
        return;
      case 'round':
        this.#tell({ kind: 'round', round: readRound(payload) });
        return;
      case 'state':
      case 'ahead':
      case 'patch': {
        const state = readState(payload, name);
        this.#tell({ kind: name, ...state, bytes: Uint8Array.from(state.bytes) });
        return;
      }
      case 'missing':
        this.#tell({ kind: 'missing', ...readMissing(payload, this.#slots) });
        return;
      case 'rehearse':
        this.#tell({ kind: 'rehearse', number: readRehearse(payload) });
        return;
      case 'end':
        this.#end(payload);
        return;
      case 'rest':
        if (!late) throw new StreamError('order', 'rest came before the guest ran');
        readBare(name, payload);
        this.#tell({ kind: 'rest' });
        return;
      case 'recall':
        readBare(name, payload);
        this.#ended = false;
        this.#tell({ kind: 'recall' });
        return;
      case 'go':
        readBare('go', payload);
        this.#tell({ kind: 'go' });
        return;
      case 'cancel':
        this.#tell({ kind: 'cancel', reason: readCancel(payload) });
        return;
      default:
        throw new StreamError('order', `the source sent ${name}`);
    }
  }

  #expectPages(): PageReceiver {
    if (this.#receiver === undefined) throw new StreamError('order', 'pages came before there was memory');
    return this.#receiver;
  }

  #end(payload: Uint8Array): void {
    const { totals } = this.#expectPages();
    const { pages, zeroPages } = readEnd(payload);
    if (pages !== totals.pages || zeroPages !== totals.zeroPages) {
      throw new StreamError(
        'payload',
        `the source sent ${pages} pages and ${zeroPages} zero pages, and ${totals.pages} and ${totals.zeroPages} came`,
      );
    }
    this.#ended = true;
    this.#tell({ kind: 'end' });
  }
}
