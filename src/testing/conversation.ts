/**
 * A back-end session and the one who speaks to it in a test, message by message and without a socket: what a front-end
 * says, in whichever order, sense or nonsense.
 */
import { InvariantError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import { BackendSession } from '../vhost-user/backend-session.ts';
import type { SavableDevice } from '../vhost-user/device-state.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_VERSION,
  FRONTEND_REQUEST,
  type FrontendRequest,
  U64,
} from '../vhost-user/protocol.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { VERSION_1 } from '../virtio/features.ts';

/** What goes with a message beside its payload. */
export interface Said {
  readonly fds?: readonly OwnedFd[];
  /** Flags of the message's header beside the protocol's version. */
  readonly flags?: number;
}

/** What the session would not do, and at which message or ring. */
export interface Complaint {
  readonly message: string;
  readonly request?: string;
  readonly ringIndex?: number;
}

const NOTHING = new Uint8Array(0);
const u64 = (value: bigint): Uint8Array => U64.encode({ value });

export class BackendConversation {
  readonly session: BackendSession;
  readonly refused: Complaint[] = [];
  /** How often the session said that another device of the front-end's began. */
  begunAnew = 0;
  /** The back-end's own channel, once the front-end has handed it over. */
  channel: OwnedFd | undefined;
  /** Descriptors of the last reply, which are the test's to close. */
  repliedFds: readonly OwnedFd[] = [];

  constructor(device: VirtioDevice, reactor: Reactor, deviceState?: SavableDevice) {
    this.session = new BackendSession(device, {
      reactor,
      deviceState,
      refused: ({ message }, context) => this.refused.push({ message, ...context }),
      taken: () => {
        this.begunAnew++;
      },
      backendChannel: fd => {
        this.channel?.close();
        this.channel = fd;
      },
    });
  }

  /** Says a message; its descriptors go with it. Returns the reply's payload. */
  say(
    name: FrontendRequest | number,
    payload: Uint8Array = NOTHING,
    { fds = [], flags = 0 }: Said = {},
  ): DataView | undefined {
    const reply = this.session.serve({
      request: typeof name === 'number' ? name : FRONTEND_REQUEST[name],
      flags: FLAG_VERSION | flags,
      payload: new DataView(payload.buffer, payload.byteOffset, payload.length),
      fds,
    });
    this.repliedFds = reply?.fds ?? [];
    return reply === undefined ? undefined : new DataView(reply.payload.buffer, reply.payload.byteOffset);
  }

  /** Says a message that is answered by one number. @throws InvariantError when no such answer comes */
  ask(name: FrontendRequest | number, payload?: Uint8Array, said?: Said): bigint {
    const reply = this.say(name, payload, said);
    if (reply?.byteLength !== U64.size) throw new InvariantError(`no number answers ${name}`);
    return reply.getBigUint64(0, true);
  }

  /** Says a message and asks for an acknowledgement; true when it was accepted. REPLY_ACK must be negotiated. */
  accepts(name: FrontendRequest | number, payload?: Uint8Array, fds: readonly OwnedFd[] = []): boolean {
    return this.ask(name, payload, { fds, flags: FLAG_NEED_REPLY }) === 0n;
  }

  /** Everything up to and with the features, as most front-ends do it. */
  negotiate(features = VERSION_1, protocolFeatures = this.ask('GET_PROTOCOL_FEATURES')): void {
    this.say('SET_OWNER');
    this.say('GET_FEATURES');
    this.say('SET_PROTOCOL_FEATURES', u64(protocolFeatures));
    this.say('SET_FEATURES', u64(features | F_PROTOCOL_FEATURES));
  }
}
