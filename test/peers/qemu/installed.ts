/** Which of this machine's QEMUs a suite may have: any, or one of a version or newer; and what to say where it is missing. */
import { compareVersions } from '../../../src/peers/processor.ts';
import { MissingPeerError } from '../../../src/peers/programs.ts';
import { findQemus } from '../../../src/peers/qemu/programs.ts';

type QemuProgram = ReturnType<typeof findQemus>[number];

/** A QEMU of version `atLeast` or newer; of several the newest. */
export const findQemu = (atLeast: string): QemuProgram | undefined =>
  findQemus().find(({ version }) => compareVersions(version, atLeast) >= 0);

/** Says what is missing for a QEMU of this version or newer; undefined when nothing is. */
export function missingQemu(atLeast = '0'): MissingPeerError | undefined {
  if (findQemu(atLeast) !== undefined) return undefined;
  const what = atLeast === '0' ? 'qemu-system-x86_64' : `QEMU ${atLeast} or newer`;
  return new MissingPeerError([{ what, peer: 'qemu' }]);
}

/** @throws MissingPeerError */
export function requireQemu(atLeast: string): QemuProgram {
  const qemu = findQemu(atLeast);
  if (qemu === undefined) throw missingQemu(atLeast);
  return qemu;
}
