/** The TOML file of a policy's settings: taken whole, or refused whole with the place of every error. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type PolicyFileError, parsePolicyFile, policyFileJsonSchema } from '../../src/cli/policy-file.ts';

const GIB = 2 ** 30;

const errorsOf = (text: string): string[] => {
  try {
    parsePolicyFile('p.toml', text);
  } catch (error) {
    return (error as PolicyFileError).message.split('\n');
  }
  return [];
};

test('a file says what the policy is to do, and where guests are', () => {
  const file = parsePolicyFile(
    '/etc/aerostat/policy.toml',
    `
period = "1s"
reserve = "2G"
on-silence = "release"
daemons = ["/run/aerostat/a.sock"]

[defaults]
min = "512M"

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

[guests.plain]
`,
  );
  expect(file).toEqual({
    guests: [
      { name: 'web', qmp: '/etc/aerostat/web.qmp' },
      { name: 'db', api: 'host2:8080', guest: 'vm2', tokenFile: '/etc/aerostat/token' },
    ],
    daemons: ['/run/aerostat/a.sock'],
    settings: {
      periodMs: 1000,
      dryRun: false,
      onSilence: 'release',
      reserveBytes: 2 * GIB,
      defaults: { minBytes: GIB / 2 },
      guests: {
        web: { minBytes: GIB, maxBytes: 4 * GIB, shares: 2000 },
        db: { mode: 'hold' },
        plain: {},
      },
    },
  });
});

test('an empty file is the default', () => {
  expect(parsePolicyFile('p.toml', '').settings).toMatchObject({ periodMs: 2000, onSilence: 'keep' });
});

test('every error is named with its line and column', () => {
  expect(
    errorsOf(`period = "soon"
reserve = 4
speed = 3
[defaults]
min = "2G"
[guests.web]
shares = 0
mode = "maybe"
colour = "red"
`),
  ).toEqual([
    expect.stringMatching(/^p\.toml:1:1: period: "soon" is not a duration/),
    expect.stringMatching(/^p\.toml:2:1: reserve: must be a size in quotes/),
    expect.stringMatching(/^p\.toml:7:1: guests\.web\.shares: /),
    expect.stringMatching(/^p\.toml:8:1: guests\.web\.mode: /),
    'p.toml:9:1: guests.web.colour: there is no such setting',
    'p.toml:3:1: speed: there is no such setting',
  ]);
});

test.each([
  ['a = 1\na = 2', /^p\.toml:2:1: /],
  ['[guests.web', /^p\.toml:1:/],
  [
    '[defaults]\nmin = "2G"\n[guests.web]\nmax = "1G"',
    /^p\.toml:3:1: guests\.web\.min: 2G is above the maximum, 1G/,
  ],
  ['guests = { web = { min = "2G", max = "1G" } }', /^p\.toml:1:20: guests\.web\.min: /],
  ['[guests.web]\nqmp = "a"\napi = "b/c"', /^p\.toml:3:1: .*not both/],
  ['[guests.web]\nguest = "a"', /^p\.toml:2:1: .*goes with api/],
  ['[guests."no name"]', /^p\.toml:1:1: .*no guest can be called that/],
  ['period = "1ms"', /^p\.toml:1:1: .*200ms at least/],
  ['daemons = ["a", 3]', /^p\.toml:1:17: daemons\.1: /],
])('what is wrong in %j is named', (text, expected) => {
  expect(errorsOf(text)).toEqual([expect.stringMatching(expected)]);
});

test('the schema that is shipped is that of the file', () => {
  const shipped = readFileSync(new URL('../../packaging/policy.schema.json', import.meta.url), 'utf8');
  expect(JSON.parse(shipped)).toEqual(policyFileJsonSchema());
});
