import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LineSplitter, LineTooLongError } from '../../../src/peers/qemu/lines.ts';

describe('lines of a stream', () => {
  it('come out whole however the stream is cut', () => {
    const line = fc.string({ unit: 'binary' }).map(text => text.replaceAll(/[\r\n]/g, ' '));
    fc.assert(
      fc.property(fc.array(line), fc.array(fc.nat(40)), (lines, cuts) => {
        const bytes = Buffer.from(lines.map(text => `${text}\r\n`).join(''));
        const seen: string[] = [];
        const splitter = new LineSplitter(1000);
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          splitter.push(bytes.subarray(at, at + cut), text => seen.push(text));
          at += cut;
        }
        // What UTF-8 cannot say is lost the same way in both.
        expect(seen).toEqual(lines.map(text => Buffer.from(text).toString()));
      }),
    );
  });

  it('are refused when one grows without end, in one piece or in many', () => {
    expect(() => new LineSplitter(10).push(Buffer.from('01234567890\n'), () => {})).toThrow(LineTooLongError);
    const splitter = new LineSplitter(10);
    const feed = () => {
      for (let piece = 0; piece < 4; piece++) splitter.push(Buffer.from('012'), () => {});
    };
    expect(feed).toThrow(LineTooLongError);
  });
});
