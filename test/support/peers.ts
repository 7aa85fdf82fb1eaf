/**
 * Suites that need a program of the host. Where it is missing they are skipped, saying which package brings
 * it; with AEROSTAT_REQUIRE_PEERS=1 they fail instead, so that nobody takes a skipped suite for a passed one.
 */
import { describe, it } from 'vitest';
import type { AerostatError } from '../../src/sys/error.ts';

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
