/** Memory that is kept for guests that are about to start: until they connect, are given up, or their time is over. */
import { GuestStateError } from '../control/errors.ts';
import { RESERVATION_MS, type Reservation, type ReservationOrder } from '../control/policy.ts';
import { formatSize } from '../sys/size.ts';

/** As it is saved. */
interface SavedReservation {
  readonly name: string;
  readonly bytes: number;
  /** By the clock that all processes of the machine share. */
  readonly endsAtMs: number;
}

export class Reservations {
  #reservations: SavedReservation[] = [];

  load(saved: readonly SavedReservation[]): void {
    this.#reservations = [...saved];
  }

  get saved(): readonly SavedReservation[] {
    return this.#reservations;
  }

  get bytes(): number {
    return this.#reservations.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** @throws GuestStateError for more than a host of `totalBytes` has beside the others, or for a guest that runs */
  add({ name, bytes, forMs = RESERVATION_MS }: ReservationOrder, nowMs: number, totalBytes: number): void {
    const others = this.#reservations.filter(one => one.name !== name);
    const taken = others.reduce((sum, one) => sum + one.bytes, 0);
    if (bytes + taken > totalBytes) {
      throw new GuestStateError(
        `${formatSize(bytes)} cannot be reserved: the host has ${formatSize(totalBytes)}, of which ${formatSize(taken)} are reserved already`,
      );
    }
    this.#reservations = [...others, { name, bytes, endsAtMs: nowMs + forMs }];
  }

  /** @throws GuestStateError when there is none */
  release(name: string): void {
    if (!this.#reservations.some(one => one.name === name)) {
      throw new GuestStateError(`nothing is reserved for ${name}`);
    }
    this.#reservations = this.#reservations.filter(one => one.name !== name);
  }

  /** Ends those of guests that are there now, and those whose time is over. */
  settle(nowMs: number, isThere: (name: string) => boolean): void {
    if (this.#reservations.length === 0) return;
    this.#reservations = this.#reservations.filter(
      ({ name, endsAtMs }) => endsAtMs > nowMs && !isThere(name),
    );
  }

  /** `freeBytes`: what is free at the host beyond its reserve; the first that was asked for has it first. */
  list(nowMs: number, freeBytes: number): Reservation[] {
    let left = Math.max(0, freeBytes);
    return this.#reservations.map(({ name, bytes, endsAtMs }) => {
      const missingBytes = Math.max(0, bytes - left);
      left = Math.max(0, left - bytes);
      return {
        name,
        bytes,
        ready: missingBytes === 0,
        missingBytes,
        endsInMs: Math.max(0, endsAtMs - nowMs),
      };
    });
  }
}
