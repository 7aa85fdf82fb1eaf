/**
 * One connection of a front-end, from the first message to the memory table: what the two sides agreed on, and
 * both channels between them. Rings and what outlives a connection are the session's.
 */
import type { MemoryFile } from '../memory/backing.ts';
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { UnixSocket } from '../sys/socket.ts';
import { BackendRequests } from './backend-requests.ts';
import { VhostUserUnsupportedError } from './frontend-errors.ts';
import {
  F_PROTOCOL_FEATURES,
  MEM_REGION,
  MEM_TABLE_HEADER,
  MEM_TABLE_REGIONS_MAX,
  PROTOCOL_FEATURE,
  SINGLE_REGION_PADDING,
  U64,
} from './protocol.ts';
import { Requester, type RequesterOptions } from './requester.ts';

export interface LinkOptions extends RequesterOptions {
  /** To be used where the back-end has them. */
  readonly protocolFeatures: bigint;
  readonly configChanged: () => void;
}

export class FrontendLink {
  readonly requester: Requester;
  /** What the back-end offers, the transport's own bits included. */
  features = 0n;
  /** What both sides have of the protocol. */
  protocolFeatures = 0n;
  /** Rings that the back-end has; without MQ it does not say. */
  queueCount = Number.POSITIVE_INFINITY;
  readonly #options: LinkOptions;
  #backendRequests: BackendRequests | undefined;
  #regionsMax = MEM_TABLE_REGIONS_MAX;

  /** Takes ownership of `socket`. */
  constructor(socket: UnixSocket, options: LinkOptions) {
    this.#options = options;
    this.requester = new Requester(socket, options);
  }

  readonly has = (feature: bigint): boolean => (this.protocolFeatures & feature) !== 0n;

  async negotiate(): Promise<void> {
    const { requester } = this;
    requester.post('SET_OWNER');
    this.features = await requester.askU64('GET_FEATURES');
    if ((this.features & F_PROTOCOL_FEATURES) === 0n) return;
    const offered = await requester.askU64('GET_PROTOCOL_FEATURES');
    this.protocolFeatures = offered & this.#options.protocolFeatures;
    requester.post('SET_PROTOCOL_FEATURES', U64.encode({ value: this.protocolFeatures }));
    requester.acknowledges = this.has(PROTOCOL_FEATURE.REPLY_ACK);
    if (this.has(PROTOCOL_FEATURE.MQ)) {
      this.queueCount = Number(await requester.askU64('GET_QUEUE_NUM'));
    }
    if (this.has(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) {
      this.#regionsMax = Number(await requester.askU64('GET_MAX_MEM_SLOTS'));
    }
    if (this.has(PROTOCOL_FEATURE.BACKEND_REQ)) await this.#openBackendChannel();
  }

  async handOver(memory: GuestMemory): Promise<void> {
    if (!this.has(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) return this.#tellTable(memory);
    this.#checkCount(memory);
    await Promise.all(memory.regions.map(region => this.#tellRegion('ADD_MEM_REG', region)));
  }

  /** `memory` has the region already. */
  async addRegion(memory: GuestMemory, region: MemoryRegion): Promise<void> {
    if (!this.has(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) return this.#tellTable(memory);
    this.#checkCount(memory);
    await this.#tellRegion('ADD_MEM_REG', region);
  }

  /** `memory` has the region no more. */
  async removeRegion(memory: GuestMemory, region: MemoryRegion): Promise<void> {
    if (!this.has(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) return this.#tellTable(memory);
    await this.#tellRegion('REM_MEM_REG', region);
  }

  /** Idempotent. */
  close(reason: Error): void {
    this.requester.close(reason);
    this.#backendRequests?.close();
  }

  async #openBackendChannel(): Promise<void> {
    const [ours, theirs] = UnixSocket.pair();
    this.#backendRequests = new BackendRequests(ours, this.#options.reactor, this.#options.configChanged);
    try {
      await this.requester.tell('SET_BACKEND_REQ_FD', new Uint8Array(0), [theirs.fd]);
    } finally {
      theirs.close();
    }
  }

  async #tellTable(memory: GuestMemory): Promise<void> {
    this.#checkCount(memory);
    const { regions } = memory;
    const table = new Uint8Array(MEM_TABLE_HEADER.size + regions.length * MEM_REGION.size);
    const view = new DataView(table.buffer);
    MEM_TABLE_HEADER.write(view, 0, { regions: regions.length });
    regions.forEach((region, index) => {
      MEM_REGION.write(view, MEM_TABLE_HEADER.size + index * MEM_REGION.size, describe(region));
    });
    await this.requester.tell(
      'SET_MEM_TABLE',
      table,
      regions.map(region => fileOf(region).fd),
    );
  }

  async #tellRegion(name: 'ADD_MEM_REG' | 'REM_MEM_REG', region: MemoryRegion): Promise<void> {
    const payload = new Uint8Array(SINGLE_REGION_PADDING + MEM_REGION.size);
    MEM_REGION.write(new DataView(payload.buffer), SINGLE_REGION_PADDING, describe(region));
    // A region that goes is named by its addresses; no descriptor should come along.
    await this.requester.tell(name, payload, name === 'ADD_MEM_REG' ? [fileOf(region).fd] : []);
  }

  #checkCount({ regions }: GuestMemory): void {
    if (regions.length <= this.#regionsMax) return;
    throw new VhostUserUnsupportedError(
      `guest memory has ${regions.length} regions, and ${this.#options.description} takes ${this.#regionsMax}`,
    );
  }
}

const describe = (region: MemoryRegion) => ({
  guestAddress: region.guestAddress,
  size: region.size,
  userAddress: region.userAddress,
  mmapOffset: fileOf(region).fileOffset,
});

function fileOf({ backing }: MemoryRegion): MemoryFile {
  if (backing.file !== undefined) return backing.file;
  throw new VhostUserUnsupportedError(
    `memory of kind "${backing.kind}" is no file and cannot be handed to another process`,
  );
}
