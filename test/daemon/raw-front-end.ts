/** A front-end that says what a test tells it to say, down to the byte, to a daemon in another process. */
import type { FileBacking } from '../../src/memory/file-backing.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import type { Watch } from '../../src/sys/poll.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { Connection } from '../../src/vhost-user/connection.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_VERSION,
  FRONTEND_REQUEST,
  type FrontendRequest,
  HEADER,
  MEM_REGION,
  SINGLE_REGION_PADDING,
  U64,
} from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import type { TestLoop } from '../support/loop.ts';
import { type RegionFields, regionFields } from '../vhost-user/conversation.ts';

const NOTHING = new Uint8Array(0);
const MEMORY_BYTES = 16 * 2 ** 20;

/** What ADD_MEM_REG and REM_MEM_REG carry. */
export function regionMessage(fields: RegionFields): Uint8Array {
  const bytes = new Uint8Array(SINGLE_REGION_PADDING + MEM_REGION.size);
  MEM_REGION.write(new DataView(bytes.buffer), SINGLE_REGION_PADDING, fields);
  return bytes;
}

export class RawFrontEnd {
  readonly loop: TestLoop;
  readonly socket: UnixSocket;
  /** Memory to hand over, or to lie about. */
  readonly memory: GuestMemory;
  readonly #connection: Connection;
  /** Ends a turn of the loop when something came. */
  readonly #watch: Watch;

  /** Takes ownership of a socket, and of the memory. */
  constructor(
    target: string | UnixSocket,
    loop: TestLoop,
    memory: GuestMemory = createSharedMemory({ regions: [{ guestAddress: 0, size: MEMORY_BYTES }] }),
  ) {
    this.memory = memory;
    this.loop = loop;
    this.socket = typeof target === 'string' ? UnixSocket.connect(target) : target;
    this.#connection = new Connection(this.socket);
    this.#watch = loop.reactor.watch(this.socket.fd, () => {});
  }

  get file(): OwnedFd {
    return (this.memory.regions[0].backing as FileBacking).fd;
  }

  /** What an honest front-end says of its memory. */
  get region(): RegionFields {
    return regionFields(this.memory.regions[0]);
  }

  say(
    request: FrontendRequest | number,
    payload: Uint8Array = NOTHING,
    fds: readonly OwnedFd[] = [],
    flags = 0,
  ): void {
    const code = typeof request === 'number' ? request : FRONTEND_REQUEST[request];
    this.#connection.send(code, flags, payload, fds);
  }

  /** Sends a header that need not be true, and whatever is said to follow it. */
  sayRaw(header: { request: number; flags?: number; size: number }, payload: Uint8Array = NOTHING): void {
    const bytes = new Uint8Array(HEADER.size + payload.length);
    HEADER.write(new DataView(bytes.buffer), 0, { flags: FLAG_VERSION, ...header });
    bytes.set(payload, HEADER.size);
    this.socket.send(bytes);
  }

  /** Says it and asks for an acknowledgement; whether the daemon did as it was told. */
  async accepts(
    request: FrontendRequest | number,
    payload?: Uint8Array,
    fds?: readonly OwnedFd[],
  ): Promise<boolean> {
    this.say(request, payload, fds, FLAG_NEED_REPLY);
    return U64.read(await this.reply()).value === 0n;
  }

  async ask(request: FrontendRequest, payload?: Uint8Array): Promise<DataView> {
    this.say(request, payload);
    return this.reply();
  }

  /** Descriptors that came with the last reply, which are the test's to close. */
  replyFds: readonly OwnedFd[] = [];

  /** The next message from the daemon. */
  async reply(): Promise<DataView> {
    let payload: DataView | undefined;
    await this.loop.turnUntil(() => {
      const received = this.#connection.receive();
      if (received.kind === 'closed') throw new Error('the daemon ended the conversation');
      if (received.kind !== 'message') return false;
      payload = received.message.payload;
      this.replyFds = received.message.fds;
      return payload !== undefined;
    });
    return payload!;
  }

  /** Waits until the daemon ends the conversation. */
  async dropped(): Promise<void> {
    await this.loop.turnUntil(() => this.#connection.receive().kind === 'closed');
  }

  /** Everything up to the features, as most front-ends do it. */
  async negotiate(features = VERSION_1): Promise<void> {
    this.say('SET_OWNER');
    await this.ask('GET_FEATURES');
    const { value } = U64.read(await this.ask('GET_PROTOCOL_FEATURES'));
    this.say('SET_PROTOCOL_FEATURES', U64.encode({ value }));
    this.say('SET_FEATURES', U64.encode({ value: features | F_PROTOCOL_FEATURES }));
  }

  /** Gives the daemon the memory. */
  async handOver(): Promise<void> {
    for (const region of this.memory.regions) {
      const { fd } = region.backing as FileBacking;
      if (await this.accepts('ADD_MEM_REG', regionMessage(regionFields(region)), [fd])) continue;
      throw new Error('the daemon does not take the memory');
    }
  }

  /** Leaves; the memory stays. */
  hangUp(): void {
    this.#watch.stop();
    this.#connection.close();
  }

  close(): void {
    this.hangUp();
    this.memory.close();
  }
}
