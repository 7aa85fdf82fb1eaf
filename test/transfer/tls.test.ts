/** Migrations under TLS: both sides show a certificate of the CA that the other one trusts, or nothing is said. */

import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import * as tls from 'node:tls';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { TransferListener } from '../../src/transfer/listener.ts';
import { readTlsIdentity, type TlsIdentity } from '../../src/transfer/tls.ts';
import { describePeer } from '../support/peers.ts';
import { Authority } from './certificates.ts';
import { closeRam, contents, Leaving, memoryOf, Place, until, writePage } from './places.ts';

const PAGES = 300;

describePeer('under TLS', missingPrograms('openssl'), () => {
  let ours: Authority;
  let foreign: Authority;
  beforeAll(() => {
    ours = new Authority('ours');
    foreign = new Authority('foreign');
  });
  afterAll(() => {
    ours.close();
    foreign.close();
  });

  const opened: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of opened.splice(0).reverse()) await close();
  });

  async function journey(
    source: TlsIdentity | undefined,
    destination: TlsIdentity | undefined,
    { connections = 1, ...patience }: { connections?: number; greetingMsMax?: number } = {},
  ) {
    const place = new Place(PAGES * PAGE_SIZE);
    const listener = await TransferListener.open({
      address: { host: '127.0.0.1', port: 0 },
      accept: inlet => place.destination.accept(inlet),
      ...(destination === undefined ? {} : { tls: destination }),
      ...patience,
    });
    const ram = memoryOf([{ guestAddress: 0, size: PAGES * PAGE_SIZE }]);
    for (let slot = 0; slot < PAGES; slot += 2) writePage(ram, slot, slot);
    const leaving = new Leaving(ram, {
      address: listener.address,
      connections,
      ...(source === undefined ? {} : { tls: source }),
    });
    opened.push(async () => {
      await listener.close();
      closeRam(place.ram);
      closeRam(ram);
    });
    return { place, listener, leaving, ram };
  }

  const there = () => ours.sign(['IP:127.0.0.1', 'DNS:localhost']);
  const here = () => ours.sign(['DNS:source']);

  test('a guest moves, over one connection and several', async () => {
    for (const connections of [1, 3]) {
      const { place, leaving, ram } = await journey(here(), there(), { connections });
      await leaving.source.run();
      await place.destination.outcome;
      expect(place.ram && contents(place.ram).equals(contents(ram))).toBe(true);
    }
  });

  test('no peer is heard without a certificate of the CA', async () => {
    for (const [source, why] of [
      [foreign.sign(['DNS:source'], ours), /certificate|connection/],
      [ours.sign(['DNS:source'], ours, -1), /certificate|connection/],
      [undefined, /connection/],
    ] as const) {
      const { place, leaving } = await journey(source, there());
      await expect(leaving.source.run()).rejects.toThrow(why);
      expect([place.destination.phase, place.created, leaving.asked]).toEqual(['waiting', [], []]);
    }
  });

  test('nothing is said to a destination without one, of another CA, for another host, or of yesterday', async () => {
    for (const [destination, why] of [
      [foreign.sign(['IP:127.0.0.1'], ours), /not one of the CA's/],
      [ours.sign(['DNS:another-host']), /certificate is for another host/],
      [ours.sign(['IP:127.0.0.1'], ours, -1), /certificate has expired; renew it there/],
      [undefined, /TLS|connection/],
    ] as const) {
      const { place, leaving } = await journey(here(), destination);
      await expect(leaving.source.run()).rejects.toThrow(why);
      expect([place.destination.phase, place.created, leaving.asked]).toEqual(['waiting', [], []]);
    }
  });

  test('a visitor with no certificate, of an older TLS, or who says nothing, is sent away', async () => {
    const { listener, place } = await journey(undefined, there(), { greetingMsMax: 300 });
    const { host, port } = listener.address;
    const closed = async (socket: { once(event: string, listener: () => void): unknown }): Promise<void> => {
      await new Promise<void>(resolve => {
        socket.once('error', () => {});
        socket.once('close', resolve);
      });
    };
    const { ca, ...identity } = here();
    await closed(
      tls
        .connect({ host, port, ca })
        .on('secureConnect', () => {})
        .resume(),
    );
    await closed(tls.connect({ host, port, ca, ...identity, maxVersion: 'TLSv1.2' }).resume());
    await closed(connect({ host, port }).resume());
    await until(() => listener.connections === 0);
    expect(place.destination.phase).toBe('waiting');
  });

  test('a certificate that cannot be used is refused before any peer is listened to', async () => {
    const { cert, key, ca } = there();
    const broken = { cert, key: here().key, ca };
    await expect(journey(undefined, broken)).rejects.toThrow(/cannot be used/);
    await expect(journey(undefined, { cert: 'no certificate', key, ca })).rejects.toThrow(/cannot be used/);
    const paths = { cert: join(ours.directory, 'cert'), key: join(ours.directory, 'none'), ca: '/nowhere' };
    writeFileSync(paths.cert, cert);
    expect(() => readTlsIdentity(paths)).toThrow(/cannot read the key .*none/);
  });
});
