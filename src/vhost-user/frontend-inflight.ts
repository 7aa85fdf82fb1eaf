/**
 * What is in flight, kept for the back-end that comes after this one (INFLIGHT_SHMFD): memory that the first back-end makes,
 * and that each is given before its rings start. The front-end looks at nothing of it.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { VhostUserUnsupportedError } from './frontend-errors.ts';
import type { FrontendLink } from './frontend-link.ts';
import { INFLIGHT_AREA, PROTOCOL_FEATURE } from './protocol.ts';

interface Area {
  readonly payload: Uint8Array;
  readonly fd: OwnedFd;
}

export class FrontendInflight {
  readonly #queueSize: number;
  #area: Area | undefined;
  /** The one that was given it, and how that goes. */
  #given: { readonly link: FrontendLink; readonly done: Promise<void> } | undefined;

  /** For rings of so many entries at most. */
  constructor(queueSize: number) {
    this.#queueSize = queueSize;
  }

  /** A back-end that is given it knows where rings stopped whose back-end vanished. */
  get kept(): boolean {
    return this.#area !== undefined;
  }

  /** Gives it to the back-end, once. */
  give(link: FrontendLink): Promise<void> {
    if (!link.has(PROTOCOL_FEATURE.INFLIGHT_SHMFD)) return Promise.resolve();
    if (this.#given?.link !== link) this.#given = { link, done: this.#give(link) };
    return this.#given.done;
  }

  async #give(link: FrontendLink): Promise<void> {
    this.#area ??= await this.#ask(link);
    if (this.#area === undefined) return;
    await link.requester.tell('SET_INFLIGHT_FD', this.#area.payload, [this.#area.fd]);
  }

  /** Undefined where the back-end needs none. */
  async #ask(link: FrontendLink): Promise<Area | undefined> {
    const queues = Math.min(link.queueCount, QUEUES_MAX);
    const request = { size: 0, offset: 0, queues, queueSize: this.#queueSize };
    const { payload, fds } = await link.requester.askForFds('GET_INFLIGHT_FD', INFLIGHT_AREA.encode(request));
    const { size, offset } = INFLIGHT_AREA.read(payload);
    const [fd, ...others] = fds;
    closeAll(others);
    if (size === 0 || fd === undefined) {
      fd?.close();
      if (size === 0) return undefined;
      throw new VhostUserUnsupportedError('the memory for what is in flight came without its descriptor');
    }
    return { payload: INFLIGHT_AREA.encode({ ...request, size, offset }), fd };
  }

  /** The driver begins anew. */
  close(): void {
    this.#area?.fd.close();
    this.#area = undefined;
    this.#given = undefined;
  }
}

/** Of a back-end that does not say how many queues it has. */
const QUEUES_MAX = 16;
