/**
 * A device and one front-end, joined: the socket's messages go to a {@link BackendSession} and its replies
 * back, and news of the configuration goes out on the channel that the front-end gave for it. For back-ends
 * that want nothing in between.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { PeerDoorbell } from '../sys/peer-doorbell.ts';
import type { Reactor } from '../sys/poll.ts';
import type { Shed } from '../sys/shed.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { memoryOfReply } from './backend-inflight.ts';
import type { OpenSavedRegion } from './backend-memory.ts';
import { BackendSession } from './backend-session.ts';
import { frame, type Message } from './connection.ts';
import type { MessageJournal } from './message-journal.ts';
import { MessageStream, type StreamListener } from './message-stream.ts';
import {
  BACKEND_REQUEST,
  FLAG_VERSION,
  type FrontendRequest,
  HEADER,
  REPLY_SHAPES,
  requestName,
  VhostUserError,
} from './protocol.ts';
import { RecordedFirst } from './recorded-first.ts';
import type { SavedSession } from './saved-session.ts';
import type { KeptRings, SessionHost, SessionReply } from './session-host.ts';

/** The conversation as it is kept. */
export interface KeptConversation extends KeptRings {
  readonly journal: MessageJournal;
  /** What is to be recorded of a session, with the channel for requests of the back-end. */
  record(session: BackendSession, channel: OwnedFd | undefined): Uint8Array;
  /** Another message was served, which changed nothing of what is recorded; of what the device has it may have. */
  noteDevice(): void;
  /** What was recorded last counts: descriptors that are in it no more need not be kept. */
  recorded(): void;
}

/** A conversation that another process kept, and that is taken up. */
export interface KeptSession {
  readonly saved: SavedSession;
  /** Descriptors of the message that was not served. */
  readonly fds: readonly OwnedFd[];
  /** How a region is made of what was recorded of it, where it is no file. */
  readonly open?: OpenSavedRegion;
  /** Has the device go on: features and memory are known to it, and no ring runs yet. */
  recover(): void;
}

export interface BackendConnectionOptions {
  readonly reactor: Pick<Reactor, 'watch'>;
  /** Where messages are watched for, if not there. */
  readonly messages?: Pick<Reactor, 'watch'>;
  /** See {@link SessionHost.refused}. */
  readonly refused?: SessionHost['refused'];
  /** See {@link SessionHost.taken}. */
  readonly taken?: SessionHost['taken'];
  /** See {@link SessionHost.kicked}. */
  readonly kicked?: SessionHost['kicked'];
  /** See {@link SessionHost.deviceState}. */
  readonly deviceState?: SessionHost['deviceState'];
  /**
   * Whether files that the front-end hands over as memory can be looked at now. False: something is done about them that
   * may take long, and {@link BackendConnection.progress} asks again. Absent where waiting is no harm.
   */
  readonly prepareMemory?: (files: readonly OwnedFd[]) => boolean;
  /** Where the conversation is kept, for a process that takes it up when this one has ended. */
  readonly kept?: KeptConversation;
  /** The front-end left, or broke the protocol beyond following; not called after `close`. */
  readonly ended?: (error: Error | undefined) => void;
}

const CONFIG_CHANGE = HEADER.encode({
  request: BACKEND_REQUEST.CONFIG_CHANGE,
  flags: FLAG_VERSION,
  size: 0,
});

/**
 * Requests that end what a ring or the memory did, or begin it anew. Each is served when nothing is under way, and is
 * answered when nothing is under way again, so that the front-end may rely on what it asked for.
 */
const SETTLES: ReadonlySet<FrontendRequest> = new Set<FrontendRequest>([
  'SET_OWNER',
  'RESET_OWNER',
  'SET_FEATURES',
  'SET_MEM_TABLE',
  'ADD_MEM_REG',
  'REM_MEM_REG',
  'SET_VRING_NUM',
  'SET_VRING_ADDR',
  'SET_VRING_BASE',
  'GET_VRING_BASE',
  'SET_VRING_ENABLE',
  'SET_VRING_KICK',
  'RESET_DEVICE',
  'SET_STATUS',
  'SET_DEVICE_STATE_FD',
  'CHECK_DEVICE_STATE',
]);
/** Requests that leave the session as it is. */
const ASKS: ReadonlySet<FrontendRequest | undefined> = new Set<FrontendRequest>([
  'GET_FEATURES',
  'GET_PROTOCOL_FEATURES',
  'GET_QUEUE_NUM',
  'GET_MAX_MEM_SLOTS',
  'GET_CONFIG',
  'GET_STATUS',
]);

/** Closings of its descriptors that a front-end may have under way: a few messages full. More means that they do not end. */
const CLOSINGS_MAX = 1024;

const BRINGS_MEMORY: ReadonlySet<FrontendRequest | undefined> = new Set<FrontendRequest>([
  'SET_MEM_TABLE',
  'ADD_MEM_REG',
  'SET_LOG_BASE',
  'SET_INFLIGHT_FD',
]);

export class BackendConnection {
  readonly session: BackendSession;
  readonly #stream: MessageStream;
  readonly #device: VirtioDevice;
  readonly #prepareMemory: (files: readonly OwnedFd[]) => boolean;
  readonly #shed: Shed;
  #channel: PeerDoorbell | undefined;
  readonly #kept: KeptConversation | undefined;
  readonly #started: RecordedFirst | undefined;
  /** Another process takes it up. */
  #left = false;
  /** What the conversation goes on with when the device has settled: a message, a reply, or neither. */
  #waiting: { readonly message?: Message; readonly reply?: SessionReply } | undefined;

  /** Takes ownership of `socket`. */
  constructor(socket: UnixSocket, device: VirtioDevice, options: BackendConnectionOptions) {
    const { reactor, messages = reactor, refused = () => {}, taken, kicked, deviceState } = options;
    const { prepareMemory = () => true, ended = () => {}, kept } = options;
    this.#started = kept && new RecordedFirst(device, kicked);
    this.session = new BackendSession(this.#started?.device ?? device, {
      reactor,
      refused,
      taken,
      kicked,
      // Its state would have to go on with a reply that is not sent yet.
      deviceState: kept === undefined ? deviceState : undefined,
      kept,
      backendChannel: fd => this.#setChannel(fd),
    });
    this.#device = device;
    this.#prepareMemory = prepareMemory;
    this.#shed = socket.shed;
    const listener: StreamListener = {
      message: message => this.#serve(message),
      unkept: () => void this.#wait({}),
      ended: error => {
        this.#end();
        ended(error);
      },
    };
    this.#kept = kept;
    this.#stream = new MessageStream(socket, messages, listener, kept?.journal);
    // What the last front-end left under way ends first.
    if (!this.#settled()) this.#wait({});
  }

  /** Records a conversation that has just begun. */
  begin(): void {
    this.#kept?.journal.begin();
    this.#record(undefined, true);
  }

  /**
   * Goes on where another process ended, whose conversation {@link BackendConnectionOptions.kept} has; takes ownership of the
   * descriptors.
   * @throws SessionStateError when it cannot go on here; the connection is to be closed then
   */
  takeUp({ saved, fds, recover, open }: KeptSession): void {
    const journal = this.#kept?.journal;
    try {
      this.session.load(saved, open);
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    recover();
    this.session.resume();
    this.#started?.serve();
    this.#stream.attempt(() => {
      if (journal?.owesReply === true) this.#stream.sendJournaled(memoryOfReply(journal.reply));
      const message = journal?.unserved;
      if (message !== undefined) this.#serve({ ...message, fds });
    });
    // Whether it was told of what changed last is not known.
    this.configChanged();
  }

  /** Serves nothing any more, and leaves all as it is for the process that takes the conversation up. */
  leave(): void {
    this.#left = true;
    this.#stream.pause();
    this.session.suspend();
  }

  /** It was left, no process has taken it up, and it goes on here. */
  stay(): void {
    this.#left = false;
    this.session.resume();
    if (this.#waiting === undefined) this.#stream.resume();
    else this.progress();
  }

  /** A conversation that was left is another process's: what of it is this process's goes, and its front-end notices nothing. */
  abandon(): void {
    this.#stream.close();
    this.#releaseWaiting();
    this.session.abandon();
  }

  /** Whether the conversation stands still until the device has settled. */
  get waiting(): boolean {
    return this.#waiting !== undefined;
  }

  /** To be called when the device may have settled, or its memory's files may be looked at. */
  progress(): void {
    const waiting = this.#waiting;
    // What a conversation that was left waited with is served by the process that takes it up.
    if (this.#left || waiting === undefined || !this.#settled()) return;
    this.#waiting = undefined;
    this.#stream.attempt(() => {
      if (waiting.reply !== undefined) this.#reply(waiting.reply);
      if (waiting.message !== undefined) this.#serve(waiting.message);
      if (this.#waiting === undefined) this.#stream.resume();
    });
  }

  /** True when the next message is not to be looked for in this turn. */
  #serve(message: Message): boolean {
    if (this.#shed.unfinished > CLOSINGS_MAX) {
      closeAll(message.fds);
      throw new VhostUserError('descriptors of the front-end cannot be closed as fast as it sends them', {
        fatal: true,
      });
    }
    const name = requestName(message.request);
    const settles = name !== undefined && SETTLES.has(name);
    const prepared = !BRINGS_MEMORY.has(name) || this.#prepareMemory(message.fds);
    if (!prepared || (settles && !this.#settled())) return this.#wait({ message });
    const reply = this.session.serve(message);
    // The driver writes how much its balloon holds all the time; while rings run, that changes nothing of the session.
    const asks = ASKS.has(name) || (name === 'SET_CONFIG' && this.session.ringsRunning > 0);
    try {
      this.#record(reply, !asks || message.fds.length > 0);
    } catch (error) {
      closeAll(reply?.fds ?? []);
      throw error;
    }
    if (settles && !this.#settled()) return this.#wait(reply === undefined ? {} : { reply });
    if (reply === undefined) return false;
    this.#reply(reply);
    // Who asks waits for the answer, and kicks that came before have their turn. Who is only told that it was done may have
    // said more: a front-end of ours describes all its rings at once.
    return this.#kept !== undefined || name === undefined || name in REPLY_SHAPES;
  }

  #settled(): boolean {
    return this.#device.settle?.() ?? true;
  }

  #wait(what: { readonly message?: Message; readonly reply?: SessionReply }): true {
    this.#waiting = what;
    this.#stream.pause();
    return true;
  }

  #reply({ request, flags, payload, fds }: SessionReply): void {
    if (this.#kept !== undefined) this.#stream.sendJournaled(fds);
    else this.#stream.send(request, flags, payload, fds, true);
  }

  /** From here on a message counts as served, and its reply is owed. */
  #record(reply: SessionReply | undefined, changed: boolean): void {
    const kept = this.#kept;
    if (kept === undefined) return;
    const record = changed ? kept.record(this.session, this.#channel?.fd) : undefined;
    if (!changed) kept.noteDevice();
    kept.journal.commit(record, reply && frame(reply.request, reply.flags, reply.payload));
    if (changed) kept.recorded();
    this.#started?.serve();
  }

  /**
   * Tells the front-end that the device changed its configuration. False when it gave no channel for that:
   * its driver sees the change when it next reads.
   */
  configChanged(): boolean {
    if (this.#left) return true;
    if (this.#channel === undefined) return false;
    // A full channel holds notices that the front-end has not read yet; any of them makes it read again.
    if (this.#channel.write(CONFIG_CHANGE) === 'gone') this.#setChannel(undefined);
    return this.#channel !== undefined;
  }

  /** Ends the conversation, as if the front-end had left. Idempotent. */
  close(): void {
    this.#stream.close();
    this.#end();
  }

  #end(): void {
    this.#releaseWaiting();
    this.session.close();
  }

  #releaseWaiting(): void {
    closeAll(this.#waiting?.message?.fds ?? []);
    closeAll(this.#waiting?.reply?.fds ?? []);
    this.#waiting = undefined;
  }

  #setChannel(fd: OwnedFd | undefined): void {
    const channel = fd && PeerDoorbell.of(fd);
    if (fd !== undefined && channel === undefined) {
      fd.close();
      throw new VhostUserError("a channel for the back-end's requests has to be a Unix socket or a pipe");
    }
    this.#channel?.close();
    this.#channel = channel;
  }
}
