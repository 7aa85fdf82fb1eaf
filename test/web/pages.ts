/** A suite of pages in a real browser, each on a server of its own for what a test puts behind it. */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll } from 'vitest';
import type { Control } from '../../src/control/operations.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { build } from '../cli/built.ts';
import { describePeer } from '../support/peers.ts';
import { launch, openPage, type WatchedPage } from './browser.ts';
import { entranceTo, servePageOf } from './world.ts';

interface Closable {
  close(): unknown;
}

export interface Pages {
  /** Closes it after the test; what was kept last, first. */
  keep<One extends Closable>(one: One): One;
  /** A page that went nowhere yet, and the address that lets it in. */
  prepare(control: Control, options?: BrowserContextOptions): Promise<{ watched: WatchedPage; address: URL }>;
  /** The page with all guests. */
  open(control: Control, options?: BrowserContextOptions): Promise<Page>;
}

/** A suite that needs Chromium; a page that did what it must not fails its test. */
export function describePages(title: string, suite: (pages: Pages) => void): void {
  describePeer(title, missingPrograms('chromium'), () => {
    let browser: Browser;
    const kept: Closable[] = [];

    beforeAll(async () => {
      build();
      browser = await launch();
    }, 60_000);

    afterEach(async () => {
      for (const one of kept.splice(0).reverse()) await one.close();
    });

    afterAll(() => browser?.close());

    const pages: Pages = {
      keep: one => {
        kept.push(one);
        return one;
      },
      prepare: async (control, options) => {
        const address = entranceTo(pages.keep(await servePageOf(control)));
        const watched = await openPage(browser, address.origin, options);
        pages.keep({
          close: async () => {
            try {
              watched.blameless();
            } finally {
              await watched.page.context().close();
            }
          },
        });
        return { watched, address };
      },
      open: async (control, options) => {
        const { watched, address } = await pages.prepare(control, options);
        await watched.page.goto(address.href);
        await watched.page.waitForSelector('.guests');
        return watched.page;
      },
    };
    suite(pages);
  });
}
