/** What a migration needs of a connection: bytes in order, both ways, until one side closes it. */

/** Who takes what arrives over a connection. */
export interface ByteTaker {
  /** Bytes came; they are valid during the call. */
  data(bytes: Uint8Array): void;
  /** Called once: without an error when the other side ended the connection as it should. */
  closed(error?: Error): void;
  /** A channel that can read into memory of others saves a copy: it fills this space and calls no `data`. */
  readonly direct?: DirectTaker;
}

interface DirectTaker {
  /** Where the next bytes belong. Empty when no more are wanted. */
  readonly space: Uint8Array;
  /** The first `count` bytes of {@link space} have come. */
  filled(count: number): void;
}

export interface ByteChannel {
  /** Resolves when the bytes may be used again and there is room for more. @throws when the connection is gone */
  write(bytes: Uint8Array): Promise<void>;
  /** Names who takes what arrives. */
  listen(taker: ByteTaker): void;
  /** Ends the connection: what was written still arrives. Idempotent. */
  close(): void;
  /** Cuts the connection: what was written may not arrive. Idempotent. */
  destroy(): void;
}
