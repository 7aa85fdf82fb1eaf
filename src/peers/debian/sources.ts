/**
 * Which archive of Debian this machine installs from, read off /etc/apt: lists of one line a source (`*.list`) and of
 * stanzas (`*.sources`, deb822). Only Debian's own archive counts, on whichever mirror; third parties' do not, and
 * what comes from a mirror must be signed by Debian anyway. Nothing is downloaded here.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

interface AptSource {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Path of the keyring that signs it; undefined where none is named, or the key itself stands there. */
  readonly signedBy: string | undefined;
}

const words = (text: string): string[] => text.split(/\s+/).filter(Boolean);

/** A keyring is named by its path; a key in place begins with a line of dashes. */
const keyringPath = (value: string | undefined): string | undefined =>
  value?.startsWith('/') ? words(value)[0] : undefined;

function stanzaFields(stanza: string): Map<string, string> {
  const fields = new Map<string, string>();
  let name: string | undefined;
  for (const line of stanza.split('\n')) {
    if (line.startsWith('#')) continue;
    const field = /^([A-Za-z0-9-]+):(.*)$/.exec(line);
    if (field !== null) {
      name = field[1].toLowerCase();
      fields.set(name, field[2].trim());
    } else if (name !== undefined && /^\s/.test(line)) {
      fields.set(name, `${fields.get(name)}\n${line.trim()}`.trim());
    }
  }
  return fields;
}

/** Sources of a file in apt's stanzas. */
export function parseStanzas(text: string): AptSource[] {
  return text.split(/\n[ \t]*\n/).flatMap(stanza => {
    const fields = stanzaFields(stanza);
    const list = (name: string) => words(fields.get(name) ?? '');
    if (/^(no|false|off|0|disable|without)$/i.test(fields.get('enabled') ?? '')) return [];
    if (!list('types').includes('deb')) return [];
    const [suites, components] = [list('suites'), list('components')];
    const signedBy = keyringPath(fields.get('signed-by'));
    return list('uris').map(uri => ({ uri, suites, components, signedBy }));
  });
}

/** Sources of a file of apt's with one line a source. */
export function parseLines(text: string): AptSource[] {
  return text.split('\n').flatMap(line => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?([a-z][a-z0-9+.-]*:[^\s[\]]*)\s+(\S+)\s*([^#]*)/i.exec(line);
    if (match === null) return [];
    const [, options = '', uri, suite, components] = match;
    const signedBy = keyringPath(/(?:^|\s)signed-by=(\S+)/i.exec(options)?.[1]);
    return [{ uri, suites: [suite], components: words(components), signedBy }];
  });
}

/** Releases by name and by age; what follows a dash (updates, security, backports) lies in other places too. */
const DEBIAN_SUITE =
  /^(?:buster|bullseye|bookworm|trixie|forky|duke|sid|(?:old){0,2}stable|testing|unstable)\/?$/;

/** How surely this is Debian's own archive: 0 when it is not. */
function certainty({ uri, suites, components, signedBy }: AptSource): number {
  if (!components.includes('main') || !suites.some(suite => DEBIAN_SUITE.test(suite))) return 0;
  if (/^cdrom:|security/i.test(uri)) return 0;
  if (signedBy !== undefined) return /\/debian-archive[^/]*$/.test(signedBy) ? 3 : 0;
  if (/^[a-z+]+:\/\/(?:[^/]+\.)?debian\.org\//i.test(uri)) return 2;
  return /\/debian(?:\.list)?\/?$/i.test(uri) ? 1 : 0;
}

/** The source of Debian's archive among these; undefined where there is none. */
export function debianArchive(sources: readonly AptSource[]): AptSource | undefined {
  const best = Math.max(0, ...sources.map(certainty));
  return best === 0 ? undefined : sources.find(source => certainty(source) === best);
}

/** All sources of this machine's apt. */
export function aptSources(directory = '/etc/apt'): AptSource[] {
  const parts = join(directory, 'sources.list.d');
  const names = existsSync(parts) ? readdirSync(parts).sort() : [];
  const files = [join(directory, 'sources.list'), ...names.map(name => join(parts, name))];
  return files.filter(existsSync).flatMap(file => {
    const text = readFileSync(file, 'utf8').replaceAll('\r\n', '\n');
    if (file.endsWith('.list')) return parseLines(text);
    return file.endsWith('.sources') ? parseStanzas(text) : [];
  });
}
