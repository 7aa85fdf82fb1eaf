/** What a migration needs of a connection: bytes in order, both ways, until one side closes it. */
export interface ByteChannel {
  /** Resolves when the bytes may be used again and there is room for more. @throws when the connection is gone */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Names who takes what arrives; bytes are valid during the call. `closed` is called once: without an error when the
   * other side ended the connection as it should.
   */
  listen(taker: { data(bytes: Uint8Array): void; closed(error?: Error): void }): void;
  /** Ends the connection: what was written still arrives. Idempotent. */
  close(): void;
  /** Cuts the connection: what was written may not arrive. Idempotent. */
  destroy(): void;
}
