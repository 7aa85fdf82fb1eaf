/**
 * Cuts a stream of bytes into lines, as QMP and qtest speak them. The stream is a peer's, so a line may
 * come in any number of pieces and may not grow without bound. What a line means is not known here.
 */

export class LineTooLongError extends Error {}

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

export class LineSplitter {
  readonly #bytesMax: number;
  #pieces: Buffer[] = [];
  #bytes = 0;

  /** @param bytesMax length of a line, without its end, beyond which the stream counts as broken */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /**
   * Takes the next piece of the stream and calls `visit` for each line that it completes, without its line
   * end.
   * @throws LineTooLongError
   */
  push(chunk: Buffer, visit: (line: string) => void): void {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start);
      const piece = chunk.subarray(start, end < 0 ? chunk.length : end);
      this.#bytes += piece.length;
      if (this.#bytes > this.#bytesMax)
        throw new LineTooLongError(`a line of more than ${this.#bytesMax} bytes`);
      if (end < 0) {
        if (piece.length > 0) this.#pieces.push(piece);
        return;
      }
      visit(this.#take(piece));
      start = end + 1;
    }
  }

  #take(last: Buffer): string {
    const line = this.#pieces.length === 0 ? last : Buffer.concat([...this.#pieces, last]);
    this.#pieces = [];
    this.#bytes = 0;
    const length =
      line.length > 0 && line[line.length - 1] === CARRIAGE_RETURN ? line.length - 1 : line.length;
    return line.toString('utf8', 0, length);
  }
}
