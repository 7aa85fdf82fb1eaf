/** `aerostat.toml`: taken whole, or refused whole with the place of every error. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseConfiguration } from '../../src/cli/configuration/read.ts';
import { configurationJsonSchema } from '../../src/cli/configuration/schema.ts';
import type { ConfigurationError } from '../../src/cli/configuration/toml.ts';

const GIB = 2 ** 30;

const errorsOf = (text: string): string[] => {
  try {
    parseConfiguration('p.toml', text);
  } catch (error) {
    return (error as ConfigurationError).message.split('\n');
  }
  return [];
};

test('a file says where guests are, how they are served, and what the policy may do', () => {
  const { text, placeOf, ...file } = parseConfiguration(
    '/etc/aerostat/aerostat.toml',
    `
[sources]
daemons = ["/run/aerostat/a.sock", { api = "host3:8080", token-file = "host3.token" }]
qmp-dirs = ["/var/run/qemu-server"]
libvirt = ["qemu:///system"]

[api]
listen = "api.sock"

[device]
keep = "/run/keep.sock"
poll-interval = "2s"

[policy]
period = "1s"
reserve = "2G"
on-silence = "release"
defaults = { min = "512M" }

[guests.web]
qmp = "web.qmp"
min = "1G"
max = "4G"
shares = 2000

[guests.db]
api = "host2:8080"
guest = "vm2"
token-file = "token"
mode = "hold"

[guests.ours]
socket = "ours.sock"
target = "1G"
eviction-interval = "0"

[guests.plain]

[fleet]
servers = ["nats://nats1:4222"]
machines = "machines"
period = "500ms"
creds = "host1.creds"
`,
  );
  expect(text.guests).toHaveProperty('plain');
  expect(placeOf(['guests', 'web', 'min'])).toEqual({ line: 22, column: 1 });
  expect(placeOf(['guests', 'web', 'mode'])).toBeUndefined();
  expect(file).toEqual({
    path: '/etc/aerostat/aerostat.toml',
    guests: [
      { name: 'web', qmp: '/etc/aerostat/web.qmp' },
      { name: 'db', api: 'host2:8080', guest: 'vm2', tokenFile: '/etc/aerostat/token' },
    ],
    daemons: [{ api: '/run/aerostat/a.sock' }, { api: 'host3:8080', tokenFile: '/etc/aerostat/host3.token' }],
    qmpDirectories: ['/var/run/qemu-server'],
    qmpNames: 'file',
    libvirt: ['qemu:///system'],
    keep: '/run/keep.sock',
    steersOwn: false,
    api: { listen: '/etc/aerostat/api.sock', remote: false },
    log: {},
    served: [
      {
        name: 'ours',
        socketPath: '/etc/aerostat/ours.sock',
        targetBytes: GIB,
        profile: 'virtio',
        discard: 'auto',
        without: [],
        pollIntervalMs: 2000,
        bootGraceMs: 0,
        evictionMs: 0,
      },
    ],
    policy: {
      periodMs: 1000,
      dryRun: false,
      onSilence: 'release',
      reserveBytes: 2 * GIB,
      defaults: { minBytes: GIB / 2 },
      guests: {
        web: { minBytes: GIB, maxBytes: 4 * GIB, shares: 2000 },
        db: { mode: 'hold' },
        ours: {},
        plain: {},
      },
    },
    fleet: {
      servers: ['nats://nats1:4222'],
      machines: '/etc/aerostat/machines',
      period: '500ms',
      creds: '/etc/aerostat/host1.creds',
    },
  });
});

test('an empty file is the default', () => {
  expect(parseConfiguration('p.toml', '').policy).toMatchObject({ periodMs: 2000, onSilence: 'keep' });
});

test('every error is named with its line and column', () => {
  expect(
    errorsOf(`speed = 3
[policy]
period = "soon"
reserve = 4
defaults.min = "2G"
[guests.web]
shares = 0
mode = "maybe"
colour = "red"
[sources]
daemons = ["/a", { api = "/b", tokenFile = "c" }]
`),
  ).toEqual([
    'p.toml:11:32: sources.daemons.1.tokenFile: there is no such setting',
    expect.stringMatching(/^p\.toml:3:1: policy\.period: "soon" is not a duration/),
    expect.stringMatching(/^p\.toml:4:1: policy\.reserve: must be a size in quotes/),
    expect.stringMatching(/^p\.toml:7:1: guests\.web\.shares: /),
    expect.stringMatching(/^p\.toml:8:1: guests\.web\.mode: /),
    'p.toml:9:1: guests.web.colour: there is no such setting',
    'p.toml:1:1: speed: there is no such setting',
  ]);
});

test.each([
  ['a = 1\na = 2', /^p\.toml:2:1: /],
  ['[guests.web', /^p\.toml:1:/],
  [
    '[policy.defaults]\nmin = "2G"\n[guests.web]\nmax = "1G"',
    /^p\.toml:3:1: guests\.web\.min: 2G is above the maximum, 1G/,
  ],
  ['guests = { web = { min = "2G", max = "1G" } }', /^p\.toml:1:20: guests\.web\.min: /],
  ['[guests.web]\nqmp = "a"\napi = "b/c"', /^p\.toml:3:1: .*one of the three/],
  ['[guests.web]\nguest = "a"', /^p\.toml:2:1: .*goes with api/],
  ['[guests.web]\ntarget = "1G"', /^p\.toml:2:1: .*goes with socket/],
  ['[guests.web]\nsocket = "a"\nwithout = ["colour"]', /^p\.toml:3:12: guests\.web\.without\.0: .*colour/],
  ['[guests."no name"]', /^p\.toml:1:1: .*no guest can be called that/],
  ['policy.period = "1ms"', /^p\.toml:1:8: .*200ms at least/],
  ['sources.daemons = ["a", 3]', /^p\.toml:1:25: sources\.daemons\.1: /],
])('what is wrong in %j is named', (text, expected) => {
  expect(errorsOf(text)).toEqual([expect.stringMatching(expected)]);
});

test('the schema that is shipped is that of the file', () => {
  const shipped = readFileSync(new URL('../../packaging/aerostat.schema.json', import.meta.url), 'utf8');
  expect(JSON.parse(shipped)).toEqual(configurationJsonSchema());
});
