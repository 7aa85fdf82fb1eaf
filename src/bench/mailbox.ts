/** What the other side of a bench, a thread or a process, says in turn, and how long it is waited for. */
import { type Deferred, deferred } from '../sys/deferred.ts';
import { AerostatError } from '../sys/error.ts';

/** A side that says nothing for this long never will. */
const SILENCE_MS_MAX = 180_000;

export class Mailbox<From extends { readonly kind: string }> {
  readonly #side: string;
  readonly #signal: AbortSignal | undefined;
  readonly #messages: From[] = [];
  /** Nothing more comes: why, where that is known. */
  #over: { readonly why: string | undefined } | undefined;
  #awaited: Deferred<void> | undefined;

  /** `side` is its name in errors. Nothing more is waited for once `signal` aborts. */
  constructor(side: string, signal?: AbortSignal) {
    this.#side = side;
    this.#signal = signal;
  }

  /** Whether nothing more is to be waited for. */
  get over(): boolean {
    return this.#over !== undefined || this.#signal?.aborted === true;
  }

  put(message: From): void {
    this.#messages.push(message);
    this.#awaited?.resolve();
  }

  /** The side is gone. */
  end(why?: string): void {
    this.#over ??= { why };
    this.#awaited?.resolve();
  }

  /**
   * The next message, which has to be of one of these kinds.
   * @throws AerostatError AEROSTAT_BENCH when it is another, the side ends or is silent; the signal's reason when that aborts
   */
  async next<K extends From['kind']>(...kinds: readonly K[]): Promise<Extract<From, { readonly kind: K }>> {
    const awaited = kinds.join(' or ');
    if (this.#messages.length === 0 && this.#over === undefined) await this.#news(awaited);
    const message = this.#messages.shift();
    if (kinds.some(kind => kind === message?.kind)) return message as Extract<From, { readonly kind: K }>;
    throw this.#failed(this.#complaint(message) ?? this.#over?.why ?? `it ended before it had ${awaited}`);
  }

  /** What a message that was not awaited says; undefined where there is none. */
  #complaint(message: From | undefined): string | undefined {
    if (message === undefined) return undefined;
    return 'message' in message ? String(message.message) : `it said ${message.kind}`;
  }

  /** Resolves when there is a message, or none comes any more. */
  async #news(awaited: string): Promise<void> {
    this.#signal?.throwIfAborted();
    const news = deferred();
    this.#awaited = news;
    const abort = (): void => news.reject(this.#signal?.reason);
    this.#signal?.addEventListener('abort', abort);
    const silent = this.#failed(`it is silent; it should have ${awaited}`);
    const timer = setTimeout(() => news.reject(silent), SILENCE_MS_MAX);
    try {
      await news.promise;
    } finally {
      this.#signal?.removeEventListener('abort', abort);
      clearTimeout(timer);
    }
  }

  #failed(why: string): AerostatError {
    return new AerostatError('AEROSTAT_BENCH', `${this.#side} failed: ${why}`);
  }
}
