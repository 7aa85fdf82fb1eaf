/**
 * What looking costs: the page on many guests, the map of a large one, and an inflation that is watched. Its parts are
 * fleet.ts's, map.ts's and inflate.ts's; this puts them together, with the viewer that is there.
 */
import type { ChartPlan } from '../html.ts';
import type { Measured } from '../report.ts';
import { NoBrowser, PageBrowser } from './browser.ts';
import { PageClient } from './client.ts';
import { measureFleet } from './fleet.ts';
import { measureInflateWithPage } from './inflate.ts';
import { measureMap } from './map.ts';

export const PAGE_PARTS = ['guests', 'map', 'inflate'] as const;

export type PagePart = (typeof PAGE_PARTS)[number];

export interface PageBenchOptions {
  readonly parts: readonly PagePart[];
  readonly guests: number;
  readonly seconds: number;
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly runs: number;
  /** Whether a browser looks, where there is one. */
  readonly browser: boolean;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

export async function benchPage(options: PageBenchOptions): Promise<Measured> {
  const { parts, runs, signal, progress } = options;
  const launched = options.browser
    ? await PageBrowser.launch()
    : new NoBrowser('it was not wanted (--no-browser)');
  const browser = launched instanceof PageBrowser ? launched : undefined;
  const client = new PageClient();
  const onlooker = browser ?? client;
  const onlookers = browser === undefined ? [client] : [client, browser];
  const steps = { guests: 4, map: 3, inflate: runs * (1 + onlookers.length) };
  const total = parts.reduce((sum, part) => sum + steps[part], 0);
  let done = 0;
  const step = (what: string) => {
    signal.throwIfAborted();
    progress(done++, total, what);
  };
  const measured: Measured[] = [];
  try {
    if (parts.includes('guests')) measured.push(await measureFleet({ ...options, onlooker, step }));
    if (parts.includes('map')) measured.push(await measureMap({ ...options, onlooker, step }));
    if (parts.includes('inflate'))
      measured.push(await measureInflateWithPage({ ...options, onlookers, step }));
  } catch (error) {
    // Whatever an interrupted bench fails of, that it was interrupted is why.
    signal.throwIfAborted();
    throw error;
  } finally {
    await browser?.close();
  }
  progress(total, total, 'done');
  return {
    rows: measured.flatMap(({ rows }) => rows),
    ratios: Object.assign({}, ...measured.map(({ ratios }) => ratios)),
    notes: [
      ...NOTES,
      ...(launched instanceof NoBrowser
        ? [`No browser: ${launched.why}. A client asked for what the page asks for; nothing was drawn.`]
        : []),
    ],
  };
}

const NOTES: readonly string[] = [
  'elapsed: of guests, from the first question of a look to its last answer; of maps, from question to answer, or',
  'drawing; of inflations, until the host has its memory. Shares of a processor are of one core. The client asks for',
  'what the page asks for and draws nothing, as if the browser were on another machine.',
];

/** What a report of this bench draws. */
export const PAGE_CHARTS: readonly ChartPlan[] = [
  { title: 'Time', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
];
