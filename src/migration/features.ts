/**
 * What both sides of a migration must be able to do for it to be done, as bits of `hello` and `welcome`. Who asks for
 * compression gets it, or an error that says which side cannot: the operator need not wonder why it was slow.
 */
import { MigrationError } from './errors.ts';
import type { DestinationMachine } from './machine.ts';
import { type Compression, zstd } from './stream/compression.ts';
import { FEATURE_AHEAD, FEATURE_POSTCOPY, FEATURE_RECALL, FEATURE_ZSTD } from './stream/messages.ts';

/** Features that this program has on this host, where its machine is ready for what they bring. */
export const FEATURES_HERE = (zstd === undefined ? 0 : FEATURE_ZSTD) | FEATURE_AHEAD;

/** zstd comes with Node from 22.15 on; any Node takes it from the host. */
const REMEDY =
  'install libzstd.so.1 (libzstd1 on Debian and Ubuntu, libzstd elsewhere), or move the guest without compression';

/**
 * What the source offers: to compress where it is to, and to send states `ahead`.
 * @throws MigrationError when it is to compress and has nothing to do it with
 */
export function featuresToOffer(compress: boolean, here = FEATURES_HERE, ahead = false): number {
  const offered = ahead ? FEATURE_AHEAD : 0;
  if (!compress) return offered;
  if ((here & FEATURE_ZSTD) !== 0) return offered | FEATURE_ZSTD;
  throw new MigrationError(
    `pages cannot be compressed here: neither Node ${process.version} nor this host has zstd; ${REMEDY}`,
  );
}

/** What a destination takes of what it is offered. Whether it can have post-copy is known when there is memory. */
export function featuresTaken(offered: number, { prepare, unload }: DestinationMachine): number {
  let here = (FEATURES_HERE & ~FEATURE_AHEAD) | FEATURE_POSTCOPY;
  if (prepare !== undefined) here |= FEATURE_AHEAD;
  if (unload !== undefined) here |= FEATURE_RECALL;
  return offered & here;
}

/**
 * What is used of it, after the destination's `welcome`.
 * @throws MigrationError when the destination cannot do one of them
 */
export function featuresAgreed(offered: number, answered: number): number {
  const agreed = offered & answered;
  const refused = offered & ~agreed;
  if ((refused & FEATURE_POSTCOPY) !== 0) {
    throw new MigrationError(
      'the destination cannot run the guest before all of its memory has come: it is an older release, its kernel does not give it userfaultfd, or it has huge pages; move the guest without --postcopy',
    );
  }
  // To a destination of before nothing is sent ahead.
  if ((refused & FEATURE_ZSTD) === 0) return agreed;
  throw new MigrationError(
    `the destination cannot unpack compressed pages: neither its Node nor its host has zstd; there, ${REMEDY}`,
  );
}

/** How sections are compressed under these features. */
export const compressionUnder = (features: number): Compression | undefined =>
  (features & FEATURE_ZSTD) !== 0 ? zstd : undefined;
