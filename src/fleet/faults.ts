/** What an agent cannot do at present, by what it is that fails: each is told of when it begins, and when it is over. */
export type Doing =
  | 'join'
  | 'be let in'
  | 'report'
  | 'lead'
  | 'order'
  | 'look around'
  | 'take up its orders'
  | 'record';

export class Faults {
  readonly #log: (level: 'info' | 'warn', message: string) => void;
  /** Since it began to fail, all that was said of it; the newest last. */
  readonly #present = new Map<Doing, Set<string>>();

  constructor(log: (level: 'info' | 'warn', message: string) => void) {
    this.#log = log;
  }

  /** Null while all is well. */
  get newest(): string | null {
    const messages = [...this.#present.values()].at(-1);
    return messages === undefined ? null : ([...messages].at(-1) ?? null);
  }

  begin(doing: Doing, message: string): void {
    const messages = this.#present.get(doing) ?? new Set();
    this.#present.set(doing, messages);
    if (messages.has(message)) return;
    messages.add(message);
    this.#log('warn', message);
  }

  end(doing: Doing): void {
    if (this.#present.delete(doing)) this.#log('info', `it can ${doing} again`);
  }
}
