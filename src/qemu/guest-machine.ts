/**
 * What the hypervisor of one guest tells of it and does for it: QEMU over its monitor (qmp-machine.ts), libvirt for its
 * domain. What a hypervisor does not tell is null. What is made of it is hypervisor-guest.ts's.
 */
import type { Statistics } from '../balloon/statistics.ts';
import type { GuestState } from '../control/contract.ts';
import type { AerostatError } from '../sys/error.ts';

/** Sizes of the guest, in bytes. */
export interface MachineMemory {
  readonly memoryBytes: number;
  /** What its balloon leaves it; null where it has no balloon that works. */
  readonly leftBytes: number | null;
}

export interface MachineLook extends MachineMemory {
  readonly hasBalloon: boolean;
  readonly state: GuestState | null;
  readonly features: readonly string[] | null;
  readonly residentBytes: number | null;
  /** Why the balloon cannot work; undefined where it can. */
  readonly trouble: string | undefined;
}

export interface MachineStatistics {
  /** When the guest gave them, by the hypervisor's clock, in milliseconds since the epoch; null for never. */
  readonly updatedMs: number | null;
  readonly statistics: Statistics;
}

export interface MachineListener {
  /** Null when the hypervisor was reached, else why it is gone. */
  connection(lost: AerostatError | null): void;
  /** The balloon leaves the guest another size now. */
  balloon(leftBytes: number): void;
  reset(): void;
  /** The guest was stopped or goes on. */
  state(): void;
}

/** @throws AerostatError each of its questions and orders, where the hypervisor refuses or cannot be reached */
export interface GuestMachine {
  /** Where the hypervisor is reached: a path. Null where it has none of its own for this guest. */
  readonly path: string | null;
  readonly connected: boolean;
  /** It keeps a definition of the guest, from which the guest is started. */
  readonly hasDefinition: boolean;
  /** Begins to tell what happens. Called once. */
  listen(listener: MachineListener): void;
  look(): Promise<MachineLook>;
  memory(): Promise<MachineMemory>;
  state(): Promise<GuestState | null>;
  /** @throws GuestStateError when the guest has no balloon */
  expectBalloon(): Promise<void>;
  /** @throws GuestStateError when the guest has no balloon */
  statistics(): Promise<MachineStatistics>;
  /** Seconds between the guest's statistics; 0 where they are not asked for. */
  interval(): Promise<number>;
  /** `persist`: its definition keeps it, too. */
  setInterval(seconds: number, persist?: boolean): Promise<void>;
  setLeft(bytes: number, persist?: boolean): Promise<void>;
  /** Lets go of the hypervisor; the guest goes on. Idempotent. */
  close(): void;
}
