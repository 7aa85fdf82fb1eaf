import { randomBytes } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CONNECTIONS_MAX } from '../../src/migration/limits.ts';
import type { Compression } from '../../src/migration/stream/compression.ts';
import * as messages from '../../src/migration/stream/messages.ts';
import {
  FLAG_COMPRESSED,
  FLAG_OPTIONAL,
  readHeader,
  SECTION,
  SECTION_HEADER,
  SECTION_PAYLOAD_BYTES_MAX,
  type SectionName,
  StreamError,
  sealSection,
} from '../../src/migration/stream/section.ts';
import { SectionReader } from '../../src/migration/stream/section-reader.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';

interface Taken {
  readonly name: SectionName;
  readonly payload: Uint8Array;
}

/** Of zlib, which is everywhere; compression.test.ts is about zstd. */
const deflate: Compression = {
  compress(bytes, into) {
    const packed = deflateRawSync(bytes);
    if (packed.length > into.length) return undefined;
    into.set(packed);
    return packed.length;
  },
  decompress(bytes, into) {
    const unpacked = inflateRawSync(bytes, { maxOutputLength: into.length });
    into.set(unpacked);
    return unpacked.length;
  },
};

function read(bytes: Uint8Array, compression = false): Taken[] {
  const taken: Taken[] = [];
  const reader = new SectionReader((name, payload) => taken.push({ name, payload: new Uint8Array(payload) }));
  if (compression) reader.compression = deflate;
  reader.push(bytes);
  reader.end();
  return taken;
}

/** The fault of what `run` throws. */
function fault(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof StreamError) return error.fault;
    throw error;
  }
  return 'none';
}

/** A section with a header of our choice and the right checksum. */
function section(type: number, flags: number, payload: Uint8Array, sequence = 0): Uint8Array {
  const bytes = new Uint8Array(SECTION_HEADER.size + payload.length);
  bytes.set(payload, SECTION_HEADER.size);
  sealSection(bytes, { type, flags, length: payload.length, sequence });
  return bytes;
}

const names = Object.keys(SECTION) as SectionName[];
const someSections = fc.array(fc.tuple(fc.constantFrom(...names), fc.uint8Array({ maxLength: 3000 })), {
  maxLength: 8,
});

describe('sections', () => {
  test('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(someSections, fc.array(fc.integer({ min: 1, max: 500 })), (sections, cuts) => {
        const writer = new SectionWriter();
        const bytes = Buffer.concat(
          sections.map(([name, payload]) => Buffer.from(writer.section(name, payload))),
        );
        const taken: Taken[] = [];
        const reader = new SectionReader((name, payload) =>
          taken.push({ name, payload: new Uint8Array(payload) }),
        );
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          reader.push(bytes.subarray(at, at + cut));
          at += cut;
        }
        reader.end();
        expect(taken).toEqual(sections.map(([name, payload]) => ({ name, payload })));
      }),
    );
  });

  test('stay as they are while the next one is made', () => {
    const writer = new SectionWriter();
    const first = writer.section('round', Uint8Array.of(1, 2, 3, 4));
    const copy = first.slice();
    writer.begin();
    writer.begin();
    writer.section('round', Uint8Array.of(5, 6, 7, 8));
    expect(first).toEqual(copy);
  });

  test('are compressed where that helps', () => {
    const writer = new SectionWriter();
    writer.compression = deflate;
    const dull = new Uint8Array(100_000).fill(7);
    const random = new Uint8Array(randomBytes(2000));
    const sections = [writer.section('state', dull).slice(), writer.section('state', random).slice()];
    expect(sections[0].length).toBeLessThan(1000);
    expect(sections[1].length).toBe(random.length + SECTION_HEADER.size);
    expect(read(Buffer.concat(sections), true).map(({ payload }) => payload)).toEqual([dull, random]);
    expect(fault(() => read(sections[0]))).toBe('compression');
  });

  test('that are compressed stay as they are while the next one is made, and its payload is free', () => {
    const writer = new SectionWriter();
    writer.compression = deflate;
    const payloads = Array.from({ length: 6 }, (_, i) => new Uint8Array(5000).fill(i));
    // One of them does not become shorter.
    payloads[3] = new Uint8Array(randomBytes(5000));
    const sections: Uint8Array[] = [];
    let last: Uint8Array | undefined;
    for (const payload of payloads) {
      const { payload: space } = writer.begin();
      const before = last?.slice();
      space.set(payload);
      const section = writer.seal('state', payload.length);
      expect(last).toEqual(before);
      last = section;
      sections.push(section.slice());
    }
    expect(read(Buffer.concat(sections), true).map(({ payload }) => payload)).toEqual(payloads);
  });

  test('of an unknown type are passed over where they say so', () => {
    const optional = section(999, FLAG_OPTIONAL, Uint8Array.of(1, 2, 3));
    const known = section(SECTION.go, 0, new Uint8Array(), 1);
    expect(read(Buffer.concat([optional, known]))).toEqual([{ name: 'go', payload: new Uint8Array() }]);
    expect(fault(() => read(section(999, 0, new Uint8Array())))).toBe('header');
  });

  test('are refused with an unknown flag, or a length beyond all bounds', () => {
    expect(fault(() => read(section(SECTION.go, 0x80, new Uint8Array())))).toBe('header');
    const long = section(SECTION.go, 0, new Uint8Array());
    new DataView(long.buffer).setUint32(SECTION_HEADER.offset.length, SECTION_PAYLOAD_BYTES_MAX + 1, true);
    expect(fault(() => read(long))).toBe('header');
  });

  test('that are missing, come twice or change their places are noticed', () => {
    const writer = new SectionWriter();
    const [a, b, c] = [1, 2, 3].map(n => writer.section('round', Uint8Array.of(n, 0, 0, 0)).slice());
    expect(fault(() => read(Buffer.concat([a, c])))).toBe('sequence');
    expect(fault(() => read(Buffer.concat([a, a])))).toBe('sequence');
    expect(fault(() => read(Buffer.concat([b, a])))).toBe('sequence');
    expect(read(Buffer.concat([a, b, c]))).toHaveLength(3);
  });

  test('that end too early are noticed', () => {
    const whole = section(SECTION.round, 0, Uint8Array.of(1, 0, 0, 0));
    for (let length = 1; length < whole.length; length++) {
      expect(fault(() => read(whole.subarray(0, length)))).toBe('truncated');
    }
  });

  test('show every change of a single bit', () => {
    const whole = section(SECTION.pages, 0, new Uint8Array(40).fill(3));
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const changed = whole.slice();
      changed[bit >> 3] ^= 1 << (bit & 7);
      expect(fault(() => read(changed))).not.toBe('none');
    }
  });

  test('that are bombs are not unpacked', () => {
    const bomb = (length: number, packed: Uint8Array) => {
      const payload = new Uint8Array(4 + packed.length);
      new DataView(payload.buffer).setUint32(0, length, true);
      payload.set(packed, 4);
      return section(SECTION.state, FLAG_COMPRESSED, payload);
    };
    const packed = deflateRawSync(new Uint8Array(64 * 2 ** 20));
    expect(fault(() => read(bomb(1000, packed), true))).toBe('compression');
    expect(fault(() => read(bomb(SECTION_PAYLOAD_BYTES_MAX, packed), true))).toBe('compression');
    expect(fault(() => read(bomb(0, packed), true))).toBe('compression');
    expect(fault(() => read(bomb(2 ** 31, packed), true))).toBe('compression');
    expect(fault(() => read(bomb(100, Uint8Array.of(1, 2, 3)), true))).toBe('compression');
    // Less than it says is a lie as well.
    expect(fault(() => read(bomb(100, deflateRawSync(new Uint8Array(99))), true))).toBe('compression');
    expect(fault(() => read(section(SECTION.state, FLAG_COMPRESSED, Uint8Array.of(1)), true))).toBe(
      'compression',
    );
  });
});

describe('messages', () => {
  const payloadOf = (write: (writer: SectionWriter) => Uint8Array): Uint8Array =>
    read(write(new SectionWriter()))[0].payload;
  const u48 = fc.integer({ min: 0, max: 2 ** 48 });
  const id = fc.uint8Array({ minLength: 16, maxLength: 16 });

  test('say what was written', () => {
    const hello = fc.record({
      id,
      purpose: fc.constantFrom('migrate' as const, 'inquire' as const),
      connection: fc.integer({ min: 0, max: 7 }),
      connections: fc.integer({ min: 8, max: CONNECTIONS_MAX }),
      features: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    });
    fc.assert(
      fc.property(hello, u48, u48, fc.string(), fc.string(), (value, a, b, code, message) => {
        expect(messages.readHello(payloadOf(w => messages.writeHello(w, value)))).toEqual(value);
        const totals = { pages: a, zeroPages: b };
        expect(messages.readEnd(payloadOf(w => messages.writeEnd(w, totals)))).toEqual(totals);
        expect(messages.readRound(payloadOf(w => messages.writeRound(w, value.features)))).toBe(
          value.features,
        );
        expect(messages.readWelcome(payloadOf(w => messages.writeWelcome(w, value.features)))).toBe(
          value.features,
        );
        expect(messages.readCancel(payloadOf(w => messages.writeCancel(w, code)))).toBe(code);
        const refusal = { code, message };
        expect(messages.readRefused(payloadOf(w => messages.writeRefused(w, refusal)))).toEqual(refusal);
      }),
    );
  });

  test('carry where the time went, and readers of before pass over that', () => {
    const steps = [
      { step: 'load/guest', ms: 1.25 },
      { step: 'load', ms: 3 },
    ];
    const section = messages.writeSpent(new SectionWriter(), steps);
    expect(messages.readSpent(section.slice(SECTION_HEADER.size))).toEqual(steps);
    expect(readHeader(section).flags & FLAG_OPTIONAL).toBe(FLAG_OPTIONAL);
    const unnamed = payloadOf(w => messages.writeSpent(w, [{ step: 'Load it\n', ms: 1 }]));
    expect(fault(() => messages.readSpent(unnamed))).toBe('payload');
  });

  test('cut a reason that is too long', () => {
    expect(messages.readCancel(payloadOf(w => messages.writeCancel(w, 'x'.repeat(5000))))).toBe(
      'x'.repeat(1024),
    );
  });

  test('carry states of any length in parts', async () => {
    for (const length of [0, 1, SECTION_PAYLOAD_BYTES_MAX, 3 * SECTION_PAYLOAD_BYTES_MAX]) {
      const state = new Uint8Array(length).map((_, i) => i);
      const writer = new SectionWriter();
      const sent: Uint8Array[] = [];
      await messages.writeState(writer, 'guest', state, async part => {
        sent.push(part.slice());
      });
      const chunks = read(Buffer.concat(sent)).map(({ payload }) => messages.readState(payload));
      expect(chunks.map(({ name, last }) => [name, last])).toEqual(
        chunks.map((_, i) => ['guest', i === chunks.length - 1]),
      );
      expect(Buffer.concat(chunks.map(({ bytes }) => bytes)).equals(state)).toBe(true);
    }
  });

  const readers: Record<string, (payload: Uint8Array) => unknown> = {
    hello: messages.readHello,
    memory: messages.readMemory,
    round: messages.readRound,
    state: payload => messages.readState(payload),
    end: messages.readEnd,
    cancel: messages.readCancel,
    welcome: messages.readWelcome,
    rehearse: messages.readRehearse,
    spent: messages.readSpent,
    refused: messages.readRefused,
    go: payload => messages.readBare('go', payload),
  };

  test.each(Object.keys(readers))('%s: arbitrary bytes give a value or a typed error', name => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), payload => {
        fault(() => readers[name](payload));
      }),
    );
  });

  test('of other programs and other versions say so', () => {
    const payload = payloadOf(w =>
      messages.writeHello(w, {
        id: new Uint8Array(16),
        purpose: 'migrate',
        connection: 0,
        connections: 1,
        features: 0,
      }),
    );
    expect(fault(() => messages.readHello(new TextEncoder().encode('GET / HTTP/1.1\r\n')))).toBe('protocol');
    const other = payload.slice();
    other[8] = 2;
    expect(() => messages.readHello(other)).toThrow(/version 2 and this program 1/);
    const many = payload.slice();
    many[14] = 0;
    expect(fault(() => messages.readHello(many))).toBe('payload');
  });
});
