/** Promises that are settled from outside, alone or by the number of a question that went elsewhere. */

export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((settle, fail) => {
    resolve = settle;
    reject = fail;
  });
  return { promise, resolve, reject };
}

/** Of a question that is under way; what its answer is, the one who asked knows. */
type Call = Pick<Deferred<never>, 'resolve' | 'reject'>;

/** Questions to another thread or process that are under way, each with a number that its answer carries. */
export class PendingCalls {
  readonly #calls = new Map<number, Call>();
  #nextId = 1;

  /** The number of the next question. */
  number(): number {
    return this.#nextId++;
  }

  /** Waits for the answer to the question of this number, which was just sent. */
  wait<T>(id: number): Promise<T> {
    const call = deferred<T>();
    this.#calls.set(id, call);
    return call.promise;
  }

  /** False where no such question is under way; then nothing happens. */
  answer(id: number, answer: unknown): boolean {
    const call = this.#take(id);
    call?.resolve(answer as never);
    return call !== undefined;
  }

  /** As {@link answer}, for a question that was not answered. */
  refuse(id: number, error: Error): boolean {
    const call = this.#take(id);
    call?.reject(error);
    return call !== undefined;
  }

  /** No answer comes any more to what is under way. */
  refuseAll(error: Error): void {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const { reject } of calls) reject(error);
  }

  #take(id: number): Call | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }
}
