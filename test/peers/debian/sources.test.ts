import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { aptSources, debianArchive, parseLines, parseStanzas } from '../../../src/peers/debian/sources.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const STANZAS = `# The archive.
Types: deb deb-src
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: ${KEYRING}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: ${KEYRING}

Types: deb
URIs: https://off.example/debian
Suites: trixie
Components: main
Enabled: no
`;

describe('this machine’s Debian archive', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    mkdirSync(join(directory, 'sources.list.d'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const archiveOf = (files: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
    return debianArchive(aptSources(directory))?.uri;
  };

  it('is read from stanzas, without those that are switched off', () => {
    const sources = parseStanzas(STANZAS);
    expect(sources.map(({ uri }) => uri)).toEqual([
      'http://mirror.example/debian',
      'http://mirror.example/debian-security',
    ]);
    expect(sources[0]).toMatchObject({
      suites: ['bookworm', 'bookworm-updates'],
      components: ['main', 'contrib'],
      signedBy: KEYRING,
    });
    expect(archiveOf({ 'sources.list.d/debian.sources': STANZAS })).toBe('http://mirror.example/debian');
  });

  it('is read from lists of one line a source', () => {
    const text = `deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
# deb http://commented.example/debian bookworm main
deb-src http://mirror.example.debian.org/debian bookworm main
deb [ arch=amd64 signed-by=${KEYRING} ] http://ftp.example/debian/ bookworm main contrib # near
deb http://security.example.debian.org/debian-security bookworm-security main
`;
    expect(parseLines(text)).toHaveLength(2);
    expect(archiveOf({ 'sources.list': text })).toBe('http://ftp.example/debian/');
    expect(archiveOf({ 'sources.list': 'deb http://mirror.example.debian.org/debian stable main\n' })).toBe(
      'http://mirror.example.debian.org/debian',
    );
    expect(archiveOf({ 'sources.list': 'deb mirror+file:/etc/apt/mirrors/debian.list trixie main\n' })).toBe(
      'mirror+file:/etc/apt/mirrors/debian.list',
    );
  });

  it('is not a third party’s, however it is called', () => {
    const foreign = `deb https://download.docker.com/linux/debian bookworm stable
deb [signed-by=/etc/apt/keyrings/winehq.key] https://dl.winehq.org/wine-builds/debian/ bookworm main
deb https://packages.microsoft.com/debian/12/prod bookworm main
deb https://deb.nodesource.com/node_20.x nodistro main
deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main
`;
    expect(archiveOf({ 'sources.list.d/others.list': foreign })).toBeUndefined();
    expect(archiveOf({ 'sources.list.d/debian.sources': STANZAS })).toBe('http://mirror.example/debian');
  });

  it('is not there on other systems, or where files hold nonsense', () => {
    const ubuntu = 'deb http://archive.ubuntu.com/ubuntu noble main\n';
    expect(
      archiveOf({ 'sources.list': ubuntu, 'sources.list.d/x.sources': '\0\n::\n deb\n\nTypes:\n' }),
    ).toBe(undefined);
    expect(debianArchive(aptSources(join(directory, 'nowhere')))).toBeUndefined();
  });

  it('knows a key that stands in the source from a keyring', () => {
    const inline = `Types: deb
URIs: http://mirror.example.debian.org/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`;
    expect(parseStanzas(inline)).toMatchObject([{ signedBy: undefined }]);
    expect(archiveOf({ 'sources.list.d/debian.sources': inline })).toBe(
      'http://mirror.example.debian.org/debian',
    );
  });
});
