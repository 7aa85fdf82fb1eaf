/**
 * Fuzz targets of the balloon room: each takes arbitrary bytes as a guest would have sent them and throws only if
 * a decoder broke a promise: anything but the typed error, a page that cannot be, or pages given out before a list
 * was refused.
 */
import { applyDriverWrite, CONFIG, isDriverWritable } from '../src/balloon/config-space.ts';
import { addressOrOrder } from '../src/balloon/formats/address-or-order.ts';
import { pageBitmap } from '../src/balloon/formats/page-bitmap.ts';
import { pageChunks } from '../src/balloon/formats/page-chunks.ts';
import { pageOrder } from '../src/balloon/formats/page-order.ts';
import { pageRange } from '../src/balloon/formats/page-range.ts';
import { pfnArray } from '../src/balloon/formats/pfn-array.ts';
import { extents, sg } from '../src/balloon/formats/sg.ts';
import { HintSession } from '../src/balloon/hint-session.ts';
import { LIST_BYTES_MAX, LIST_EXTENTS_MAX, PageList, PageListError } from '../src/balloon/page-list.ts';
import type { PageListFormat } from '../src/balloon/page-list-format.ts';
import {
  bitmapRequests,
  miscRequests,
  type RequestProtocol,
  responseRequests,
} from '../src/balloon/request-messages.ts';
import { decodeStatistics, StatisticsError } from '../src/balloon/statistics.ts';
import { PFN_LIMIT } from '../src/memory/page.ts';
import { assert } from '../src/sys/error.ts';

const EXTENT_BYTES = 12;

// One list for all inputs, as a device has it: what an earlier input left behind must not matter.
const list = new PageList();

function fill(bytes: Uint8Array): void {
  list.clear();
  list.reserve(bytes.length);
  list.bytes.set(bytes);
  list.length = bytes.length;
}

/** Reads the input as pairs of address and length, as many as a ring can have. */
function fillExtents(bytes: Uint8Array): void {
  list.clear();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = Math.min(bytes.length, LIST_EXTENTS_MAX * EXTENT_BYTES);
  for (let at = 0; at + EXTENT_BYTES <= end; at += EXTENT_BYTES) {
    list.addExtent(Number(view.getBigUint64(at, true)), view.getUint32(at + 8, true));
  }
}

function decode(format: PageListFormat): void {
  let calls = 0;
  const callsMax = list.length * 8 + list.extentCount;
  const sink = {
    add(pfn: number, count: number) {
      calls++;
      assert(Number.isInteger(pfn) && Number.isInteger(count), `${count} pages at page frame ${pfn}`);
      assert(pfn >= 0 && count > 0 && pfn + count <= PFN_LIMIT, `${count} pages at page frame ${pfn}`);
      assert(calls <= callsMax, `more runs than the list has bits`);
    },
  };
  try {
    format.decode(list, sink);
  } catch (error) {
    if (!(error instanceof PageListError)) throw error;
    assert(calls === 0, `${format.name} gave out pages of a list that it refused`);
  }
}

const ofBytes = (format: PageListFormat) => (bytes: Uint8Array) => {
  fill(bytes.subarray(0, LIST_BYTES_MAX));
  decode(format);
};

const ofExtents = (format: PageListFormat) => (bytes: Uint8Array) => {
  fillExtents(bytes);
  decode(format);
};

const ofAnswers = (protocol: RequestProtocol, format: PageListFormat) => (bytes: Uint8Array) => {
  fill(bytes.subarray(0, LIST_BYTES_MAX));
  try {
    const { id, command } = protocol.readAnswer(list);
    assert(id >= 0 && command >= 0, 'an answer of negative numbers');
  } catch (error) {
    if (!(error instanceof PageListError)) throw error;
    return;
  }
  decode(format);
};

function statistics(bytes: Uint8Array): void {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (const [name, value] of Object.entries(decodeStatistics(view, bytes.length))) {
      assert(value === null || Number.isSafeInteger(value), `${name} is ${value}`);
    }
  } catch (error) {
    if (!(error instanceof StatisticsError)) throw error;
  }
}

function requests(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const protocol of [bitmapRequests, responseRequests, miscRequests]) {
    try {
      protocol.readRequest(view, bytes.length);
    } catch (error) {
      if (!(error instanceof PageListError)) throw error;
    }
  }
}

/** The input is what host and guest do, a byte a step. */
function hintSession(bytes: Uint8Array): void {
  const session = new HintSession({ hasDone: true });
  let newest = -1;
  for (const byte of bytes) {
    const before = session.onPages();
    if (byte === 0) {
      const id = session.start();
      assert(id > newest, `the id ${id} was issued again`);
      newest = id;
    } else if (byte === 1) session.stop();
    else if (byte === 2) session.done();
    else if (byte === 3) session.reset();
    else session.onIdBuffer(byte < 128 ? newest : byte - 128);
    assert(before || !session.onPages() || (byte > 3 && byte < 128), 'pages count that were not announced');
    assert(!session.onPages() || session.commandId === newest, 'a session runs that is not shown');
  }
}

/** The first byte is the offset of the write. */
function config(bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  const space = new Uint8Array(CONFIG.size).fill(0x5a);
  applyDriverWrite(space, bytes[0], bytes.subarray(1));
  for (const [offset, byte] of space.entries()) {
    assert(byte === 0x5a || isDriverWritable(offset), `the driver wrote byte ${offset}`);
  }
}

export const targets: Record<string, (bytes: Uint8Array) => void> = {
  'pfn-array': ofBytes(pfnArray),
  'page-bitmap': ofBytes(pageBitmap),
  'page-order': ofBytes(pageOrder),
  'page-range': ofBytes(pageRange),
  'page-chunks': ofBytes(pageChunks),
  'address-or-order': ofBytes(addressOrOrder),
  sg: ofBytes(sg),
  'sg-extents': ofExtents(sg),
  extents: ofExtents(extents),
  'bitmap-answer': ofAnswers(bitmapRequests, pageBitmap),
  'order-answer': ofAnswers(responseRequests, pageOrder),
  'range-answer': ofAnswers(responseRequests, pageRange),
  'chunks-answer': ofAnswers(miscRequests, pageChunks),
  requests,
  statistics,
  'hint-session': hintSession,
  config,
};
