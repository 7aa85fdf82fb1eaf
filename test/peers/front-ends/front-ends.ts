/**
 * The front-ends that the suite of Linux guests runs on: how a guest boots on each, and what it costs. What is shown
 * of a guest is suite.ts's.
 */
import type { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import { MissingPeerError, missingPrograms } from '../../../src/peers/programs.ts';
import { UmlGuest } from '../../../src/peers/uml/guest.ts';
import type { UmlKernel } from '../../../src/peers/uml/kernel.ts';
import type { AerostatError } from '../../../src/sys/error.ts';
import { type KernelName, privateKernel, requirePrivateKernel } from '../qemu/cloud-kernel.ts';
import { missingQemu, requireQemu } from '../qemu/installed.ts';
import { VhostUserGuest, type VhostUserGuestOptions } from '../qemu/vhost-user-guest.ts';

export interface FrontEnd {
  readonly title: string;
  /** Why it cannot run here; undefined when it can. */
  readonly missing: AerostatError | undefined;
  /** Features that its daemons leave out: what kind of rings its guests have. */
  readonly without: readonly string[];
  /** Further daemons on which a balloon's pages are counted, by what they do differently. */
  readonly variants: Readonly<Record<string, readonly string[]>>;
  /** Of each guest. */
  readonly memoryBytes: number;
  /** Bytes of random content that a test keeps under checksums; an emulated processor makes little of it. */
  readonly keptBytes: number;
  boot(socket: string): Promise<LinuxGuest>;
}

const MIB = 2 ** 20;

export const userModeLinux = (kernel: UmlKernel): FrontEnd => ({
  title: `User Mode Linux ${kernel.version}`,
  missing: undefined,
  without: [],
  // Both kinds of ring, and both orders of acknowledging and discarding. Linux 7 takes GET_QUEUE_NUM for a limit and asks
  // for all queues that it knows, whatever the device offers.
  variants: {
    'a device without statistics, hints and reporting': ['--without', 'stats,hint,reporting'],
    'split rings, acknowledged first': ['--without', 'ring-packed'],
    'split rings without event indices': ['--without', 'ring-packed,ring-event-idx,ring-indirect-desc'],
    'discarding before acknowledging': ['--discard', 'before-ack'],
  },
  memoryBytes: 512 * MIB,
  keptBytes: 64 * MIB,
  boot: socket => UmlGuest.boot({ memoryBytes: 512 * MIB, sockets: [socket], kernel }),
});

/** Before this version QEMU's generic device cannot be created by its users. */
export const GENERIC_DEVICE_SINCE = '10.2';

/** Says what a guest of QEMU's generic device lacks here; undefined when nothing. */
export function missingForGenericDevice(kernel: KernelName): MissingPeerError | undefined {
  const pieces = [missingPrograms('busybox'), missingQemu(GENERIC_DEVICE_SINCE)].flatMap(
    error => error?.missing ?? [],
  );
  if (privateKernel(kernel) === undefined) pieces.push({ what: `${kernel} for QEMU's guests`, peer: kernel });
  return pieces.length === 0 ? undefined : new MissingPeerError(pieces);
}

export const bootGenericDevice = (
  kernel: KernelName,
  options: Omit<VhostUserGuestOptions, 'qemu' | 'kernel'>,
): Promise<VhostUserGuest> =>
  VhostUserGuest.boot({
    qemu: requireQemu(GENERIC_DEVICE_SINCE),
    kernel: requirePrivateKernel(kernel),
    ...options,
  });

/** QEMU's generic vhost-user device with a stock Linux of Debian's, under emulation. */
export const genericDevice = (kernel: KernelName, rings: 'packed' | 'split'): FrontEnd => ({
  title: `QEMU's generic device, ${kernel}, ${rings} rings`,
  missing: missingForGenericDevice(kernel),
  without: rings === 'packed' ? [] : ['ring-packed'],
  variants: {},
  memoryBytes: 512 * MIB,
  keptBytes: 16 * MIB,
  boot: socket => bootGenericDevice(kernel, { memoryBytes: 512 * MIB, socket }),
});
