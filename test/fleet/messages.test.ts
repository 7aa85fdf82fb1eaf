/** Messages of strangers: read whole or refused with a reason, and nothing is thrown. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  MESSAGE_BYTES_MAX,
  type MessageKind,
  readMessage,
  SCHEMAS,
  VERSION,
  writeMessage,
} from '../../src/fleet/messages.ts';
import { orderOf, reportOf } from './samples.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);
const kinds = Object.keys(SCHEMAS) as MessageKind[];

describe('a message', () => {
  test('that was written is read as it was', () => {
    const report = reportOf('host1', { guests: 2 });
    expect(readMessage('report', bytesOf(writeMessage('report', report)))).toEqual({ value: report });
    const question = { version: VERSION, epoch: 4, ask: 'move', order: orderOf('web') } as const;
    expect(readMessage('hostQuestion', bytesOf(writeMessage('hostQuestion', question)))).toEqual({
      value: question,
    });
  });

  test('of a newer version is refused as such, whatever else it says', () => {
    const newer = JSON.stringify({ ...reportOf('host1'), version: VERSION + 1, more: 'of it' });
    for (const kind of kinds) expect(readMessage(kind, bytesOf(newer))).toMatchObject({ refusal: 'newer' });
  });

  test('of 8 MiB is refused by its length, before it is parsed', () => {
    const large = new Uint8Array(8 * 1024 * 1024).fill(0x20);
    expect(readMessage('report', large)).toMatchObject({ refusal: 'too-large' });
    expect(readMessage('report', large.subarray(0, MESSAGE_BYTES_MAX))).toMatchObject({
      refusal: 'nonsense',
    });
  });

  test('with figures that make no sense is refused with the field', () => {
    const read = readMessage('report', bytesOf(JSON.stringify({ ...reportOf('host1'), memoryBytes: -1 })));
    expect(read).toMatchObject({ refusal: 'nonsense', why: expect.stringContaining('memoryBytes') });
  });

  test('of any bytes is a value or a refusal', () => {
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.uint8Array({ maxLength: 200 }), (kind, bytes) => {
        const read = readMessage(kind, bytes);
        expect('value' in read || read.why.length > 0).toBe(true);
      }),
    );
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.json(), (kind, json) => {
        expect(readMessage(kind, bytesOf(json))).toHaveProperty('refusal');
      }),
    );
  });
});
