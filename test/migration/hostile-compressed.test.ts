import { describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { type Compression, zstd } from '../../src/migration/stream/compression.ts';
import { FEATURE_ZSTD } from '../../src/migration/stream/messages.ts';
import { FLAG_COMPRESSED, SECTION_PAYLOAD_BYTES_MAX } from '../../src/migration/stream/section.ts';
import { mutate } from '../support/mutate.ts';
import { bomb } from '../sys/zstd-frames.ts';
import { expectHarmless, honest, MEMORY_MAX, type Part, sealedOne, Victim } from './victim.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_101);

/** Bytes of these sections; after `hello` and `memory` each is compressed, be it longer for that or not. */
const compressed = (parts: readonly Part[], compression: Compression): Uint8Array[] =>
  parts.map(({ name, payload }, sequence) => {
    const bytes = sequence < 2 || payload.length === 0 ? undefined : packed(payload, compression);
    return sealedOne(name, bytes ?? payload, bytes === undefined ? 0 : FLAG_COMPRESSED, sequence);
  });

function packed(payload: Uint8Array, compression: Compression): Uint8Array {
  const into = new Uint8Array(payload.length + 1024);
  new DataView(into.buffer).setUint32(0, payload.length, true);
  return into.subarray(0, 4 + (compression.compress(payload, into.subarray(4)) ?? 0));
}

describe.skipIf(zstd === undefined)('a stream that is compressed', () => {
  const compression = zstd as Compression;

  test('brings the guest', async () => {
    const victim = await new Victim().feed(compressed(honest(FEATURE_ZSTD), compression));
    expect([victim.runs, victim.error]).toEqual([true, undefined]);
    expect(victim.loaded.map(({ name, bytes }) => [name, bytes.length])).toEqual([['guest', 1000]]);
  });

  test('is refused where it was not agreed on, and before there is memory', async () => {
    const parts = honest(0);
    const unasked = await (await new Victim().feed(compressed(parts, compression))).end();
    expectHarmless(unasked);
    expect(unasked.error).toMatchObject({ fault: 'compression' });
    const hello = sealedOne('hello', packed(parts[0].payload, compression), FLAG_COMPRESSED, 0);
    const early = await (await new Victim().feed([hello])).end();
    expectHarmless(early);
    expect([early.destination.phase, early.closedByUs]).toEqual(['waiting', true]);
  });

  test('and is a bomb, a piece of a frame, or a frame and more, is refused', async () => {
    const parts = honest(FEATURE_ZSTD);
    const index = parts.findIndex(({ name }) => name === 'pages');
    const whole = packed(parts[index].payload, compression);
    const { length } = parts[index].payload;
    const claiming = (claimed: number, frame: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(4 + frame.length);
      new DataView(bytes.buffer).setUint32(0, claimed, true);
      bytes.set(frame, 4);
      return bytes;
    };
    for (const payload of [
      claiming(length, bomb()),
      claiming(SECTION_PAYLOAD_BYTES_MAX, bomb(2 ** 30)),
      claiming(2 ** 32 - 1, bomb(2 ** 32 - 1)),
      claiming(0, whole.subarray(4)),
      claiming(length - 1, whole.subarray(4)),
      claiming(length + 1, whole.subarray(4)),
      claiming(length, whole.subarray(4, -1)),
      claiming(length, new Uint8Array(Buffer.concat([whole.subarray(4), whole.subarray(4)]))),
      claiming(length, new Uint8Array()),
      whole.subarray(0, 3),
    ]) {
      const sections = compressed(parts, compression);
      sections[index] = sealedOne('pages', payload, FLAG_COMPRESSED, index);
      const victim = await (await new Victim().feed(sections)).end();
      expectHarmless(victim);
      expect(victim.error).toMatchObject({ fault: 'compression' });
    }
  });

  test(`and was changed under right checksums never brings more than was asked (seed ${SEED})`, async () => {
    const random = new Random(SEED);
    const parts = honest(FEATURE_ZSTD);
    for (let i = 0; i < 500; i++) {
      const sections = compressed(parts, compression);
      // `go` and what is never compressed are left alone.
      const index = random.between(2, parts.length - 2);
      const frame = Buffer.from(packed(parts[index].payload, compression));
      sections[index] = sealedOne(parts[index].name, mutate(frame, random), FLAG_COMPRESSED, index);
      const victim = await (await new Victim().feed(sections)).end();
      if (!victim.runs) expectHarmless(victim);
      for (const size of victim.created) expect(size).toBeLessThanOrEqual(MEMORY_MAX);
    }
  });
});
