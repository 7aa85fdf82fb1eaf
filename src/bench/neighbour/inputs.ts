/**
 * The worst inputs that are known, as a table: what a hostile guest, its front-end or a client of the API does to make a
 * neighbour wait. To add one, write its `prepare` and a line in the table. An input is prepared before anything is
 * clocked, and then played again and again; a round may end in LostDaemonError (a daemon may hang up), and `prepare` in UnplayableError.
 */
import type { ProfileName } from '../../balloon/profiles.ts';
import { blockingDoorbell } from './inputs/descriptors.ts';
import { pauseWithSinglePages, singlePagesInAndOut } from './inputs/discards.ts';
import { busyFile, emptyPool, lockedFile, shrinkingFile } from './inputs/files.ts';
import { alternatingBits, alternatingLists, hugeRange, reportsOfUsedMemory } from './inputs/lists.ts';
import { callers, mapsOfSparseMemory, regionsComeAndGo } from './inputs/messages.ts';
import { fullRing, longChains } from './inputs/rings.ts';
import type { HostilePlay } from './play.ts';
import type { HostileData } from './protocol.ts';

export interface HostileInput {
  readonly name: string;
  /** What it does, in a line. */
  readonly about: string;
  /** The ABI that the daemon has to offer for it; the standard's unless given. */
  readonly profile?: ProfileName;
  prepare(data: HostileData): HostilePlay | Promise<HostilePlay>;
}

export const HOSTILE_INPUTS: readonly HostileInput[] = [
  {
    name: 'long-chains',
    about: 'chains of 2048 segments that each span 500 regions',
    prepare: longChains,
  },
  { name: 'full-ring', about: 'a ring that is always full, and kicks without end', prepare: fullRing },
  {
    name: 'huge-range',
    about: 'one range of 12 TiB of sparse memory, given and taken back',
    profile: 'page-chunks',
    prepare: hugeRange,
  },
  {
    name: 'alternating-lists',
    about: 'lists of 1 MiB whose pages alternate between 500 regions',
    prepare: alternatingLists,
  },
  {
    name: 'alternating-bits',
    about: 'bitmaps of 1 MiB in which every other page is named',
    profile: 'page-bitmap',
    prepare: alternatingBits,
  },
  {
    name: 'reports',
    about: 'reports of used memory, again and again',
    prepare: reportsOfUsedMemory,
  },
  {
    name: 'single-pages',
    about: 'single pages that were used, given and taken back at once',
    prepare: singlePagesInAndOut,
  },
  {
    name: 'pause',
    about: 'a pause after 1 GiB of single pages that were used',
    prepare: pauseWithSinglePages,
  },
  {
    name: 'maps',
    about: 'maps of 12 TiB of sparse memory, asked for over the API',
    prepare: mapsOfSparseMemory,
  },
  { name: 'regions', about: '500 regions that come and go', prepare: regionsComeAndGo },
  { name: 'callers', about: 'front-ends that connect and hang up', prepare: callers },
  {
    name: 'busy-file',
    about: 'memory whose file is being written, under its lock',
    prepare: busyFile,
  },
  {
    name: 'locked-file',
    about: 'memory that is given and taken back while its file is locked',
    prepare: lockedFile,
  },
  {
    name: 'shrinking-file',
    about: 'memory whose file shrinks while it is handed over',
    prepare: shrinkingFile,
  },
  {
    name: 'empty-pool',
    about: 'memory of huge pages that the host does not have',
    prepare: emptyPool,
  },
  {
    name: 'blocking-doorbell',
    about: 'a doorbell that is full, and waits when it is rung',
    prepare: blockingDoorbell,
  },
];
