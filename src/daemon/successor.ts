/**
 * The process that is to take this daemon's place: started with the same words, told what there is to take over, and killed
 * when it does not serve in time. Which guests are handed over, and what becomes of them if it fails, is `daemon.ts`'s.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { GUEST_VERSION } from '../keeping/guest-file.ts';
import { HandOverLink, type HandOverMessage, handOverError } from '../keeping/hand-over.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import { DESCRIPTORS_MAX, UnixSocket } from '../sys/socket.ts';
import { HAND_OVER_VARIABLE, type HandedKeeper } from './predecessor.ts';

/** How this program is started anew. */
export interface Program {
  readonly file: string;
  readonly words: readonly string[];
  /** The first of the words, up to its script: any command may follow. */
  readonly start: readonly string[];
}

/** What there is to be handed over. The descriptors stay the giver's. */
interface HandedOver {
  readonly guests: readonly string[];
  /** The API's socket, which listens. */
  readonly api: OwnedFd;
  readonly keeper: HandedKeeper;
}

/** The number of its end of the socket in the new process, behind the standard streams. */
const CHANNEL_FD = 3;

export class Successor {
  readonly #child: ChildProcess;
  readonly #link: HandOverLink;
  readonly #untilMs: number;
  /** Resolves when the process is gone, with what became of it. */
  readonly #gone: Promise<string>;
  #version = '';

  private constructor(child: ChildProcess, link: HandOverLink, timeoutMs: number) {
    this.#child = child;
    this.#link = link;
    this.#untilMs = monotonicMs() + timeoutMs;
    this.#gone = Promise.race([
      once(child, 'exit').then(([code, signal]) => `ended with ${signal ?? `code ${code}`}`),
      once(child, 'error').then(([error]) => `did not start: ${(error as Error).message}`),
    ]);
  }

  /**
   * Starts it; resolves when it is ready to take over `guests`.
   * @throws AerostatError AEROSTAT_HAND_OVER when it is not in time, or cannot serve them; then it is gone
   */
  static async start(
    { file, words }: Program,
    { guests, api, keeper }: HandedOver,
    timeoutMs: number,
  ): Promise<Successor> {
    const [ours, theirs] = UnixSocket.pair();
    const child = spawn(file, words, {
      stdio: ['inherit', 'inherit', 'inherit', theirs.fd.number],
      env: { ...process.env, [HAND_OVER_VARIABLE]: String(CHANNEL_FD) },
    });
    theirs.close();
    // It outlives this process.
    child.unref();
    const successor = new Successor(child, new HandOverLink(ours), timeoutMs);
    try {
      await successor.#link.send({ kind: 'api' }, [api]);
      await successor.#link.send({ kind: 'keeper', place: keeper.kind }, [keeper.descriptor]);
      const ready = await successor.#hear('ready');
      checkStates(ready, guests);
      successor.#version = ready.version;
      return successor;
    } catch (error) {
      await successor.kill();
      throw error;
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get version(): string {
    return this.#version;
  }

  /** Hands a guest over, of which {@link heardTaken} is to be heard. The descriptors stay the caller's. */
  async giveGuest(
    guest: string,
    listener: OwnedFd,
    kept: readonly (readonly [number, OwnedFd])[],
  ): Promise<void> {
    for (let at = 0; at < kept.length; at += DESCRIPTORS_MAX) {
      const some = kept.slice(at, at + DESCRIPTORS_MAX);
      const numbers = some.map(([number]) => number);
      await this.#link.send(
        { kind: 'kept', guest, numbers },
        some.map(([, fd]) => fd),
      );
    }
    await this.#link.send({ kind: 'listener', guest }, [listener]);
  }

  /** Resolves when the other process serves the first that was handed over of those that this was not said of. */
  async heardTaken(): Promise<void> {
    await this.#hear('taken');
  }

  /** Those were all guests; resolves when the other process serves. */
  async finish(): Promise<void> {
    await this.#link.send({ kind: 'all' });
    await this.#hear('serving');
    this.#link.close();
  }

  /** Resolves when it is gone, with all of its threads. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
    this.#link.close();
  }

  async #hear<Kind extends HandOverMessage['kind']>(
    kind: Kind,
  ): Promise<Extract<HandOverMessage, { kind: Kind }>> {
    const received = await this.#link.receive(this.#untilMs).catch(error => {
      throw handOverError(`the new process (${this.pid}) was given up: ${(error as Error).message}`);
    });
    closeAll(received?.fds ?? []);
    if (received === undefined) throw handOverError(`the new process ${await this.#gone}`);
    const { message } = received;
    if (message.kind === 'failed') throw handOverError(`the new process cannot serve: ${message.message}`);
    if (message.kind !== kind)
      throw handOverError(`the new process said ${message.kind} where ${kind} was due`);
    return message as Extract<HandOverMessage, { kind: Kind }>;
  }
}

function checkStates(
  { version, stateVersion, guests: theirs }: Extract<HandOverMessage, { kind: 'ready' }>,
  guests: readonly string[],
): void {
  if (!(stateVersion >= GUEST_VERSION)) {
    throw handOverError(
      `version ${version} reads kept guests up to state version ${stateVersion}, and this daemon has them in version ${GUEST_VERSION}; install a newer one, or end this daemon and start that one`,
    );
  }
  const missing = guests.filter(name => !theirs.includes(name));
  if (missing.length > 0) throw handOverError(`version ${version} would not serve ${missing.join(', ')}`);
}
