/**
 * The qtest protocol: a line of text for every access to a machine's ports and memory, by which QEMU's own
 * tests drive devices without a guest (QEMU's docs/devel/qtest). QEMU carries commands out in their order,
 * so many can be under way at once, and a command without a waiting caller still takes effect before the next.
 * Which device is driven is not known here.
 */

import type { Duplex } from 'node:stream';
import { deferred } from '../../sys/deferred.ts';
import { Listeners } from '../../sys/listeners.ts';
import { QtestError } from './errors.ts';
import { LineSplitter, LineTooLongError } from './lines.ts';

/** Memory is read and written in pieces, each a line of this many bytes in base64. */
const PIECE_BYTES = 64 * 1024;
const LINE_BYTES_MAX = 4 * PIECE_BYTES;

interface PendingCommand {
  readonly line: string;
  readonly resolve: (value: string) => void;
  readonly reject: (error: QtestError) => void;
}

/** A change of an interrupt line that was intercepted. */
interface InterruptLine {
  readonly line: number;
  readonly raised: boolean;
}

const hex = (value: number): string => `0x${value.toString(16)}`;

export class Qtest {
  readonly #end = deferred<QtestError>();
  /** Settles with the reason when the connection ended; never rejects. */
  readonly ended = this.#end.promise;
  readonly #stream: Duplex;
  readonly #pending: (PendingCommand | undefined)[] = [];
  readonly #listeners = new Listeners<[change: InterruptLine]>();
  #failure: QtestError | undefined;

  /** Takes ownership of a connected stream. */
  constructor(stream: Duplex) {
    this.#stream = stream;
    const splitter = new LineSplitter(LINE_BYTES_MAX);
    stream.on('data', (chunk: Buffer) => {
      try {
        splitter.push(chunk, line => this.#receive(line));
      } catch (cause) {
        if (!(cause instanceof LineTooLongError)) throw cause; // A listener's.
        this.#fail(new QtestError(`QEMU broke the qtest protocol: ${(cause as Error).message}`, { cause }));
      }
    });
    stream.once('error', cause =>
      this.#fail(new QtestError(`the qtest connection broke: ${cause.message}`, { cause })),
    );
    stream.once('close', () =>
      this.#fail(new QtestError('QEMU closed the qtest connection; it may have ended')),
    );
  }

  get open(): boolean {
    return this.#failure === undefined;
  }

  /** Sends a command; settles with what stands after OK. @throws QtestError */
  command(line: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      this.#pending.push({ line, resolve, reject });
      this.#stream.write(`${line}\n`);
    });
  }

  /**
   * Sends a command without waiting for its answer; it leaves at once. QEMU's refusal of it ends the connection, for
   * what follows relied on it. Does nothing on a connection that ended.
   */
  post(line: string): void {
    if (this.#failure !== undefined) return;
    this.#pending.push(undefined);
    this.#stream.write(`${line}\n`);
  }

  /** Settles when all that was sent before is done. */
  async settle(): Promise<void> {
    // The cheapest question that changes nothing.
    await this.command('endianness');
  }

  async inl(port: number): Promise<number> {
    return this.#number(`inl ${hex(port)}`);
  }

  outl(port: number, value: number): void {
    this.post(`outl ${hex(port)} ${hex(value)}`);
  }

  readb(address: number): Promise<number> {
    return this.#number(`readb ${hex(address)}`);
  }

  readw(address: number): Promise<number> {
    return this.#number(`readw ${hex(address)}`);
  }

  readl(address: number): Promise<number> {
    return this.#number(`readl ${hex(address)}`);
  }

  writeb(address: number, value: number): void {
    this.post(`writeb ${hex(address)} ${hex(value)}`);
  }

  writew(address: number, value: number): void {
    this.post(`writew ${hex(address)} ${hex(value)}`);
  }

  writel(address: number, value: number): void {
    this.post(`writel ${hex(address)} ${hex(value)}`);
  }

  async read(address: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const pieces: Promise<void>[] = [];
    for (let at = 0; at < length; at += PIECE_BYTES) {
      const part = Math.min(PIECE_BYTES, length - at);
      const piece = this.command(`b64read ${hex(address + at)} ${hex(part)}`).then(answer => {
        const decoded = Buffer.from(answer, 'base64');
        if (decoded.length !== part)
          throw new QtestError(`QEMU answered ${part} bytes with ${decoded.length}`);
        bytes.set(decoded, at);
      });
      pieces.push(piece);
    }
    await Promise.all(pieces);
    return bytes;
  }

  /** Writes guest memory through QEMU, so that its dirty tracking sees it. */
  write(address: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const part = bytes.subarray(at, at + PIECE_BYTES);
      const data = Buffer.from(part.buffer, part.byteOffset, part.length).toString('base64');
      this.post(`b64write ${hex(address + at)} ${hex(part.length)} ${data}`);
    }
  }

  /**
   * Reports what arrives at the interrupt inputs of the device at `path` instead of delivering it. Once a
   * machine.
   */
  async interceptInterrupts(path: string): Promise<void> {
    await this.command(`irq_intercept_in ${path}`);
  }

  onInterruptLine(listener: (change: InterruptLine) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Idempotent. */
  close(): void {
    this.#fail(new QtestError('the qtest connection was closed'));
  }

  async #number(line: string): Promise<number> {
    const answer = await this.command(line);
    const value = Number(answer);
    if (answer === '' || !Number.isSafeInteger(value))
      throw new QtestError(`QEMU answered ${line} with ${answer}`);
    return value;
  }

  #receive(line: string): void {
    const interrupt = /^IRQ (raise|lower) (\d{1,9})$/.exec(line);
    if (interrupt !== null) {
      const change = { raised: interrupt[1] === 'raise', line: Number(interrupt[2]) };
      this.#listeners.emit(change);
    } else if (this.#pending.length === 0) {
      this.#fail(new QtestError(`QEMU broke the qtest protocol: an answer to nothing, ${line.slice(0, 80)}`));
    } else {
      this.#answer(this.#pending.shift(), line);
    }
  }

  #answer(pending: PendingCommand | undefined, line: string): void {
    if (line === 'OK' || line.startsWith('OK ')) {
      pending?.resolve(line.slice(3));
      return;
    }
    const what = pending?.line.slice(0, 80) ?? 'a qtest command';
    const refusal = new QtestError(`QEMU refused ${what}: ${line.slice(0, 200)}`);
    if (pending === undefined) this.#fail(refusal);
    else pending.reject(refusal);
  }

  #fail(reason: QtestError): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#stream.destroy();
    for (const pending of this.#pending.splice(0)) pending?.reject(reason);
    this.#listeners.clear();
    this.#end.resolve(reason);
  }
}
