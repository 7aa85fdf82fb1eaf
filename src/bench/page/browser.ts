/**
 * The page in a real browser: Debian's Chromium, without a window and so drawn in software, driven by playwright-core.
 * What the page does is read from the browser's own books, and counted by a few lines of ours that run beside it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Browser, CDPSession, Page } from 'playwright-core';
import { findProgram, missingPrograms } from '../../peers/programs.ts';
import type { Drawing, Onlooker, Place, Update, Watched, WatchedPage } from './view.ts';

/** No GPU, and no request of the browser's own. */
export const CHROMIUM_FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const SHOWN_MS_MAX = 30_000;
const FRAME_MS = 1000 / 60;

/** Notes drawn maps; evaluated through the debugger, for the page's policy lets no script of ours in. */
const PROBE = `(() => {
  const probe = (globalThis.aerostatProbe = { frames: [], draws: [] });
  performance.setResourceTimingBufferSize(100000);
  new MutationObserver(changes => {
    for (const { target } of changes) probe.draws.push(Number(target.dataset.drawMs));
  }).observe(document, { subtree: true, attributes: true, attributeFilter: ['data-draw-ms'] });
})()`;

const FORGET = `(() => {
  aerostatProbe.draws.length = 0;
  performance.clearResourceTimings();
})()`;

/** From now on there is a frame whenever there can be one, whether the page changes or not. */
const COUNT_FRAMES = `(() => {
  const { frames } = aerostatProbe;
  frames.length = 0;
  const running = (aerostatProbe.running = {});
  const frame = atMs => {
    frames.push(atMs);
    if (aerostatProbe.running === running) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})()`;

const COUNT_NO_FRAMES = 'aerostatProbe.running = undefined';

const READ = `({
  frames: aerostatProbe.frames,
  draws: aerostatProbe.draws,
  requests: performance.getEntriesByType('resource').map(({ name, startTime, responseEnd, encodedBodySize }) =>
    ({ path: new URL(name).pathname, startMs: startTime, endMs: responseEnd, bytes: encodedBodySize })),
})`;

interface ProbeResult {
  readonly frames: readonly number[];
  readonly draws: readonly number[];
  readonly requests: readonly {
    readonly path: string;
    readonly startMs: number;
    readonly endMs: number;
    readonly bytes: number;
  }[];
}

/** Why there is no browser here, and what would bring one. */
export class NoBrowser {
  readonly why: string;

  constructor(why: string) {
    this.why = why;
  }
}

export class PageBrowser implements Onlooker {
  readonly name: string;
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    this.#browser = browser;
    this.name = `chromium ${browser.version().split('.')[0]}`;
  }

  static async launch(): Promise<PageBrowser | NoBrowser> {
    const executablePath = findProgram('chromium');
    if (executablePath === undefined) return new NoBrowser(missingPrograms('chromium')?.message ?? '');
    const playwright = await import('playwright-core').catch(() => undefined);
    if (playwright === undefined)
      return new NoBrowser(
        'there is no playwright-core to drive chromium; install with: npm install playwright-core',
      );
    const launching = playwright.chromium.launch({
      executablePath,
      args: CHROMIUM_FLAGS,
      // Its sandbox does not work for root.
      chromiumSandbox: process.getuid?.() !== 0,
      // The bench ends it, whatever the reason.
      handleSIGHUP: false,
      handleSIGINT: false,
      handleSIGTERM: false,
    });
    return launching.then(
      browser => new PageBrowser(browser),
      (error: Error) => new NoBrowser(`${executablePath} does not start: ${error.message.split('\n')[0]}`),
    );
  }

  async look({ origin, token, guest }: Place): Promise<WatchedPage> {
    const page = await this.#newPage();
    await page.goto(`${origin}/#token=${token}`);
    await page.waitForSelector('[data-guest]');
    if (guest !== undefined) {
      await page.evaluate(`location.hash = ${JSON.stringify(`#/guest/${encodeURIComponent(guest)}`)}`);
      await page.waitForSelector('.map canvas');
    }
    return PageView.of(page);
  }

  /** What the browser is capable of here with nothing to draw. */
  async blank(ms: number, signal: AbortSignal): Promise<Drawing | null> {
    const view = await PageView.of(await this.#newPage());
    const { drawing } = await view.watch(ms, signal);
    await view.leave();
    return drawing;
  }

  close(): Promise<void> {
    return this.#browser.close();
  }

  async #newPage(): Promise<Page> {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: 900 } });
    const page = await context.newPage();
    page.setDefaultTimeout(SHOWN_MS_MAX);
    return page;
  }
}

class PageView implements WatchedPage {
  readonly #page: Page;
  readonly #debugger: CDPSession;

  private constructor(page: Page, session: CDPSession) {
    this.#page = page;
    this.#debugger = session;
  }

  static async of(page: Page): Promise<PageView> {
    const session = await page.context().newCDPSession(page);
    await session.send('Performance.enable', { timeDomain: 'threadTicks' });
    await page.evaluate(PROBE);
    return new PageView(page, session);
  }

  /** The page is left to itself for half of the time; in the other half, frames are counted. */
  async watch(ms: number, signal: AbortSignal): Promise<Watched> {
    await this.#page.evaluate(FORGET);
    const startMs = performance.now();
    const busyMs = await this.#busyMs();
    await delay(ms / 2, undefined, { signal });
    const busyShare = ((await this.#busyMs()) - busyMs) / (performance.now() - startMs);
    await this.#page.evaluate(COUNT_FRAMES);
    await delay(ms / 2, undefined, { signal });
    const { frames, draws, requests } = (await this.#page.evaluate(READ)) as ProbeResult;
    const elapsedMs = performance.now() - startMs;
    await this.#page.evaluate(COUNT_NO_FRAMES);
    return {
      elapsedMs,
      updates: updatesOf(requests),
      drawing: { ...framesOf(frames), busyShare, mapDrawsMs: draws },
    };
  }

  leave(): Promise<void> {
    return this.#page.context().close();
  }

  async #busyMs(): Promise<number> {
    const { metrics } = await this.#debugger.send('Performance.getMetrics');
    return 1000 * (metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0);
  }
}

function framesOf(
  times: readonly number[],
): Pick<Drawing, 'framesPerSecond' | 'lateShare' | 'longestFrameMs'> {
  const gaps = times.slice(1).map((atMs, index) => atMs - times[index]);
  const totalMs = gaps.reduce((total, gap) => total + gap, 0);
  return {
    framesPerSecond: (1000 * gaps.length) / totalMs,
    lateShare: gaps.filter(gap => gap > 1.5 * FRAME_MS).length / gaps.length,
    longestFrameMs: Math.max(0, ...gaps),
  };
}

/** What the page asks for at each look; it begins with the list of guests. */
const LOOK_PATHS: ReadonlySet<string> = new Set(['/v1/guests', '/v1/statistics', '/v1/host', '/v1/daemon']);

function updatesOf(requests: ProbeResult['requests']): Update[] {
  const looks: { startMs: number; endMs: number; bytes: number }[] = [];
  for (const { path, startMs, endMs, bytes } of requests) {
    if (!LOOK_PATHS.has(path)) continue;
    const look = looks.at(-1);
    if (path === '/v1/guests' || look === undefined) looks.push({ startMs, endMs, bytes });
    else {
      look.endMs = Math.max(look.endMs, endMs);
      look.bytes += bytes;
    }
  }
  return looks.map(({ startMs, endMs, bytes }) => ({ elapsedMs: endMs - startMs, bytes }));
}
