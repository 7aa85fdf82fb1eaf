/** How `bench:micro -- leader` brings reports to the process that it measures: key, revision and bytes, one after the other. */
import type { Readable } from 'node:stream';
import type { Entry } from '../src/fleet/bus.ts';

export const SETTINGS = { periodMs: 2000 } as const;

const HEAD_BYTES = 16;

export function frameOf(key: string, revision: number, text: string): Buffer {
  const [name, body] = [Buffer.from(key), Buffer.from(text)];
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(name.length, 0);
  head.writeUInt32LE(body.length, 4);
  head.writeDoubleLE(revision, 8);
  return Buffer.concat([head, name, body]);
}

/** Resolves when the input ends. */
export async function readFrames(input: Readable, take: (entry: Entry) => void): Promise<void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of input as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let at = 0;
    while (rest.length - at >= HEAD_BYTES) {
      const [nameBytes, bodyBytes] = [rest.readUInt32LE(at), rest.readUInt32LE(at + 4)];
      const end = at + HEAD_BYTES + nameBytes + bodyBytes;
      if (rest.length < end) break;
      const key = rest.toString('utf8', at + HEAD_BYTES, at + HEAD_BYTES + nameBytes);
      // A copy, as a client of NATS hands one out.
      const bytes = new Uint8Array(rest.subarray(at + HEAD_BYTES + nameBytes, end));
      take({ key, revision: rest.readDoubleLE(at + 8), bytes });
      at = end;
    }
    rest = rest.subarray(at);
  }
}
