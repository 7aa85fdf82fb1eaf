/**
 * ABIs as two processes on packed rings, one of each kind of list; see life.ts. Every ABI runs on split rings (split.test.ts)
 * and, in one process, on both kinds. AEROSTAT_EXTENT=whole tries all.
 */
import { beforeAll, test } from 'vitest';
import { build } from '../cli/built.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';
import { liveThrough } from './life.ts';

beforeAll(build);

const KINDS = ['virtio', 'page-bitmap', 'page-chunks', 'sg', 'device-init'] as const;
const PROFILES = process.env.AEROSTAT_EXTENT === 'whole' ? EMBEDDED_PROFILES : KINDS;

test.each(PROFILES)(
  'a guest of %s lives by packed rings on a device in another process, and every page is accounted for',
  profile => liveThrough({ profile, rings: 'packed' }),
);
