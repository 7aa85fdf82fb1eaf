/**
 * The device's configuration space as a front-end reaches it. What the driver wrote is kept, for a back-end that takes
 * the place of another knows nothing of it.
 */
import { VhostUserRefusedError, VhostUserUnsupportedError } from './frontend-errors.ts';
import type { FrontendLink } from './frontend-link.ts';
import { CONFIG_BYTES_MAX, CONFIG_HEADER, PROTOCOL_FEATURE } from './protocol.ts';

export class FrontendConfig {
  /** Whom we talk to, for errors. */
  readonly #description: string;
  /** What the driver wrote, by offset, in the order of the last writes. */
  readonly #written = new Map<number, Uint8Array>();

  constructor(description: string) {
    this.#description = description;
  }

  async read(link: FrontendLink, offset: number, length: number): Promise<Uint8Array> {
    this.#check(link, offset, length);
    // Always from the start: back-ends built on QEMU's library take no notice of the offset.
    const size = offset + length;
    const request = new Uint8Array(CONFIG_HEADER.size + size);
    CONFIG_HEADER.write(new DataView(request.buffer), 0, { offset: 0, size, flags: 0 });
    const reply = await link.requester.ask('GET_CONFIG', request);
    const got = CONFIG_HEADER.read(reply);
    if (got.offset !== 0 || got.size !== size || reply.byteLength !== request.length) {
      // A size of 0 is how the protocol says no here.
      throw new VhostUserRefusedError(this.#description, `GET_CONFIG of ${size} bytes`);
    }
    return new Uint8Array(reply.buffer as ArrayBuffer, CONFIG_HEADER.size + offset, length);
  }

  async write(link: FrontendLink, offset: number, bytes: Uint8Array): Promise<void> {
    this.#check(link, offset, bytes.length);
    const request = new Uint8Array(CONFIG_HEADER.size + bytes.length);
    CONFIG_HEADER.write(new DataView(request.buffer), 0, { offset, size: bytes.length, flags: 0 });
    request.set(bytes, CONFIG_HEADER.size);
    // Anew at the end: they are repeated in this order, and writes may overlap.
    this.#written.delete(offset);
    this.#written.set(offset, bytes.slice());
    await link.requester.tell('SET_CONFIG', request);
  }

  /** Tells a new back-end what the driver told the last one. */
  async restore(link: FrontendLink): Promise<void> {
    for (const [offset, bytes] of [...this.#written]) await this.write(link, offset, bytes);
  }

  /** The driver starts over. */
  forget(): void {
    this.#written.clear();
  }

  #check(link: FrontendLink, offset: number, length: number): void {
    if (!link.has(PROTOCOL_FEATURE.CONFIG)) {
      throw new VhostUserUnsupportedError(
        `${this.#description} has no configuration space (protocol feature CONFIG)`,
      );
    }
    if (offset >= 0 && length >= 0 && offset + length <= CONFIG_BYTES_MAX) return;
    throw new VhostUserUnsupportedError(`no configuration space has ${length} bytes at ${offset}`);
  }
}
