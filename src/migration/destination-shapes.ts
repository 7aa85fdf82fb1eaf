/** What a migration's destination takes, and where it may be. */
import { MigrationError } from './errors.ts';
import type { Clock, DestinationMachine } from './machine.ts';
import type { Ram } from './ram.ts';
import type { RegionShape } from './stream/messages.ts';

/**
 * How long a destination that has everything waits for a source that it lost: the source may have let the guest go,
 * and then asks over a new connection.
 */
export const INQUIRY_MS_MAX = 120_000;

export type DestinationPhase =
  | 'waiting'
  | 'receiving'
  | 'loading'
  | 'ready'
  /** A stop was called off: what came of it is taken back. */
  | 'recalling'
  | 'running'
  | 'failed';

export interface DestinationOptions {
  readonly machine: DestinationMachine;
  /** The guest's memory, once it was made. */
  readonly ramOf: () => Ram;
  /** Bytes of guest memory that this host takes at most. */
  readonly memoryBytesMax: number;
  readonly clock: Clock;
  /** {@link INQUIRY_MS_MAX} when left out. */
  readonly inquiryMsMax?: number;
  readonly observer?: (phase: DestinationPhase, round: number) => void;
}

/** @throws MigrationError when a guest of these regions is more than this host takes */
export function checkRoom(regions: readonly RegionShape[], bytesMax: number): void {
  const bytes = regions.reduce((sum, { size }) => sum + size, 0);
  if (bytes <= bytesMax) return;
  throw new MigrationError(
    `a guest of ${inMib(bytes)}, and this destination takes ${inMib(bytesMax)} at most`,
  );
}

const inMib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
