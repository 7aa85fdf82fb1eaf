/** What comes on a descriptor, read with a reactor: one poll(2) waits for rings, timers and commands alike. */
import { readSync } from 'node:fs';
import { OwnedFd } from '../sys/fd.ts';
import type { Reactor, Watch } from '../sys/poll.ts';

/** The longest honest command has a hundred bytes. */
const LINE_BYTES_MAX = 65_536;

export interface InputReaderOptions {
  readonly reactor: Reactor;
  /** The bytes are valid until it returns. */
  readonly onBytes: (bytes: Uint8Array) => void;
  /** Nothing more will come. */
  readonly onEnd: () => void;
}

/** Bytes as they come: a terminal's keys, for an editor of lines. */
export class InputReader {
  readonly #options: InputReaderOptions;
  readonly #fd: OwnedFd;
  readonly #watch: Watch;
  readonly #chunk = Buffer.alloc(4096);

  /** `fd` stays the caller's. */
  constructor(fd: number, options: InputReaderOptions) {
    this.#options = options;
    // A duplicate of it, to be closed.
    const borrowed = new OwnedFd(fd);
    this.#fd = borrowed.duplicate();
    borrowed.release();
    this.#watch = options.reactor.watch(this.#fd, () => this.#read());
  }

  close(): void {
    this.#watch.stop();
    this.#fd.close();
  }

  #read(): void {
    const length = this.#receive();
    if (length === undefined) return;
    if (length > 0) {
      this.#options.onBytes(this.#chunk.subarray(0, length));
      return;
    }
    this.close();
    this.#options.onEnd();
  }

  #receive(): number | undefined {
    try {
      return readSync(this.#fd.number, this.#chunk);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') return undefined;
      // A terminal that is gone says so.
      return 0;
    }
  }
}

export interface LineReaderOptions {
  readonly reactor: Reactor;
  readonly onLine: (line: string) => void;
  /** Nothing more will come. */
  readonly onEnd: () => void;
}

export class LineReader {
  readonly #onLine: (line: string) => void;
  readonly #input: InputReader;
  readonly #decoder = new TextDecoder();
  #text = '';

  /** `fd` stays the caller's. */
  constructor(fd: number, { reactor, onLine, onEnd }: LineReaderOptions) {
    this.#onLine = onLine;
    this.#input = new InputReader(fd, { reactor, onBytes: bytes => this.#take(bytes), onEnd });
  }

  close(): void {
    this.#input.close();
  }

  #take(bytes: Uint8Array): void {
    this.#text += this.#decoder.decode(bytes, { stream: true });
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    if (this.#text.length > LINE_BYTES_MAX) this.#text = '';
    for (const line of lines) if (line.trim() !== '') this.#onLine(line);
  }
}
