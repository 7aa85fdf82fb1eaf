/** Who is let in by a real server of NATS, and what is said where one is not: TLS, nkeys, users, JWTs, permissions. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nkeys } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { busTo } from '../../../src/cli/fleet-options.ts';
import type { Credentials } from '../../../src/fleet/nats.ts';
import { missingPrograms } from '../../../src/peers/programs.ts';
import type { TlsIdentity } from '../../../src/transfer/tls.ts';
import { run } from '../../cli/terminal.ts';
import { reportOf } from '../../fleet/samples.ts';
import { describePeer } from '../../support/peers.ts';
import { Authority } from '../../transfer/certificates.ts';
import { Operator } from './jwt.ts';
import { NatsServers } from './nats-servers.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/fleet.md', import.meta.url));
const PASSWORD = 'se:cr et';

describePeer('servers of NATS that ask who comes', missingPrograms('nats-server', 'openssl'), () => {
  const directory = mkdtempSync(join(tmpdir(), 'fl-'));
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  const seedOf = (user: ReturnType<typeof nkeys.createUser>) => new TextDecoder().decode(user.getSeed());

  /** A host of the fleet, as an agent would be one, has reported. */
  async function report(servers: readonly string[], credentials: Credentials, host: string): Promise<void> {
    const place = { servers, fleet: 'default', periodMs: 2000, replicas: 1, text: {} };
    const bus = await busTo({ ...place, credentials }, 'test', true);
    try {
      await bus.buckets.hosts.put(host, JSON.stringify(reportOf(host)));
    } finally {
      await bus.close();
    }
  }

  /** What `aerostat fleet status` says, in one line. */
  async function status(servers: readonly string[], ...words: string[]) {
    const { code, out, err } = await run(['fleet', 'status', '--nats', servers.join(','), ...words]);
    return { code, said: `${out}${err}`.replaceAll(/\s+/g, ' ') };
  }

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  describe('with TLS on both sides, and users with permissions', () => {
    const [host, onlooker, stranger, deaf] = Array.from({ length: 4 }, () => nkeys.createUser());
    const nkey = (name: string, user: ReturnType<typeof nkeys.createUser>) => [
      '--nkey',
      file(`${name}.nk`, seedOf(user)),
    ];
    let ours: Authority;
    let theirs: Authority;
    let identity: TlsIdentity;
    /** Options for the CA, for our own certificate, and for both. */
    let ca: string[];
    let own: string[];
    let tls: string[];
    let servers: NatsServers;

    beforeAll(async () => {
      [ours, theirs] = [new Authority('ours'), new Authority('theirs')];
      // Nothing but its address: no name of it is known.
      const server = ours.sign(['IP:127.0.0.1']);
      identity = ours.sign(['DNS:host1']);
      ca = ['--tls-ca', file('ca.pem', identity.ca)];
      own = ['--tls-cert', file('own.pem', identity.cert), '--tls-key', file('own.key', identity.key)];
      tls = [...ca, ...own];
      // The users of the document are the ones that are tried.
      const [, accounts = ''] =
        /accounts: begin -->\n\n([\s\S]*?)\n\n<!-- accounts: end/.exec(readFileSync(DOCUMENT, 'utf8')) ?? [];
      const more = `{ nkey: ${deaf.getPublicKey()}, permissions: { subscribe: ["_INBOX.>"] } }
                    { user: person, password: ${JSON.stringify(PASSWORD)} }`;
      const users = accounts
        .replace('HOSTS_PUBLIC_KEY', host.getPublicKey())
        .replace('ONLOOKERS_PUBLIC_KEY', onlooker.getPublicKey())
        .replace('users: [', `users: [ ${more}`);
      const files = [
        `cert_file: ${JSON.stringify(file('server.pem', server.cert))}`,
        `key_file: ${JSON.stringify(file('server.key', server.key))}`,
        `ca_file: ${JSON.stringify(ca[1])}`,
      ];
      servers = await NatsServers.start(directory, 1, `tls { ${files.join(', ')}, verify: true }\n${users}`);
      await report(servers.urls, { nkey: seedOf(host), tls: identity }, 'one');
    });

    afterAll(async () => {
      await servers?.close();
      ours?.close();
      theirs?.close();
    });

    test('a host joins by its certificate and its nkey, and is seen', async () => {
      const { code, said } = await status(servers.urls, ...tls, ...nkey('host', host));
      expect([code, said]).toEqual([0, expect.stringContaining('one')]);
    });

    test('by the user and password of a URL as well, which no message repeats', async () => {
      const [url] = servers.urls;
      const as = (password: string) => [url.replace('//', `//person:${encodeURIComponent(password)}@`)];
      const { code, said } = await status(as(PASSWORD), ...tls);
      expect([code, said]).toEqual([0, expect.stringContaining('one')]);
      const wrong = await status(as('wrong word'), ...tls);
      expect([wrong.code, wrong.said]).toEqual([
        3,
        expect.stringContaining('does not know these credentials'),
      ]);
      expect(wrong.said).not.toContain('wrong');
    });

    test('of another CA are not believed, and the option that says which is named', async () => {
      const other = file('other.pem', theirs.sign(['DNS:x']).ca);
      const { code, said } = await status(servers.urls, '--tls-ca', other, ...own, ...nkey('host', host));
      expect([code, said]).toEqual([
        3,
        expect.stringMatching(/not signed by a CA that is trusted here.*--tls-ca/),
      ]);
    });

    test('want a certificate of ours: the options that have it are named', async () => {
      const { code, said } = await status(servers.urls, ...ca, ...nkey('host', host));
      expect([code, said]).toEqual([3, expect.stringMatching(/want a certificate of this host.*--tls-cert/)]);
    });

    test('do not know a stranger: the options of credentials are named', async () => {
      const { code, said } = await status(servers.urls, ...tls, ...nkey('stranger', stranger));
      expect([code, said]).toEqual([3, expect.stringMatching(/does not know these credentials.*--nkey/)]);
    });

    test('let an onlooker look, and name the subject of what it may not do', async () => {
      const words = [...tls, ...nkey('onlooker', onlooker)];
      expect(await status(servers.urls, ...words)).toMatchObject({
        code: 0,
        said: expect.stringContaining('one'),
      });
      const { code, err } = await run(['fleet', 'drain', 'one', '--nats', servers.urls.join(','), ...words]);
      expect([code, err.replaceAll(/\s+/g, ' ')]).toEqual([
        6,
        expect.stringMatching(
          /do not allow to publish to aerostat\.default\.leader;.*at the servers of NATS/,
        ),
      ]);
      await expect(report(servers.urls, { nkey: seedOf(onlooker), tls: identity }, 'two')).rejects.toThrow(
        /do not allow to publish to \$(JS\.API\.STREAM|KV)/,
      );
    });

    test('name the subject that is not heard', async () => {
      const { code, said } = await status(servers.urls, ...tls, ...nkey('deaf', deaf));
      expect([code, said]).toEqual([
        6,
        expect.stringContaining('do not allow to subscribe to aerostat.default.stored.hosts.>'),
      ]);
    });
  });

  describe('with JWTs of an operator', () => {
    const operator = new Operator();
    let servers: NatsServers;

    beforeAll(async () => {
      const own = join(directory, 'jwt');
      mkdirSync(own);
      servers = await NatsServers.start(own, 1, operator.configuration);
    });

    afterAll(() => servers?.close());

    test('a host joins by its file of --creds, and those of another operator are not known', async () => {
      const creds = operator.creds('host');
      await report(servers.urls, { creds }, 'one');
      const { code, said } = await status(servers.urls, '--creds', file('host.creds', creds));
      expect([code, said]).toEqual([0, expect.stringContaining('one')]);
      const other = file('other.creds', new Operator().creds('host'));
      expect(await status(servers.urls, '--creds', other)).toMatchObject({
        code: 3,
        said: expect.stringMatching(/does not know these credentials.*--creds/),
      });
    });
  });
});
