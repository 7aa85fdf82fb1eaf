/**
 * A hosted guest and what is kept of it for the next daemon: where its host begins, and what it tells. What is kept, and in
 * which order it is written, is `keeping/`'s.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import { DISCARD_MODES, type DiscardMode } from '../device/discard-mode.ts';
import { MemoryGuestFile } from '../keeping/guest-file.ts';
import type { GuestsKeeper } from '../keeping/guests-keeper.ts';
import { FILE_NUMBER, KeptGuest, KeptGuestError, SOCKET_NUMBER } from '../keeping/kept-guest.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { closeAll, OwnedFd } from '../sys/fd.ts';
import type { KeptSession } from '../vhost-user/backend-connection.ts';
import type { GuestHostWorld } from './guest-world.ts';
import type { GuestOptions } from './options.ts';
import type { TargetSteering } from './target-steering.ts';
import type { GuestSocket } from './worker-protocol.ts';

interface SteeredParts {
  readonly device: BalloonDevice;
  readonly target: TargetSteering;
  readonly statistics: { readonly intervalMs: number };
}

/** A front-end that is there already, since another daemon had it. */
interface FoundFrontEnd {
  readonly socket: OwnedFd;
  readonly session: KeptSession;
}

type Warn = (message: string) => void;

export class GuestKeeping {
  readonly guest: KeptGuest;
  /** With the target, the mode and the interval that the guest has had. */
  readonly options: GuestOptions;
  readonly #wishedMemoryBytes: number | null;
  readonly #fds: Map<number, OwnedFd>;
  readonly #warn: Warn;
  readonly #clear: () => void;
  readonly #hasAll: () => boolean;
  /** What cannot go on here is to be thrown, and nothing of it changed. */
  readonly #strict: boolean;

  private constructor(
    options: GuestOptions,
    { handedOver = false }: GuestSocket,
    found: Map<number, OwnedFd>,
    keeper: GuestsKeeper,
    warn: Warn,
  ) {
    const { name } = options;
    this.#fds = found;
    this.#strict = handedOver;
    this.#warn = warn;
    this.#clear = () => keeper.clear(name);
    this.#hasAll = () => keeper.hasAll;
    // Before anything is kept or dropped: what is there already.
    keeper.of(name, found);
    const file = found.get(FILE_NUMBER);
    found.delete(FILE_NUMBER);
    const opened = file && this.#open(new MemoryGuestFile(file), options, keeper);
    if (opened === undefined) {
      const empty = MemoryGuestFile.create(name);
      this.guest = KeptGuest.create(empty, keeper.of(name), options.profile);
      keeper.of(name).keep(FILE_NUMBER, empty.fd);
      this.options = options;
      this.#wishedMemoryBytes = null;
      return;
    }
    this.guest = opened;
    const { targetPages, mode, pollIntervalMs, wishedMemoryBytes } = opened.steering;
    this.options = { ...options, targetBytes: targetPages * PAGE_SIZE, discard: mode, pollIntervalMs };
    this.#wishedMemoryBytes = wishedMemoryBytes;
  }

  /** Undefined where the guest is not to be kept, or cannot be. Takes ownership of what was kept of it. */
  static of(
    options: GuestOptions,
    socket: GuestSocket,
    { keeper, log }: GuestHostWorld,
  ): GuestKeeping | undefined {
    const warn = (message: string): void => log(options.name, 'warn', message);
    const found = new Map((socket.kept ?? []).map(([number, fd]) => [number, new OwnedFd(fd)]));
    return keeper === undefined ? undefined : new GuestKeeping(options, socket, found, keeper, warn);
  }

  #open(
    file: MemoryGuestFile,
    { name, profile: abi }: GuestOptions,
    keeper: GuestsKeeper,
  ): KeptGuest | undefined {
    try {
      return KeptGuest.open(file, keeper.of(name), abi);
    } catch (error) {
      if (!(error instanceof KeptGuestError) || this.#strict) throw error;
      this.#refuse(error);
      file.close();
      return undefined;
    }
  }

  /** Nothing of what was kept is used. */
  #refuse(error: Error): void {
    this.#warn(error.message);
    closeAll(this.#fds.values());
    this.#fds.clear();
    this.#clear();
  }

  /**
   * The guest is put together: it is kept from now on. Returns the front-end that it has already, unless another one is
   * handed over instead of a socket that `listens`.
   */
  start(parts: SteeredParts, listens: boolean): FoundFrontEnd | undefined {
    const { guest } = this;
    guest.device = parts.device;
    if (this.#wishedMemoryBytes !== null) parts.target.resumed(this.#wishedMemoryBytes);
    guest.steered = () => steeringOf(parts);
    const socket = this.#fds.get(SOCKET_NUMBER);
    this.#fds.delete(SOCKET_NUMBER);
    try {
      const session = guest.takeUp(this.#fds);
      if (listens && socket !== undefined && session !== undefined) return { socket, session };
      for (const fd of session === undefined ? [] : [...session.saved.fds, ...session.fds]) fd.close();
    } catch (error) {
      if (!(error instanceof KeptGuestError) || this.#strict) throw error;
      this.#warn(error.message);
    }
    socket?.close();
    guest.end();
    return undefined;
  }

  /** What is kept of it would be found by the next daemon. */
  get isStored(): boolean {
    return this.#hasAll();
  }

  /** Leaves the guest to another process; `frontEnd` is the socket of its front-end. Returns duplicates, by their numbers. */
  leave(frontEnd: OwnedFd | undefined): (readonly [number: number, fd: number])[] {
    // From now on nothing is written there by this process.
    this.guest.noteDevice();
    this.guest.device = undefined;
    this.guest.steered = undefined;
    const socket = frontEnd === undefined ? [] : [[SOCKET_NUMBER, frontEnd] as const];
    return [...this.guest.descriptors, ...socket].map(([number, fd]) => [number, fd.duplicate().release()]);
  }

  /** The guest is sent away. */
  close(): void {
    this.guest.close();
    this.#clear();
  }
}

const steeringOf = ({ device, target, statistics }: SteeredParts) => ({
  targetPages: device.targetPages,
  mode: (DISCARD_MODES as readonly string[]).includes(device.inflation.mode)
    ? (device.inflation.mode as DiscardMode)
    : ('auto' as const),
  pollIntervalMs: statistics.intervalMs,
  wishedMemoryBytes: target.wishedMemoryBytes,
});
