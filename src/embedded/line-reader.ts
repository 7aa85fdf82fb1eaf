/** Lines of a descriptor, read with a reactor: one poll(2) waits for rings, timers and commands alike. */
import { readSync } from 'node:fs';
import { OwnedFd } from '../sys/fd.ts';
import type { Reactor, Watch } from '../sys/poll.ts';

/** The longest honest command has a hundred bytes. */
const LINE_BYTES_MAX = 65_536;

export interface LineReaderOptions {
  readonly reactor: Reactor;
  readonly onLine: (line: string) => void;
  /** Nothing more will come. */
  readonly onEnd: () => void;
}

export class LineReader {
  readonly #options: LineReaderOptions;
  readonly #fd: OwnedFd;
  readonly #watch: Watch;
  readonly #chunk = Buffer.alloc(4096);
  readonly #decoder = new TextDecoder();
  #text = '';

  /** `fd` stays the caller's. */
  constructor(fd: number, options: LineReaderOptions) {
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
    if (length === 0) {
      this.close();
      this.#options.onEnd();
      return;
    }
    this.#text += this.#decoder.decode(this.#chunk.subarray(0, length), { stream: true });
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    if (this.#text.length > LINE_BYTES_MAX) this.#text = '';
    for (const line of lines) if (line.trim() !== '') this.#options.onLine(line);
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
