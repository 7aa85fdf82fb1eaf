/**
 * What both sides of a migration must be able to do for it to be done, as bits of `hello` and `welcome`. Who asks for
 * compression gets it, or an error that says which side cannot: nobody wonders afterwards why it was slow.
 */
import { MigrationError } from './errors.ts';
import { zstd } from './stream/compression.ts';
import { FEATURE_ZSTD } from './stream/messages.ts';

/** Features that this program has. */
export const FEATURES_HERE = zstd === undefined ? 0 : FEATURE_ZSTD;

/**
 * What the source offers.
 * @throws MigrationError when it is to compress and has nothing to do it with
 */
export function featuresToOffer(compress: boolean, here = FEATURES_HERE): number {
  if (!compress) return 0;
  if ((here & FEATURE_ZSTD) !== 0) return FEATURE_ZSTD;
  throw new MigrationError(
    `pages cannot be compressed here: zstd comes with Node 22.15, and this is ${process.version}; move the guest without compression`,
  );
}

/**
 * What is used of it, after the destination's `welcome`.
 * @throws MigrationError when pages are to be compressed and the destination cannot unpack them
 */
export function featuresAgreed(offered: number, answered: number): number {
  const agreed = offered & answered;
  if (agreed === offered) return agreed;
  throw new MigrationError(
    'the destination cannot unpack compressed pages (zstd comes with Node 22.15); move the guest without compression',
  );
}
