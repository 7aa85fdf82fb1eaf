/** Every ABI as two processes on packed rings; see life.ts. */
import { beforeAll, test } from 'vitest';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { build } from '../cli/built.ts';
import { liveThrough } from './life.ts';

beforeAll(build);

test.each(PROFILE_NAMES)(
  'a guest of %s lives by packed rings on a device in another process, and every page is accounted for',
  profile => liveThrough({ profile, rings: 'packed' }),
);
