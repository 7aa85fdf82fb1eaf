/**
 * apt in a world of its own: suites that we name, an empty database of installed packages, nothing of this machine's
 * but its way to the mirror (proxies, credentials). So it needs no root rights and changes nothing of the system. It
 * downloads; unpacking is install.ts.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { ProcessGroup } from '../process-group.ts';
import { ArchiveError, NotDebianError } from './errors.ts';
import { aptSources, debianArchive } from './sources.ts';

/** A mirror of Debian's archive that this machine trusts. */
export interface Mirror {
  readonly uri: string;
  /** The keyring that its indices must be signed by. */
  readonly keyring: string;
}

const KEYRINGS = ['gpg', 'pgp'].map(ending => `/usr/share/keyrings/debian-archive-keyring.${ending}`);

/** @throws NotDebianError */
export function machineMirror(directory = '/etc/apt'): Mirror {
  if (process.arch !== 'x64') throw new NotDebianError(`only for x86-64; this machine is ${process.arch}`);
  const archive = debianArchive(aptSources(directory));
  if (archive === undefined) throw new NotDebianError(`${directory} of this machine names none`);
  const keyring = [archive.signedBy, ...KEYRINGS].find(path => path !== undefined && existsSync(path));
  if (keyring === undefined) {
    throw new NotDebianError('its keys are missing; install with: apt-get install debian-archive-keyring');
  }
  return { uri: archive.uri.replace(/\/+$/, ''), keyring };
}

/** A package's file in the archive. */
export interface Archive {
  readonly file: string;
  readonly bytes: number;
}

interface AptWorld {
  /** For apt's own files. */
  readonly directory: string;
  /** Of indices, which several worlds may share. */
  readonly lists: string;
  readonly mirror: Mirror;
  readonly suites: readonly string[];
  /** Packages that count as installed, for what needs them only to be installed itself. */
  readonly assumed: readonly string[];
  readonly signal: AbortSignal;
}

/** Words of apt's that say that the index is older than Debian lets it become. */
const EXPIRED = /is expired|Valid-Until/;
const UNREACHABLE_SECONDS = 30;

/** apt's own settings that lead to a mirror; everything else of this machine's is left out. */
function wayToMirror(): string[] {
  try {
    const dump = execFileSync('apt-config', ['dump', 'Acquire'], { encoding: 'utf8', stdio: 'pipe' });
    return dump.split('\n').filter(line => /^Acquire::(?:https?|ftp|ForceIPv[46])\b/.test(line));
  } catch {
    return [];
  }
}

export class PrivateApt {
  readonly archives: string;
  readonly #world: AptWorld;
  #acceptsExpired = false;

  constructor(world: AptWorld) {
    this.#world = world;
    this.archives = join(world.directory, 'archives');
    for (const path of [join(world.lists, 'partial'), join(this.archives, 'partial'), this.#at('none')]) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    }
    const assumed = world.assumed.map(
      name => `Package: ${name}\nStatus: install ok installed\nVersion: 9999\nArchitecture: amd64\n`,
    );
    writeFileSync(this.#at('status'), assumed.join('\n'));
    this.#writeSources();
    writeFileSync(this.#at('apt.conf'), this.#configuration());
  }

  /**
   * Brings the indices up to date. `progress` is told per cent. Resolves with a remark where the mirror's index is
   * past its date: it is still Debian's by its signature, so it is used.
   * @throws ArchiveError
   */
  async update(progress: (percent: number) => void): Promise<string | undefined> {
    try {
      await this.#apt(['update'], progress);
      return undefined;
    } catch (error) {
      if (!(error instanceof ArchiveError) || !EXPIRED.test(error.message)) throw error;
    }
    this.#acceptsExpired = true;
    this.#writeSources();
    await this.#apt(['update'], progress);
    return `${this.#world.mirror.uri} is a mirror that was not brought up to date for long; what it has is used`;
  }

  /** What `packages` and all that they need consist of. @throws ArchiveError */
  async archivesOf(packages: readonly string[]): Promise<readonly Archive[]> {
    // Without a place for archives, none is there already.
    const nowhere = ['-o', `Dir::Cache::archives=${this.#at('none')}`];
    const listing = await this.#apt([...nowhere, ...INSTALL, '--print-uris', '-qq', ...packages]);
    return [...listing.matchAll(/^'[^']*' (\S+) (\d+)/gm)].map(([, file, bytes]) => ({
      file,
      bytes: Number(bytes),
    }));
  }

  /** Downloads these packages; what an earlier attempt left is used. @throws ArchiveError */
  async download(packages: readonly string[], progress: (percent: number) => void): Promise<void> {
    await this.#apt([...INSTALL, '--download-only', '-q', ...packages], progress);
  }

  /** Bytes of `archive` that are here already, whole or in part. */
  presentBytes({ file }: Archive): number {
    const places = [join(this.archives, file), join(this.archives, 'partial', file)];
    return statSync(places.find(existsSync) ?? '', { throwIfNoEntry: false })?.size ?? 0;
  }

  readonly #at = (name: string): string => join(this.#world.directory, name);

  #writeSources(): void {
    const { mirror, suites } = this.#world;
    const late = this.#acceptsExpired ? ' check-valid-until=no' : '';
    const lines = suites.map(
      suite => `deb [arch=amd64 signed-by=${mirror.keyring}${late}] ${mirror.uri} ${suite} main\n`,
    );
    writeFileSync(this.#at('sources.list'), lines.join(''));
  }

  #configuration(): string {
    const { directory, lists, suites } = this.#world;
    const settings: readonly (readonly [string, string])[] = [
      ['Dir::Etc::main', this.#at('none/apt.conf')],
      ['Dir::Etc::parts', this.#at('none')],
      ['Dir::Etc::sourcelist', this.#at('sources.list')],
      ['Dir::Etc::sourceparts', this.#at('none')],
      ['Dir::Etc::preferences', this.#at('none/preferences')],
      ['Dir::Etc::preferencesparts', this.#at('none')],
      ['Dir::State', directory],
      ['Dir::State::lists', lists],
      ['Dir::State::status', this.#at('status')],
      ['Dir::Cache', directory],
      ['Dir::Cache::archives', this.archives],
      ['Dir::Log', directory],
      ['APT::Architecture', 'amd64'],
      ['APT::Default-Release', suites.at(-1)!],
      ['APT::Install-Recommends', 'false'],
      ['APT::Update::Error-Mode', 'any'],
      ['APT::Get::List-Cleanup', 'false'],
      // Another user than ours could not enter a directory that only we can.
      ['APT::Sandbox::User', ''],
      ['Acquire::Languages', 'none'],
      ['Acquire::PDiffs', 'false'],
      ['Acquire::GzipIndexes', 'true'],
      ['Acquire::Retries', '3'],
      ['Acquire::http::Timeout', String(UNREACHABLE_SECONDS)],
      ['Acquire::https::Timeout', String(UNREACHABLE_SECONDS)],
    ];
    const only = ['#clear APT::Architectures;', 'APT::Architectures { "amd64"; };'];
    return [...wayToMirror(), ...settings.map(([name, text]) => `${name} "${text}";`), ...only, ''].join(
      '\n',
    );
  }

  /** What apt-get says on standard output. */
  async #apt(words: readonly string[], progress?: (percent: number) => void): Promise<string> {
    const { signal, mirror } = this.#world;
    signal.throwIfAborted();
    const env = { ...process.env, LC_ALL: 'C', APT_CONFIG: this.#at('apt.conf') };
    const group = await ProcessGroup.start('apt-get', [...words, '-o', 'APT::Status-Fd=3'], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      env,
    }).catch(() => {
      throw new NotDebianError('this machine has no apt-get');
    });
    const kill = () => group.kill();
    signal.addEventListener('abort', kill);
    const { stdout, stderr, stdio } = group.leader;
    const [said, complained] = [collect(stdout!), collect(stderr!)];
    const status = collect(stdio[3] as Readable, text => {
      const percent = /dlstatus:\d+:([\d.]+):(?![\s\S]*dlstatus:)/.exec(text)?.[1];
      if (percent !== undefined) progress?.(Number(percent));
    });
    try {
      const [{ code }, output, errors] = await Promise.all([group.exited, said, complained, status]);
      signal.throwIfAborted();
      if (code === 0) return output;
      throw new ArchiveError(mirror.uri, reasonOf(errors) ?? `apt-get exited with ${code}`);
    } finally {
      signal.removeEventListener('abort', kill);
    }
  }
}

const INSTALL = ['install', '--yes', '--no-install-recommends'] as const;

async function collect(stream: Readable, hear?: (text: string) => void): Promise<string> {
  let all = '';
  for await (const text of stream.setEncoding('utf8')) {
    hear?.(text as string);
    if (hear === undefined) all += text;
  }
  return all;
}

/** The first thing that apt took for an error, without its address and marks. */
function reasonOf(errors: string): string | undefined {
  const lines = errors.split('\n').map(line => line.trim());
  const error = lines.find(line => line.startsWith('E: ')) ?? lines.find(line => line.startsWith('W: '));
  return error?.slice(3).replace(/\s+/g, ' ');
}
