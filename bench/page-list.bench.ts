/**
 * What it costs to name pages: encoding every page list, and copying and decoding it, for memory that is
 * contiguous, fragmented, and fragmented with its pages in no order. The baseline, in the same run, walks the runs and does nothing with
 * them. Prints a table.
 */
import { Bench } from 'tinybench';
import { addressOrOrder } from '../src/balloon/formats/address-or-order.ts';
import { pageBitmap } from '../src/balloon/formats/page-bitmap.ts';
import { pageChunks } from '../src/balloon/formats/page-chunks.ts';
import { pageOrder } from '../src/balloon/formats/page-order.ts';
import { pageRange } from '../src/balloon/formats/page-range.ts';
import { pfnArray } from '../src/balloon/formats/pfn-array.ts';
import { extents } from '../src/balloon/formats/sg.ts';
import { PageList } from '../src/balloon/page-list.ts';
import { EncodeCursor, type PageListFormat } from '../src/balloon/page-list-format.ts';
import type { BenchRow, Measured } from '../src/bench/report.ts';
import { PageRanges } from '../src/memory/page-ranges.ts';
import { NO_PEER, runAsProgram, spreadOfTask } from './micro.ts';

const FORMATS = [pfnArray, pageBitmap, pageOrder, pageRange, pageChunks, extents, addressOrOrder];
/** 1 GiB of a guest, where a guest with more than 3 GiB has most of its memory: above 4 GiB. */
const PAGES = 2 ** 18;
const FIRST_PFN = 2 ** 20;
/** An in-buf has no list; its descriptor is what names the pages. */
const DESCRIPTOR_BYTES = 16;

interface Scenario {
  readonly name: string;
  readonly ranges: PageRanges;
  readonly formats: readonly PageListFormat[];
}

function runs(count: number, stride: number): PageRanges {
  const ranges = new PageRanges();
  for (let page = 0; page < PAGES; page += count) ranges.append(FIRST_PFN + (page / count) * stride, count);
  return ranges;
}

/** The same runs in an order that a fixed generator gives. */
function shuffled(ranges: PageRanges): PageRanges {
  const order = ranges.toArray();
  let state = 1;
  for (let index = order.length - 1; index > 0; index--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const other = state % (index + 1);
    [order[index], order[other]] = [order[other], order[index]];
  }
  const result = new PageRanges();
  for (const [pfn, count] of order) result.append(pfn, count);
  return result;
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'runs of 2 MiB', ranges: runs(512, 1024), formats: FORMATS },
  { name: 'runs of 16 KiB', ranges: runs(4, 8), formats: FORMATS },
  { name: 'every other page', ranges: runs(1, 2), formats: FORMATS },
  // A bitmap has no use for pages out of order: a list a page.
  {
    name: 'every other page, shuffled',
    ranges: shuffled(runs(1, 2)),
    formats: FORMATS.filter(format => format !== pageBitmap),
  },
];

/** A list as it lies in the guest's memory. */
interface SentList {
  readonly bytes: Uint8Array;
  readonly addresses: Float64Array;
  readonly lengths: Float64Array;
}

function sentLists(format: PageListFormat, ranges: PageRanges): SentList[] {
  const cursor = new EncodeCursor();
  const lists: SentList[] = [];
  const list = new PageList();
  while (!cursor.done(ranges)) {
    list.clear();
    format.encode(ranges, cursor, list);
    lists.push({
      bytes: list.bytes.slice(0, list.length),
      addresses: list.extentAddresses.slice(0, list.extentCount),
      lengths: list.extentLengths.slice(0, list.extentCount),
    });
  }
  return lists;
}

/** Copies a list as a device does before it looks at anything. */
function receive(list: PageList, { bytes, addresses, lengths }: SentList): void {
  list.clear();
  list.reserve(bytes.length);
  list.bytes.set(bytes);
  list.length = bytes.length;
  for (let index = 0; index < addresses.length; index++) list.addExtent(addresses[index], lengths[index]);
}

const sentBytes = ({ bytes, addresses }: SentList): number =>
  bytes.length + addresses.length * DESCRIPTOR_BYTES;

/** One format in one scenario, as the table shows it; no format for the walk that it is compared with. */
interface Subject {
  readonly scenario: string;
  readonly format: string | undefined;
  readonly lists: number;
  readonly bytes: number;
}

const nameOf = ({ scenario, format }: Subject, what: 'encode' | 'decode' | 'walk'): string =>
  [scenario, format, what].filter(Boolean).join(', ');

/** What the table says of a subject. */
function tableRow(bench: Bench, subject: Subject): Record<string, string | number | undefined> {
  const { scenario, format, lists, bytes } = subject;
  const median = (what: 'encode' | 'decode' | 'walk') => spreadOfTask(bench, nameOf(subject, what)).median;
  const millionsPerSecond = (milliseconds: number) => Math.round(PAGES / milliseconds / 1000);
  if (format === undefined)
    return { scenario, format: 'walk', 'decode M/s': millionsPerSecond(median('walk')) };
  const walk = spreadOfTask(bench, nameOf({ ...subject, format: undefined }, 'walk')).median;
  return {
    scenario,
    format,
    lists,
    'bytes/page': (bytes / PAGES).toFixed(3),
    'encode M/s': millionsPerSecond(median('encode')),
    'decode M/s': millionsPerSecond(median('decode')),
    'encode to walk': (median('encode') / walk).toFixed(1),
    'decode to walk': (median('decode') / walk).toFixed(1),
  };
}

function reportRows(bench: Bench, subject: Subject): BenchRow[] {
  const { scenario, format, lists, bytes } = subject;
  const row = (what: 'encode' | 'decode' | 'walk'): BenchRow => ({
    case: format === undefined ? what : `${format}: ${what}`,
    scenario,
    peer: NO_PEER,
    elapsedMs: spreadOfTask(bench, nameOf(subject, what)),
    pages: PAGES,
    lists,
    listBytes: bytes,
  });
  return format === undefined ? [row('walk')] : [row('encode'), row('decode')];
}

async function measure(): Promise<Measured> {
  const bench = new Bench({ time: 200, warmupTime: 100 });
  const subjects: Subject[] = [];
  let runsSeen = 0;
  let pagesSeen = 0;
  const sink = {
    add(_pfn: number, count: number) {
      runsSeen++;
      pagesSeen += count;
    },
  };
  for (const { name: scenario, ranges, formats } of SCENARIOS) {
    const walk: Subject = { scenario, format: undefined, lists: 0, bytes: 0 };
    subjects.push(walk);
    bench.add(nameOf(walk, 'walk'), () => ranges.forEach(sink.add));
    for (const format of formats) {
      const sent = sentLists(format, ranges);
      const bytes = sent.reduce((total, list) => total + sentBytes(list), 0);
      const subject: Subject = { scenario, format: format.name, lists: sent.length, bytes };
      subjects.push(subject);
      const cursor = new EncodeCursor();
      const list = new PageList();
      bench.add(nameOf(subject, 'encode'), () => {
        cursor.reset();
        while (!cursor.done(ranges)) {
          list.clear();
          format.encode(ranges, cursor, list);
        }
      });
      bench.add(nameOf(subject, 'decode'), () => {
        for (const one of sent) {
          receive(list, one);
          format.decode(list, sink);
        }
      });
    }
  }
  await bench.run();
  if (runsSeen > pagesSeen) throw new Error('more runs than pages');
  console.log(
    `${PAGES} pages; medians; millions of pages a second, and time relative to a walk over the runs.`,
  );
  console.table(subjects.map(subject => tableRow(bench, subject)));
  const decode = (scenario: string, format: string) =>
    spreadOfTask(bench, `${scenario}, ${format}, decode`).median;
  return {
    rows: subjects.flatMap(subject => reportRows(bench, subject)),
    // The oldest way of naming pages, against the one that needs fewest bytes for each kind of memory.
    ratios: {
      'pfnArrayToChunks.contiguous':
        decode('runs of 2 MiB', 'pfn-array') / decode('runs of 2 MiB', 'page-chunks'),
      'pfnArrayToBitmap.fragmented':
        decode('every other page', 'pfn-array') / decode('every other page', 'page-bitmap'),
    },
  };
}

await runAsProgram(import.meta.url, 'page-list', measure);
