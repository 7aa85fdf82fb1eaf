/**
 * What was written into the configuration space while no ring ran. It is the next driver's if it turns out that one
 * began: Linux writes what its free pages are filled with before it starts its rings, and a front-end that announces
 * no reset has no rings described until then.
 */
import { CONFIG_BYTES_MAX } from './protocol.ts';
import type { SessionState } from './saved-session.ts';

export class ConfigWrites {
  readonly #bytes = new Uint8Array(CONFIG_BYTES_MAX);
  /** Bytes that were written. */
  readonly #written = new Uint8Array(CONFIG_BYTES_MAX);

  /** Notes bytes that lie within the configuration space. */
  note(offset: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, offset);
    this.#written.fill(1, offset, offset + bytes.length);
  }

  clear(): void {
    this.#written.fill(0);
  }

  /** All bytes, and 1 for each that was written. */
  save(): Pick<SessionState, 'configBytes' | 'configWritten'> {
    return { configBytes: this.#bytes.slice(), configWritten: this.#written.slice() };
  }

  load({ configBytes, configWritten }: Pick<SessionState, 'configBytes' | 'configWritten'>): void {
    this.#bytes.set(configBytes);
    this.#written.set(configWritten);
  }

  /** Writes all of it again, in as few writes as it takes. */
  replay(write: (offset: number, bytes: Uint8Array) => void): void {
    for (let end = 0, start = this.#written.indexOf(1); start >= 0; start = this.#written.indexOf(1, end)) {
      end = this.#written.indexOf(0, start);
      if (end < 0) end = CONFIG_BYTES_MAX;
      write(start, this.#bytes.slice(start, end));
    }
  }
}
