/**
 * The host's side of the command channel (init.ts is the guest's): sends scripts, collects their output and
 * exit codes, several at a time. It owns the stream to the guest and knows nothing of how the guest lives.
 */

import type { Duplex } from 'node:stream';
import { deferred } from '../../sys/deferred.ts';
import { GuestCommandError } from './errors.ts';

export interface CommandResult {
  /** As the guest's shell says: 128 + N for a command that signal N ended. */
  readonly exitCode: number;
  /** Standard output and error together, byte for byte. */
  readonly bytes: Buffer;
  /** The same, read as UTF-8. */
  readonly output: string;
}

/** The kernel passes a program no longer argument (MAX_ARG_STRLEN), and four characters may stand for a byte. */
const SCRIPT_CHARACTERS_MAX = 128 * 1024 - 1;
/** Well below the guest's terminal buffer, 4 KiB. */
const PIECE_CHARACTERS = 2048;
/** More output than anything of ours reads; a command that goes on and on shall not fill our heap. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** Many times the longest line that the guest's side writes. */
const LINE_CHARACTERS_MAX = 64 * 1024;

/**
 * A script as the inside of the shell's $'…': everything but the plainest printable ASCII becomes a backslash
 * and three octal digits, UTF-8 byte by byte.
 * @throws GuestCommandError for a script that no argument of a program can hold
 */
export function escapeScript(script: string): string {
  if (script.includes('\0')) throw new GuestCommandError('a command for the guest holds a zero byte');
  const bytes = Buffer.from(script, 'utf8').toString('latin1');
  const octal = (byte: string) => `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`;
  const escaped = bytes.replace(/[^\x21-\x26\x28-\x5b\x5d-\x7e]/g, octal);
  if (escaped.length > SCRIPT_CHARACTERS_MAX) {
    throw new GuestCommandError(`a command for the guest is too long: ${bytes.length} bytes`);
  }
  return escaped;
}

type GuestLine =
  | { readonly kind: 'ready' }
  | { readonly kind: 'process'; readonly id: number; readonly pid: number }
  | { readonly kind: 'output'; readonly id: number; readonly bytes: Buffer }
  | { readonly kind: 'end'; readonly id: number; readonly exitCode: number };

/** Reads a line of the guest's; undefined for one that is not of the protocol. */
export function parseGuestLine(line: string): GuestLine | undefined {
  if (line === 'ready') return { kind: 'ready' };
  const output = /^(\d{1,15}) o ([\w+/=]*)$/.exec(line);
  if (output !== null) {
    return { kind: 'output', id: Number(output[1]), bytes: Buffer.from(output[2]!, 'base64') };
  }
  const number = /^(\d{1,15}) ([px]) (\d{1,10})$/.exec(line);
  if (number === null) return undefined;
  const id = Number(number[1]);
  const value = Number(number[3]);
  return number[2] === 'p' ? { kind: 'process', id, pid: value } : { kind: 'end', id, exitCode: value };
}

interface PendingCommand {
  readonly pieces: Buffer[];
  bytes: number;
  /** Session in the guest, once it is known. */
  pid: number | undefined;
  /** Its result no longer matters, and it dies as soon as its session is known. */
  abandoned: boolean;
  readonly resolve: (result: CommandResult) => void;
  readonly reject: (error: Error) => void;
}

export class CommandChannel {
  readonly #readiness = deferred();
  /** Settles when the guest takes commands; rejects when the channel fails before. */
  readonly ready = this.#readiness.promise;
  #stream!: Duplex;
  /** The beginning of a line whose end did not come yet. */
  #rest = '';
  readonly #pending = new Map<number, PendingCommand>();
  /** Lines that wait for the guest to have read the one before. */
  readonly #unsent: string[] = [];
  #guestReads = false;
  #nextId = 1;
  #failure: Error | undefined;

  constructor(stream: Duplex) {
    this.ready.catch(() => {}); // Marks the rejection as handled; callers may still await it.
    this.#listen(stream);
  }

  /**
   * Goes on over another stream: the guest, as it was, lives elsewhere now. What the old stream brought was taken in
   * before; it is destroyed.
   */
  moveTo(stream: Duplex): void {
    this.#stream.removeAllListeners('data').destroy();
    this.#listen(stream);
    this.#send();
  }

  /**
   * Starts a script in the guest's shell. `result` rejects when the channel fails, and with a
   * GuestCommandError when the output goes beyond all bounds.
   */
  start(script: string): { readonly id: number; readonly result: Promise<CommandResult> } {
    const escaped = escapeScript(script);
    const id = this.#nextId++;
    const result = new Promise<CommandResult>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      this.#pending.set(id, { pieces: [], bytes: 0, pid: undefined, abandoned: false, resolve, reject });
      for (let at = 0; at < escaped.length; at += PIECE_CHARACTERS) {
        this.#unsent.push(`text ${escaped.slice(at, at + PIECE_CHARACTERS)}`);
      }
      this.#unsent.push(`run ${id}`);
      this.#send();
    });
    return { id, result };
  }

  /** Kills a command with all that it started; its `result` rejects with `reason` at once. */
  abandon(id: number, reason: Error): void {
    const command = this.#pending.get(id);
    if (command === undefined || command.abandoned) return;
    command.reject(reason);
    command.abandoned = true;
    if (command.pid !== undefined) this.#kill(command.pid);
  }

  /** Asks the guest to power off, ahead of what waits to be sent. */
  powerOff(): void {
    this.#unsent.unshift('poweroff');
    this.#send();
  }

  /** Ends the channel: all that waits, and all that comes, is refused with `reason`. */
  fail(reason: Error): void {
    if (this.#failure !== undefined) return;
    this.#refuse(reason);
    this.#stream.destroy();
  }

  /** Ends the channel as {@link fail} does, and gives the stream to the next one: the guest starts anew on it. */
  leave(reason: Error): Duplex {
    this.#refuse(reason);
    return this.#stream.removeAllListeners('data');
  }

  #refuse(reason: Error): void {
    this.#failure = reason;
    this.#readiness.reject(reason);
    for (const command of this.#pending.values()) command.reject(reason);
    this.#pending.clear();
    this.#unsent.length = 0;
  }

  #listen(stream: Duplex): void {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString('latin1')).split('\n');
      this.#rest = lines.pop()!.slice(0, LINE_CHARACTERS_MAX);
      for (const line of lines) this.#receive(line);
    });
    // A broken stream means a dead guest, which its process tells in better words.
    stream.on('error', () => {});
  }

  #kill(pid: number): void {
    this.#unsent.push(`kill ${pid}`);
    this.#send();
  }

  #send(): void {
    const line = this.#guestReads ? this.#unsent.shift() : undefined;
    if (line === undefined) return;
    this.#guestReads = false;
    this.#stream.write(`${line}\n`);
  }

  #receive(text: string): void {
    const line = parseGuestLine(text);
    if (line === undefined) return; // Something in the guest wrote to the channel's terminal.
    if (line.kind === 'ready') {
      this.#guestReads = true;
      this.#readiness.resolve();
      this.#send();
      return;
    }
    const command = this.#pending.get(line.id);
    if (command === undefined) return;
    switch (line.kind) {
      case 'process':
        command.pid = line.pid;
        if (command.abandoned) this.#kill(line.pid);
        return;
      case 'output':
        this.#collect(line.id, command, line.bytes);
        return;
      case 'end': {
        this.#pending.delete(line.id);
        const bytes = Buffer.concat(command.pieces);
        command.resolve({ exitCode: line.exitCode, bytes, output: bytes.toString('utf8') });
      }
    }
  }
  #collect(id: number, command: PendingCommand, piece: Buffer): void {
    if (command.abandoned) return;
    command.pieces.push(piece);
    command.bytes += piece.length;
    if (command.bytes <= OUTPUT_BYTES_MAX) return;
    command.pieces.length = 0;
    this.abandon(id, new GuestCommandError(`the command wrote more than ${OUTPUT_BYTES_MAX} bytes`));
  }
}
