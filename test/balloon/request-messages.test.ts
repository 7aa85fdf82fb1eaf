import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageList, PageListError } from '../../src/balloon/page-list.ts';
import { EncodeCursor, type PageListFormat } from '../../src/balloon/page-list-format.ts';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import {
  bitmapRequests,
  DROP_CACHE,
  GET_UNUSED_PAGES,
  miscRequests,
  type RequestProtocol,
  responseRequests,
  SHRINK,
} from '../../src/balloon/request-messages.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';
import { hex, listOf, runsOf } from './lists.ts';

interface Channel {
  readonly name: string;
  readonly format: PageListFormat;
  readonly protocol: RequestProtocol;
}

const CHANNELS: Channel[] = PROFILE_NAMES.flatMap(name => {
  const { freePages } = profile(name);
  return freePages.kind === 'request' ? [{ name, ...freePages }] : [];
});

/** The answer as bytes, the way a driver makes it. */
function answer(
  { format, protocol }: Channel,
  ranges: PageRanges,
  id: number,
  done: boolean,
  command: number,
) {
  const list = new PageList();
  list.beginAt(protocol.prefixBytes);
  format.encode(ranges, new EncodeCursor(), list);
  protocol.writeAnswer(list, { command, id, done });
  return list.bytes.slice(0, list.length);
}

describe('requests', () => {
  const view = (bytes: Uint8Array) => new DataView(bytes.buffer);

  test('of v3 to v6 are 16 bytes: a command, and the id as its parameter', () => {
    for (const protocol of [bitmapRequests, responseRequests]) {
      const bytes = new Uint8Array(16).fill(0xff);
      expect(protocol.requestBytes).toBe(16);
      protocol.writeRequest(view(bytes), { command: SHRINK, id: 0x1234 });
      expect(bytes).toEqual(hex('a100 000000000000 3412000000000000'));
      expect(protocol.readRequest(view(bytes), 16)).toEqual({ command: SHRINK, id: 0x1234 });
    }
  });

  test('of v10 are 16 bytes: a command, flags, and the head of a list of no chunks', () => {
    const bytes = new Uint8Array(16).fill(0xff);
    expect(miscRequests.requestBytes).toBe(16);
    miscRequests.writeRequest(view(bytes), { command: DROP_CACHE, id: 5 });
    expect(bytes).toEqual(hex('a0000000 00000000 0000000000000000'));
    expect(miscRequests.readRequest(view(bytes), 16)).toEqual({ command: DROP_CACHE, id: 0 });
  });

  test('of another length are refused', () => {
    const bytes = new DataView(new ArrayBuffer(32));
    for (const [protocol, length] of [
      [bitmapRequests, 15],
      [responseRequests, 17],
      [miscRequests, 0],
      [miscRequests, 8],
    ] as const) {
      expect(() => protocol.readRequest(bytes, length)).toThrow(PageListError);
    }
  });
});

describe('answers', () => {
  test('of v3 carry command, flag and id in the header of the bitmap', () => {
    expect(answer(CHANNELS[0], PageRanges.of([0x40, 1]), 0x0102_0304_0506, false, GET_UNUSED_PAGES)).toEqual(
      hex('0000 0c00 0000 0000 0605040302010000 4000000000000000 0800000000000000 0100000000000000'),
    );
  });

  test('of v5 and v6 carry them in the response header', () => {
    expect(answer(CHANNELS[2], PageRanges.of([5, 2]), 0x1234, true, SHRINK)).toEqual(
      hex('a1 01 3412 08000000 0250000000000000'),
    );
  });

  test('of v10 are a message before the list of chunks', () => {
    expect(answer(CHANNELS[3], PageRanges.of([5, 2]), 0, true, GET_UNUSED_PAGES)).toEqual(
      hex('00000000 01000000  0100000000000000  0050000000000000 0020000000000000'),
    );
  });

  test.each(CHANNELS)('of $name give back what they were made of', channel => {
    const runs = fc.array(fc.tuple(fc.nat(4000), fc.integer({ min: 1, max: 50 })), { maxLength: 20 });
    const command = fc.constantFrom(GET_UNUSED_PAGES, DROP_CACHE, SHRINK, 255);
    fc.assert(
      fc.property(runs, fc.nat(channel.protocol.idMax), fc.boolean(), command, (runs, id, done, command) => {
        const ranges = PageRanges.of(...runs).normalize();
        const list = listOf(answer(channel, ranges, id, done, command));
        expect(channel.protocol.readAnswer(list)).toEqual({ command, id, done });
        expect(
          PageRanges.of(...runsOf(channel.format, list))
            .normalize()
            .toArray(),
        ).toEqual(ranges.toArray());
      }),
      { numRuns: 100 },
    );
  });

  test.each(CHANNELS)('of $name end with DONE even when there is no page left to name', channel => {
    const list = listOf(answer(channel, new PageRanges(), 0, true, GET_UNUSED_PAGES));
    expect(channel.protocol.readAnswer(list).done).toBe(true);
    expect(runsOf(channel.format, list)).toEqual([]);
  });

  test.each(CHANNELS)('of $name are refused without their header', ({ protocol }) => {
    for (let length = 0; length < 8; length++) {
      expect(() => protocol.readAnswer(listOf(new Uint8Array(length)))).toThrow(PageListError);
    }
  });

  test('carry no id that does not fit', () => {
    const list = new PageList();
    expect(() => responseRequests.writeAnswer(list, { command: 0, id: 0x10000, done: true })).toThrow(
      'request id 65536',
    );
    expect(() => bitmapRequests.writeAnswer(list, { command: 0, id: -1, done: true })).toThrow(
      'request id -1',
    );
    expect(() => miscRequests.writeAnswer(list, { command: 0, id: 0, done: true })).toThrow('without room');
  });
});
