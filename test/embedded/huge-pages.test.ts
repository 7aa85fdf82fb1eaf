/**
 * Two processes on memory of 2 MiB huge pages, of which the host gets back only whole ones; see life.ts. How an ABI names
 * pages makes no difference to what the host does with them: one that names single pages, one that names runs and one
 * that names blocks stand for all, which split.test.ts and packed.test.ts run on small pages.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import { build } from '../cli/built.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';
import { liveThrough, MEMORY_BYTES } from './life.ts';

const hugePages = reserveHugePages(MEMORY_BYTES / HUGE_PAGE_SIZE);

beforeAll(build);
afterAll(() => hugePages.release());

const why = hugePages.missing === undefined ? '' : ` (skipped; ${hugePages.missing})`;

describe.skipIf(hugePages.missing !== undefined)(`memory of huge pages${why}`, () => {
  test.each<ProfileName>(['virtio', 'sg', 'page-order'])(
    'a guest of %s lives on a device in another process, and every page is accounted for',
    profile => liveThrough({ profile, hugePages: true }),
  );
});
