/**
 * A conversation in memory that outlives its process, so that another process can take it up at any moment and each message
 * is served, and each reply sent, just once. Where the memory comes from, who keeps descriptors, and what else the record of
 * the session holds is its owner's.
 *
 * The order in which things happen, and what a successor finds after each:
 *
 * 1. A whole message is looked at in the socket, and its descriptors are kept: it is in the socket still, as long as what
 *    keeps them has not taken them out of this process.
 * 2. One system call moves it from the socket into the inbox: it is served from there (again, if it was served before the next step:
 *    the session that is recorded has not seen it).
 * 3. The session's new record is written into the slot that does not count, and the reply beside it.
 * 4. One store of the word of commits makes them count, and empties the inbox, since there is one for either value of the word.
 * 5. One system call sends the reply and marks it as sent.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import {
  type AddressedBytes,
  MARKED_CONTROL_BYTES,
  MARKED_SEND_BYTES,
  prepareMarkedSend,
  wasSent,
} from '../sys/marked-send.ts';
import { struct } from '../sys/struct.ts';
import { FLAG_VERSION, HEADER, PAYLOAD_BYTES_MAX } from './protocol.ts';

/** The word of commits: which slot and which side count, and whether there is a conversation to be taken up. */
const SLOT = 1;
const SIDE = 2;
const LIVE = 4;

const JOURNAL = struct('journal', 8, { commit: ['u32', 0] });
/** There is one for each value of {@link SIDE}. */
const SIDE_WORDS = struct('side of a journal', 16, {
  /** Descriptors of the message in the inbox, as they are kept. */
  fds: ['u32', 0],
  firstFd: ['u32', 4],
  /** The reply that is owed; 0 for none. */
  replyBytes: ['u32', 8],
});
/** A slot's record begins with its length. */
const RECORD_AT = 4;

/** The longest reply is a configuration of 12 + 256 bytes. */
const REPLY_BYTES_MAX = 1024;
const SIDE_BYTES = SIDE_WORDS.size + Math.ceil(MARKED_SEND_BYTES / 16) * 16 + REPLY_BYTES_MAX;
const SEND_AT = SIDE_WORDS.size;
const REPLY_AT = SIDE_BYTES - REPLY_BYTES_MAX;
/** Behind all replies that there are: which descriptor goes with one. */
const CONTROL_AT = SIDE_BYTES - Math.ceil(MARKED_CONTROL_BYTES / 16) * 16;
const SIDES_AT = 64;
const INBOXES_AT = 4096;
const INBOX_BYTES = HEADER.size + PAYLOAD_BYTES_MAX;
const INBOX_STRIDE = 8192;
const SLOTS_AT = INBOXES_AT + 2 * INBOX_STRIDE;
/** A table of 509 regions with all that is recorded of them takes half of it. */
export const RECORD_BYTES_MAX = 65_536 - RECORD_AT;
const SLOT_BYTES = RECORD_AT + RECORD_BYTES_MAX;
/** Bytes of a journal. */
export const JOURNAL_BYTES = SLOTS_AT + 2 * SLOT_BYTES;
/** No message needs as many; one that brings more is refused, and its descriptors are not kept first. */
const KEPT_FDS_MAX = 8;

/** What a journal needs of the socket. */
interface JournaledSocket {
  peek(into: Uint8Array): { readonly length: number; readonly fds: readonly OwnedFd[] } | undefined;
  peekLength(into: Uint8Array): number | undefined;
  take(address: number, length: number): readonly OwnedFd[];
  sendMarked(address: number): boolean;
}

/** Keeps descriptors beyond the life of this process. */
interface FdKeeper {
  /** Names of consecutive numbers for them, the first of which it returns. The descriptors stay the caller's. */
  keep(fds: readonly OwnedFd[]): number;
  /** They would not be lost with this process. */
  isKept(): boolean;
}

/** A message that was taken out of the socket and that the recorded session has not seen. */
interface UnservedMessage {
  readonly request: number;
  readonly flags: number;
  readonly payload: DataView;
  readonly firstFd: number;
  readonly fds: number;
}

export class MessageJournal {
  readonly #memory: AddressedBytes;
  readonly #fds: FdKeeper;
  /** Of the message that was looked at, while they are not kept yet. */
  #seen: readonly OwnedFd[] | undefined;

  constructor(memory: AddressedBytes, fds: FdKeeper) {
    this.#memory = memory;
    this.#fds = fds;
  }

  get #commit(): number {
    return this.#memory.view.getUint32(JOURNAL.offset.commit, true);
  }

  /** Program order is the order in which a process that is killed has written. */
  set #commit(word: number) {
    this.#memory.view.setUint32(JOURNAL.offset.commit, word, true);
  }

  /** Whether there is a conversation to be taken up. */
  get live(): boolean {
    return (this.#commit & LIVE) !== 0;
  }

  /** There is none to be taken up until the next commit: a message is on its way here in parts, or the conversation is over. */
  lose(): void {
    this.#commit &= ~LIVE;
  }

  /** A new conversation, of which nothing is recorded yet. */
  begin(): void {
    this.#commit = 0;
    for (const side of [0, 1]) {
      SIDE_WORDS.write(this.#memory.view, sideAt(side), { fds: 0, firstFd: 0, replyBytes: 0 });
      this.#emptyInbox(side);
    }
  }

  /** The record of the session. */
  get record(): Uint8Array {
    const at = slotAt(this.#commit & SLOT);
    const length = Math.min(this.#memory.view.getUint32(at, true), RECORD_BYTES_MAX);
    return this.#memory.bytes.slice(at + RECORD_AT, at + RECORD_AT + length);
  }

  /** What was taken out of the socket and not served, or served and not recorded. */
  get unserved(): UnservedMessage | undefined {
    const { view } = this.#memory;
    const { request, flags, size } = HEADER.read(view, inboxAt(this.#side));
    if ((flags & FLAG_VERSION) === 0 || size > PAYLOAD_BYTES_MAX) return undefined;
    const { fds, firstFd } = SIDE_WORDS.read(view, sideAt(this.#side));
    return { request, flags, payload: this.#payload(size), fds, firstFd };
  }

  /** A reply is owed, and was not sent. */
  get owesReply(): boolean {
    const at = sideAt(this.#side);
    const { replyBytes } = SIDE_WORDS.read(this.#memory.view, at);
    return replyBytes > 0 && !wasSent(this.#memory, at + SEND_AT);
  }

  /** The reply that is owed. */
  get reply(): Uint8Array {
    const at = sideAt(this.#side);
    const { replyBytes } = SIDE_WORDS.read(this.#memory.view, at);
    return this.#memory.bytes.slice(at + REPLY_AT, at + REPLY_AT + Math.min(replyBytes, REPLY_BYTES_MAX));
  }

  get #side(): number {
    return (this.#commit & SIDE) === 0 ? 0 : 1;
  }

  #payload(size: number): DataView {
    const { bytes } = this.#memory;
    return new DataView(bytes.buffer, bytes.byteOffset + inboxAt(this.#side) + HEADER.size, size);
  }

  #emptyInbox(side: number): void {
    HEADER.write(this.#memory.view, inboxAt(side), { request: 0, flags: 0, size: 0 });
  }

  /**
   * Takes a message of `length` bytes that was looked at out of the socket; `look` gives what descriptors are seen with it.
   * Those that it turns out to have brought are returned. Undefined while they are not kept: then it is in the socket still.
   */
  take(
    socket: JournaledSocket,
    length: number,
    look: () => readonly OwnedFd[],
  ): { readonly payload: DataView; readonly fds: readonly OwnedFd[] } | undefined {
    const fds = this.#seen ?? this.#look(look());
    if (fds.length > 0 && !this.#fds.isKept()) {
      this.#seen = fds;
      return undefined;
    }
    this.#seen = undefined;
    const { address } = this.#memory;
    const brought = socket.take(address + inboxAt(this.#side), Math.min(length, INBOX_BYTES));
    const payload = this.#payload(length - HEADER.size);
    // Those that are kept already, where they are the same.
    const same = brought.length === fds.length;
    closeAll(same ? brought : fds);
    return { payload, fds: same ? fds : brought };
  }

  #look(fds: readonly OwnedFd[]): readonly OwnedFd[] {
    const kept = fds.length > 0 && fds.length <= KEPT_FDS_MAX;
    const { view } = this.#memory;
    const at = sideAt(this.#side);
    view.setUint32(at + SIDE_WORDS.offset.firstFd, kept ? this.#fds.keep(fds) : 0, true);
    view.setUint32(at + SIDE_WORDS.offset.fds, kept ? fds.length : 0, true);
    return fds;
  }

  /** The socket is closed, and what was looked at there with it. */
  leave(): void {
    closeAll(this.#seen ?? []);
    this.#seen = undefined;
  }

  /** The message was served: `record` is the session's from now on, where it has become another; `reply` is owed. */
  commit(record: Uint8Array | undefined, reply: Uint8Array | undefined): void {
    const now = this.#commit;
    const side = 1 - this.#side;
    const at = sideAt(side);
    const { view, bytes } = this.#memory;
    this.#emptyInbox(side);
    if (reply !== undefined) {
      bytes.set(reply, at + REPLY_AT);
      prepareMarkedSend(this.#memory, at + SEND_AT, at + REPLY_AT, reply.length);
    }
    view.setUint32(at + SIDE_WORDS.offset.replyBytes, reply?.length ?? 0, true);
    let slot = now & SLOT;
    if (record !== undefined) {
      slot ^= SLOT;
      view.setUint32(slotAt(slot), record.length, true);
      bytes.set(record, slotAt(slot) + RECORD_AT);
    }
    this.#commit = slot | (side === 0 ? 0 : SIDE) | LIVE;
  }

  /** Sends the reply that is owed, with a descriptor where there is one to it; false when the socket is full. */
  sendReply(socket: JournaledSocket, fd?: OwnedFd): boolean {
    const at = sideAt(this.#side);
    const { replyBytes } = SIDE_WORDS.read(this.#memory.view, at);
    // The addresses of the process that prepared it mean nothing here.
    const length = Math.min(replyBytes, REPLY_BYTES_MAX);
    const descriptor = fd && { fd, controlAt: at + CONTROL_AT };
    prepareMarkedSend(this.#memory, at + SEND_AT, at + REPLY_AT, length, descriptor);
    return socket.sendMarked(this.#memory.address + at + SEND_AT);
  }
}

const sideAt = (side: number): number => SIDES_AT + side * SIDE_BYTES;
const inboxAt = (side: number): number => INBOXES_AT + side * INBOX_STRIDE;
const slotAt = (slot: number): number => SLOTS_AT + slot * SLOT_BYTES;
