/** A question that is asked again and again, and waited for only so long. One that is still open is not asked twice. */
import { AerostatError } from '../sys/error.ts';

export class PatientQuestion<Answer> {
  readonly #ask: () => Promise<Answer>;
  #open: Promise<Answer | AerostatError> | undefined;
  #isLate = false;

  constructor(ask: () => Promise<Answer>) {
    this.#ask = ask;
  }

  /** The answer, or why there is none; `late` where it takes longer than `patienceMs`, and until it is there. */
  async within(patienceMs: number, late: AerostatError): Promise<Answer | AerostatError> {
    if (this.#isLate) return late;
    this.#open ??= this.#answer();
    const first = await firstOf(this.#open, patienceMs, late);
    this.#isLate = first === late;
    return first;
  }

  async #answer(): Promise<Answer | AerostatError> {
    try {
      return await this.#ask();
    } catch (error) {
      if (error instanceof AerostatError) return error;
      throw error;
    } finally {
      this.#open = undefined;
      this.#isLate = false;
    }
  }
}

async function firstOf<Value>(
  answer: Promise<Value>,
  patienceMs: number,
  late: AerostatError,
): Promise<Value | AerostatError> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<AerostatError>(resolve => {
    timer = setTimeout(() => resolve(late), patienceMs);
  });
  try {
    return await Promise.race([answer, silence]);
  } finally {
    clearTimeout(timer);
  }
}
