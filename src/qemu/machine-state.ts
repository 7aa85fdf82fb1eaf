/**
 * The state of a guest of QEMU's, in the words that are used for guests of our device: by whether its machine runs
 * (query-status) and whether its balloon driver is at work (x-query-virtio-status). What QEMU does not tell is null.
 */
import type { GuestState } from '../control/contract.ts';
import type { QemuVirtioStatus } from '../peers/qemu/qmp-commands.ts';

export interface QemuMachine {
  readonly running: boolean;
  /** The balloon device's path; undefined where the machine has none. */
  readonly balloon: string | undefined;
  /** Null where QEMU does not tell, before 7.2, and where it is not asked, from 11 on. */
  readonly virtio: QemuVirtioStatus | null;
}

export function stateOf({ running, balloon, virtio }: QemuMachine): GuestState | null {
  if (balloon === undefined) return 'waiting';
  if (virtio?.driverReady === false) return 'no-driver';
  if (!running) return 'paused';
  // The machine runs; without word of its driver, nothing says whether the balloon can answer.
  return virtio === null ? null : 'running';
}

const NO_BALLOON = 'its QEMU has no balloon device; start it with -device virtio-balloon-pci';

/** Why the balloon of a QEMU that answers cannot work; undefined where it can. */
export function troubleOf({ balloon, virtio }: QemuMachine): string | undefined {
  if (balloon === undefined) return NO_BALLOON;
  return virtio?.broken === true ? 'QEMU stopped the device after an error' : undefined;
}
