/** Every ABI as two processes on memory of 2 MiB huge pages, of which the host gets back only whole ones; see life.ts. */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { build } from '../cli/built.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';
import { liveThrough, MEMORY_BYTES } from './life.ts';

const hugePages = reserveHugePages(MEMORY_BYTES / HUGE_PAGE_SIZE);

beforeAll(build);
afterAll(() => hugePages.release());

const why = hugePages.missing === undefined ? '' : ` (skipped; ${hugePages.missing})`;

describe.skipIf(hugePages.missing !== undefined)(`memory of huge pages${why}`, () => {
  test.each(PROFILE_NAMES)(
    'a guest of %s lives on a device in another process, and every page is accounted for',
    profile => liveThrough({ profile, hugePages: true }),
  );
});
