/**
 * A browser for tests: Debian's Chromium, without a window and without a network of its own. Every page is watched for
 * what a page of ours never does: ask another origin, break its own security policy, or fail.
 */
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { expect } from 'vitest';
import { CHROMIUM_FLAGS } from '../../src/bench/page/browser.ts';
import { findProgram } from '../../src/peers/programs.ts';

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: findProgram('chromium') ?? '', args: CHROMIUM_FLAGS });
}

export interface WatchedPage {
  readonly page: Page;
  /** Fails if the page did what it must not. Says nothing of the connection that a test took away. */
  blameless(): void;
}

/** A page in a context of its own: no storage of another test. */
export async function openPage(
  browser: Browser,
  origin: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const faults: string[] = [];
  page.on('request', request => {
    if (new URL(request.url()).origin !== origin) faults.push(`asked ${request.url()}`);
  });
  page.on('websocket', socket => faults.push(`opened ${socket.url()}`));
  page.on('pageerror', error => faults.push(`failed: ${error.message}`));
  page.on('console', message => {
    // The browser itself notes every answer that is not 200, and every connection that is refused.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
      faults.push(`complained: ${message.text()}`);
    }
  });
  return { page, blameless: () => expect(faults).toEqual([]) };
}
