/** Every ABI as two processes on split rings; see life.ts. */
import { beforeAll, test } from 'vitest';
import { build } from '../cli/built.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';
import { liveThrough } from './life.ts';

beforeAll(build);

test.each(EMBEDDED_PROFILES)(
  'a guest of %s lives on a device in another process, and every page is accounted for',
  profile => liveThrough({ profile }),
);
