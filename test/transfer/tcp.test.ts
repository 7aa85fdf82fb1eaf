import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import type { DestinationMessage, Inlet } from '../../src/migration/destination-link.ts';
import { formatTransferAddress, parseTransferAddress } from '../../src/transfer/address.ts';
import { systemClock } from '../../src/transfer/clock.ts';
import { TransferListener } from '../../src/transfer/listener.ts';
import { connectTcp } from '../../src/transfer/tcp.ts';
import { TcpChannel } from '../../src/transfer/tcp-channel.ts';

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

/** Two ends of a connection over loopback. */
async function connected(): Promise<[TcpChannel, TcpChannel]> {
  const server = createServer();
  opened.push(() => new Promise(resolve => server.close(resolve)));
  const port = await listening(server);
  const accepted = new Promise<Socket>(resolve => server.once('connection', resolve));
  const ours = new TcpChannel(await connectTcp({ address: { host: '127.0.0.1', port } }));
  const theirs = new TcpChannel(await accepted);
  opened.push(
    () => ours.destroy(),
    () => theirs.destroy(),
  );
  return [ours, theirs];
}

function listening(server: Server, host = '127.0.0.1'): Promise<number> {
  return new Promise(resolve => {
    server.listen(0, host, () => resolve((server.address() as { port: number }).port));
  });
}

/** What comes over a channel, until it is closed. */
function collect(channel: TcpChannel, space?: () => Uint8Array) {
  const chunks: Uint8Array[] = [];
  const result = {
    length: 0,
    error: undefined as Error | undefined,
    closed: new Promise<void>(resolve => {
      const add = (bytes: Uint8Array) => {
        chunks.push(bytes.slice());
        result.length += bytes.length;
      };
      let given = new Uint8Array();
      channel.listen({
        data: add,
        closed: error => {
          result.error = error;
          resolve();
        },
        ...(space === undefined
          ? {}
          : {
              direct: {
                get space() {
                  given = space() as Uint8Array<ArrayBuffer>;
                  return given;
                },
                filled: (count: number) => add(given.subarray(0, count)),
              },
            }),
      });
    }),
    bytes: () => Buffer.concat(chunks),
  };
  return result;
}

const until = async (met: () => boolean): Promise<void> => {
  for (let tries = 0; !met(); tries++) {
    if (tries > 3000) throw new Error('never came to it');
    await systemClock.sleep(5);
  }
};

const pattern = (length: number): Uint8Array => new Uint8Array(length).map((_, i) => i * 7 + (i >> 9));

describe('an address', () => {
  test('is a host and a port, with or without tcp:', () => {
    for (const [text, host, port] of [
      ['tcp:there:4444', 'there', 4444],
      ['10.0.0.2:1', '10.0.0.2', 1],
      ['[::1]:65535', '::1', 65_535],
      ['tcp:[fe80::1%eth0]:4', 'fe80::1%eth0', 4],
    ] as const) {
      expect(parseTransferAddress(text)).toEqual({ host, port });
      expect(parseTransferAddress(formatTransferAddress({ host, port }))).toEqual({ host, port });
    }
    for (const text of ['', 'there', ':4', 'there:', 'there:70000', '::1:4', 'udp:there:4', 'a b:4']) {
      expect(() => parseTransferAddress(text)).toThrow(/no address for a migration/);
    }
  });
});

describe('a connection', () => {
  test('brings what was written, in order, wherever it is read into', async () => {
    const [ours, theirs] = await connected();
    const bytes = pattern(5_000_000);
    // The one that connected reads into memory of the taker's choice, with a few bytes of it at a time.
    const space = new Uint8Array(70_001);
    const back = collect(ours, () => space.subarray(0, 1 + (back.length % 70_000)));
    const there = collect(theirs);
    const writes = [ours, theirs].map(async channel => {
      for (let at = 0; at < bytes.length; at += 999_999)
        await channel.write(bytes.subarray(at, at + 999_999));
    });
    await Promise.all(writes);
    await until(() => there.length === bytes.length && back.length === bytes.length);
    expect(there.bytes().equals(bytes)).toBe(true);
    expect(back.bytes().equals(bytes)).toBe(true);
  });

  test('that is closed still brings the last words, and both sides end without an error', async () => {
    const [ours, theirs] = await connected();
    const there = collect(theirs);
    const here = collect(ours);
    await ours.write(pattern(100));
    ours.close();
    ours.close();
    await Promise.all([there.closed, here.closed]);
    expect([there.length, there.error, here.error]).toEqual([100, undefined, undefined]);
  });

  test('says its last words to a peer that does not stop talking', async () => {
    const [ours, theirs] = await connected();
    const here = collect(ours);
    collect(theirs);
    let talking = true;
    const talk = async () => {
      while (talking) await ours.write(pattern(300_000));
    };
    const ended = talk().catch(() => {});
    await theirs.write(pattern(77));
    theirs.close();
    await here.closed;
    talking = false;
    await ended;
    expect(here.length).toBe(77);
  });

  test('that is cut fails on the other side, and so does writing', async () => {
    const [ours, theirs] = await connected();
    const here = collect(ours);
    const write = async () => {
      for (;;) await ours.write(pattern(1_000_000));
    };
    const failed = write().catch((error: Error) => error);
    theirs.destroy();
    await here.closed;
    expect(await failed).toMatchObject({ code: 'AEROSTAT_TRANSFER' });
  });

  test('gives nothing out while it is held', async () => {
    for (const direct of [false, true]) {
      const [ours, theirs] = await connected();
      const [from, to] = direct ? [theirs, ours] : [ours, theirs];
      const space = new Uint8Array(10);
      const there = collect(to, () => space);
      to.hold();
      await from.write(pattern(1000));
      await systemClock.sleep(30);
      expect(there.length).toBe(0);
      to.resume();
      await until(() => there.length === 1000);
      expect(there.bytes().equals(pattern(1000))).toBe(true);
    }
  });

  test('holds a writer back whose reader is slow', async () => {
    const [ours, theirs] = await connected();
    const there = collect(theirs);
    theirs.hold();
    let written = 0;
    const writing = (async () => {
      for (; written < 40; written++) await ours.write(pattern(2 ** 20));
    })();
    await systemClock.sleep(200);
    expect(written).toBeLessThan(40);
    theirs.resume();
    await writing;
    await until(() => there.length === 40 * 2 ** 20);
  });

  test('that cannot be made says why', async () => {
    const server = createServer();
    const port = await listening(server);
    await new Promise(resolve => server.close(resolve));
    await expect(connectTcp({ address: { host: '127.0.0.1', port } })).rejects.toThrow(
      /no process listens at 127/,
    );
    await expect(connectTcp({ address: { host: 'no-such-host.invalid', port } })).rejects.toThrow(
      /no-such-host/,
    );
  });
});

describe('a listener', () => {
  async function open(options: object = {}) {
    const inlets: Inlet[] = [];
    const messages: DestinationMessage[] = [];
    const listener = await TransferListener.open({
      address: { host: '127.0.0.1', port: 0 },
      accept: inlet => {
        inlets.push(inlet);
        return message => messages.push(message);
      },
      ...options,
    });
    opened.push(() => listener.close());
    return { listener, inlets, messages };
  }

  const visit = (listener: TransferListener): Promise<Socket> =>
    new Promise(resolve => {
      const socket = connect(listener.address.port, listener.address.host, () => resolve(socket));
      socket.on('error', () => {});
      opened.push(() => socket.destroy());
    });

  test('has few strangers at a time: the oldest has to go', async () => {
    const { listener } = await open({ strangersMax: 3 });
    const ends: number[] = [];
    for (let index = 0; index < 5; index++) (await visit(listener)).once('close', () => ends.push(index));
    await until(() => ends.length === 2);
    expect(ends.toSorted()).toEqual([0, 1]);
    expect(listener.connections).toBe(3);
  });

  test('sends those away who say nothing, or nonsense', async () => {
    const { listener, messages } = await open({ greetingMsMax: 30 });
    const silent = await visit(listener);
    await new Promise(resolve => silent.once('close', resolve));
    const noisy = await visit(listener);
    noisy.write('GET / HTTP/1.1\r\nHost: a.migration.is.not.here\r\n\r\n');
    await new Promise(resolve => noisy.once('close', resolve));
    await until(() => listener.connections === 0);
    expect(messages.map(({ kind }) => kind)).toEqual(['closed', 'closed']);
  });

  test('says why it cannot listen', async () => {
    const { listener } = await open();
    await expect(open({ address: listener.address })).rejects.toThrow(/another process listens there/);
    await expect(open({ address: { host: '203.0.113.1', port: 0 } })).rejects.toThrow(/no such address/);
  });

  test('listens on IPv6 where the host has it', async ({ skip }) => {
    const address = { host: '::1', port: 0 };
    const result = await open({ address }).catch((error: Error) => error);
    if (result instanceof Error) skip(`no IPv6 here: ${result.message}`);
    else {
      const socket = await connectTcp({ address: result.listener.address });
      opened.push(() => socket.destroy());
      await until(() => result.listener.connections === 1);
    }
  });
});
