/** What every queue beside inflate and deflate is to the driver: something that starts, has turns, and is given up. */
export interface QueuePart {
  /** The device runs. */
  start(): void;
  /**
   * Takes what the device returned and does what follows from it.
   * @throws VirtqueueError when the device breaks the ring's rules
   */
  turn(): void;
  /** Another device will take the place of this one, and goes on with the ring; what the two had between them is over. */
  deviceLost?(): void;
  /** Starts nothing new until {@link resume}, because the guest is about to stand still. */
  pause(): void;
  /** Nothing is with the device that it returns unasked. */
  readonly quiet: boolean;
  /** Goes on after a {@link pause}, with all buffers back. */
  resume(): void;
  /** Starts nothing new. What is with the device may still come back. */
  stop(): void;
  /** Gives all pages back to the guest: the device touches none any more. */
  abandon(): void;
}
