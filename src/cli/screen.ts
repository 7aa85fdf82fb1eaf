/**
 * A terminal that is drawn over and over: on its second screen, so that what was there before comes back, and
 * without a cursor. The code that opens one closes it on every path; a process that ends before that closes it as well.
 */
import type { Output } from './context.ts';

/** Without wrapping: a line that is too wide would push the others down. */
const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l';
const LEAVE = '\u001b[?7h\u001b[?25h\u001b[?1049l';
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

/** Of a terminal that does not know its size: it says 0, as a serial line that was told none does. */
const COLUMNS = 80;
const ROWS = 24;

export class Screen {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
    process.once('exit', this.#leave);
    output.write(ENTER);
  }

  get columns(): number {
    return this.#output.columns || COLUMNS;
  }

  get rows(): number {
    return this.#output.rows || ROWS;
  }

  /** Draws over the frame before, line by line, so that nothing flickers; what does not fit is cut off. */
  draw(lines: readonly string[]): void {
    const fitting = lines.slice(0, this.rows);
    this.#output.write(`${HOME}${fitting.map(line => line + CLEAR_LINE).join('\r\n')}${CLEAR_BELOW}`);
  }

  close(): void {
    process.removeListener('exit', this.#leave);
    this.#leave();
  }

  readonly #leave = (): void => {
    this.#output.write(LEAVE);
  };
}
