/**
 * How a migration's source reaches the destination over TCP:
 *
 *     const connector = new TransferConnector({ address, tls, ram, dirty, sent, bytesPerSecond });
 *     const summary = await new MigrationSource({ …, connector, connections: 4 }).run();
 *
 * Connections have each a part of memory, and share the caller's thread and one limit of bandwidth. What a page costs is
 * the kernel's copying and a checksum, so a thread is nearly as fast as a plain copy (aerostat bench migrate --loopback);
 * between sections it has time for messages and cancellation.
 */

import { askWhetherRunning } from '../migration/inquiry.ts';
import { PageSender } from '../migration/page-sender.ts';
import type { Ram } from '../migration/ram.ts';
import type { SlotBitmap } from '../migration/slot-bitmap.ts';
import { type Link, SourceLink } from '../migration/source-link.ts';
import type { Connector, Inquiry } from '../migration/source-links.ts';
import { TokenBucket } from '../migration/token-bucket.ts';
import { systemClock } from './clock.ts';
import { ConnectionRefused } from './errors.ts';
import { type ConnectOptions, connectTcp } from './tcp.ts';
import { TcpChannel } from './tcp-channel.ts';

/** How long a source that let its guest go tries to hear of it. A destination waits as long for the question. */
const INQUIRY_MS_MAX = 100_000;
const INQUIRY_PAUSE_MS = 500;
/** Within this time a peer that accepted a connection answers the question. */
const INQUIRY_ANSWER_MS_MAX = 10_000;

interface ConnectorOptions extends ConnectOptions {
  readonly ram: Ram;
  readonly dirty: SlotBitmap;
  readonly sent: SlotBitmap;
  /** Of all connections together; no limit when left out. */
  readonly bytesPerSecond?: number;
  /** {@link INQUIRY_MS_MAX} when left out. */
  readonly inquiryMsMax?: number;
}

export class TransferConnector implements Connector {
  readonly #options: ConnectorOptions;
  readonly #bucket: TokenBucket;
  /**
   * Where the first connection found the destination. A name may have several addresses, and other ones by the time that
   * the destination is asked for the guest: one that refuses then says nothing of the host that has it.
   */
  #at: string | undefined;

  constructor(options: ConnectorOptions) {
    this.#options = options;
    this.#bucket = new TokenBucket(options.bytesPerSecond ?? Number.POSITIVE_INFINITY);
  }

  /** @throws TransferError */
  async open(index: number, count: number): Promise<Link> {
    const { ram, dirty, sent } = this.#options;
    const channel = await this.#connect();
    const sender = new PageSender({ ram, dirty, sent, share: { index, of: count } });
    return new SourceLink({ channel, sender, bucket: this.#bucket, clock: systemClock });
  }

  /**
   * A host that refuses the connection says that the process is gone which had the guest, or was to have it: a destination
   * listens for as long as it does.
   */
  async inquire(id: Uint8Array, msMax = this.#options.inquiryMsMax ?? INQUIRY_MS_MAX): Promise<Inquiry> {
    const deadlineMs = systemClock.nowMs() + msMax;
    for (;;) {
      try {
        const channel = await this.#connect();
        const late = setTimeout(() => channel.destroy(), INQUIRY_ANSWER_MS_MAX);
        const answer = await askWhetherRunning(channel, id);
        clearTimeout(late);
        if (answer !== 'unheard') return answer;
      } catch (error) {
        if (error instanceof ConnectionRefused) return 'absent';
      }
      if (systemClock.nowMs() >= deadlineMs) return 'unreachable';
      await systemClock.sleep(INQUIRY_PAUSE_MS);
    }
  }

  async #connect(): Promise<TcpChannel> {
    const at = this.#at === undefined ? {} : { at: this.#at };
    const socket = await connectTcp({ ...this.#options, ...at });
    this.#at ??= socket.remoteAddress;
    return new TcpChannel(socket);
  }
}
