/**
 * Suites that need a program of the host. Where it is missing they are skipped, saying which package brings
 * it; with AEROSTAT_REQUIRE_PEERS=1 they fail instead, so that a skipped suite is not taken for a passed one.
 */
import { describe, it } from 'vitest';
import { missingPrograms } from '../../src/peers/programs.ts';
import { findUmlKernels, type UmlKernel, umlComplaint } from '../../src/peers/uml/kernel.ts';
import type { AerostatError } from '../../src/sys/error.ts';

/** Says why a guest of User Mode Linux cannot start on this machine; undefined when it can. */
export const missingForUml = (): AerostatError | undefined =>
  umlComplaint(findUmlKernels()) ?? missingPrograms('busybox');

/**
 * Like describe(), for a suite that cannot run when `missing` says why:
 * `describePeer('a Linux guest', missingForUml(), () => { … })`.
 */
export function describePeer(title: string, missing: AerostatError | undefined, suite: () => void): void {
  if (missing === undefined) {
    describe(title, suite);
  } else if (process.env.AEROSTAT_REQUIRE_PEERS === '1') {
    describe(title, () => {
      it('has all its programs installed', () => {
        throw missing;
      });
    });
  } else {
    console.warn(`Skipped: ${title}. ${missing.message}`);
    describe.skip(`${title} (skipped; ${missing.message})`, suite);
  }
}

/**
 * Like describe(), for a suite with Linux guests that are processes: once on every kernel that can run here. Those
 * that are here and cannot are named with the reason; that is no failure as long as one can.
 */
export function describeLinux(title: string, suite: (kernel: UmlKernel) => void): void {
  const kernels = findUmlKernels();
  const missing = missingForUml();
  if (missing !== undefined) describePeer(title, missing, () => {});
  for (const kernel of missing === undefined ? kernels : []) {
    const { version, fault } = kernel;
    if (fault === undefined) describe(`${title} (Linux ${version})`, () => suite(kernel));
    else describe.skip(`${title} (Linux ${version}; skipped: ${fault})`, () => it('runs', () => {}));
  }
}
