/**
 * The balloon driver of `linux/` in the repository, built for a kernel that guests run: from the kernel's own
 * configuration and the sources that `aerostat peers install uml-source` brings. What was built is kept under a digest
 * of what went in; the prepared build directory is kept as well, so that the next one takes seconds.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { AerostatError } from '../../sys/error.ts';
import { tryLock } from '../../sys/lock.ts';
import { cacheDirectory, writeAtomically } from '../cache.ts';
import { installedPeer } from '../private/roots.ts';
import { programsNamed } from '../programs.ts';
import { findUmlKernel, type UmlKernel } from './kernel.ts';

const execute = promisify(execFile);

/** In the repository; not in the package. */
const SOURCES = fileURLToPath(new URL('../../../linux', import.meta.url));
const MODULE = 'aerostat_balloon.ko';
/** Debian's packages of the same names; gcc's brings what it needs. */
const TOOLS = ['gcc', 'make', 'bc', 'flex', 'bison'] as const;
/** In the root of the peer uml-source. */
const KERNEL_SOURCES = 'usr/src/linux';
const LOCK_POLL_MS = 200;
const BUILD_OUTPUT_BYTES_MAX = 16 * 2 ** 20;

/** The module cannot be built, or was not. The message says what to do. */
export class DriverModuleError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_DRIVER_MODULE', message, options);
  }
}

/** Why the module cannot be built for `kernel` here, and what to do; undefined when it can, or is there. */
export function driverModuleComplaint(kernel: UmlKernel): DriverModuleError | undefined {
  if (!existsSync(join(SOURCES, 'Kbuild'))) {
    return new DriverModuleError(
      `the driver's sources come with the repository only; there is no ${SOURCES}`,
    );
  }
  const source = installedPeer('uml-source');
  if (source === undefined) {
    return new DriverModuleError(
      'the sources of the kernel are not here; `aerostat peers install uml-source` downloads them (160 MB, 130 MB kept)',
    );
  }
  if (seriesOf(source.version) !== seriesOf(kernel.version)) {
    return new DriverModuleError(
      `the sources are of Linux ${source.version}, and the guests' kernel is ${kernel.version}; \`aerostat peers install uml\` brings one of the same series`,
    );
  }
  const missing = TOOLS.filter(tool => programsNamed(tool).length === 0);
  if (missing.length === 0) return undefined;
  return new DriverModuleError(
    `${missing.join(', ')} cannot be found; install with: apt-get install ${missing.join(' ')}`,
  );
}

/** 7.2 of 7.2.13: within it, what modules see stays as it is. */
const seriesOf = (version: string): string => version.split('.').slice(0, 2).join('.');

/**
 * Path of the module for `kernel`, by default the one that guests run; built unless the cache has it, by one process at a time.
 * @throws DriverModuleError, and what findUmlKernel() does
 */
export async function driverModule(kernel: UmlKernel = findUmlKernel()): Promise<string> {
  const complaint = driverModuleComplaint(kernel);
  if (complaint !== undefined) throw complaint;
  const directory = join(cacheDirectory(), 'linux-module');
  const source = installedPeer('uml-source')!;
  const built = join(directory, `${kernel.version}-${digestOf(kernel, source.version)}.ko`);
  if (existsSync(built)) return built;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  let lock = tryLock(join(directory, 'lock'));
  for (; lock === undefined; lock = tryLock(join(directory, 'lock'))) await delay(LOCK_POLL_MS);
  try {
    if (!existsSync(built)) {
      const build = new ModuleBuild(kernel, join(source.root, KERNEL_SOURCES), directory, source.version);
      writeAtomically(built, readFileSync(await build.run()));
    }
    return built;
  } finally {
    lock.release();
  }
}

/** Files of the module, by their paths. */
const sourceFiles = (): string[] =>
  readdirSync(SOURCES, { recursive: true, encoding: 'utf8' })
    .filter(path => /\.[ch]$|Kbuild$/.test(path))
    .sort();

function digestOf(kernel: UmlKernel, sourceVersion: string): string {
  const digest = createHash('sha256').update(`${kernel.version}\n${kernel.program}\n${sourceVersion}\n`);
  for (const path of sourceFiles()) digest.update(`${path}\n`).update(readFileSync(join(SOURCES, path)));
  return digest.digest('hex').slice(0, 32);
}

class ModuleBuild {
  readonly #kernel: UmlKernel;
  readonly #kernelSources: string;
  /** Where the kernel was prepared. */
  readonly #prepared: string;
  readonly #work: string;

  constructor(kernel: UmlKernel, kernelSources: string, directory: string, sourceVersion: string) {
    this.#kernel = kernel;
    this.#kernelSources = kernelSources;
    this.#prepared = join(directory, `kernel-${kernel.version}-${sourceVersion}`);
    this.#work = join(directory, 'module');
  }

  async run(): Promise<string> {
    const { stdout: config } = await this.#execute(this.#kernel.program, ['--showconfig']);
    await this.#prepare(config);
    rmSync(this.#work, { recursive: true, force: true });
    for (const path of sourceFiles()) cpSync(join(SOURCES, path), join(this.#work, path));
    // The kernel does not say what it exports; a module that wants more than that is refused when it is loaded.
    await this.#make([`M=${this.#work}`, 'KBUILD_MODPOST_WARN=1', 'modules']);
    return join(this.#work, MODULE);
  }

  async #prepare(config: string): Promise<void> {
    const done = join(this.#prepared, 'prepared');
    if (existsSync(done) && readFileSync(done, 'utf8') === config) return;
    rmSync(this.#prepared, { recursive: true, force: true });
    mkdirSync(this.#prepared, { recursive: true });
    writeFileSync(join(this.#prepared, '.config'), config);
    await this.#make(['olddefconfig']);
    await this.#make(['modules_prepare']);
    writeFileSync(done, config);
  }

  /** The sources may be of a later version of the series than the kernel, which takes modules of its own only. */
  async #make(words: readonly string[]): Promise<void> {
    const sublevel = this.#kernel.version.split('.')[2] ?? '0';
    const target = [`-C${this.#kernelSources}`, 'ARCH=um', `O=${this.#prepared}`, `SUBLEVEL=${sublevel}`];
    await this.#execute('make', ['-s', '-j2', ...target, ...words]);
  }

  async #execute(program: string, words: readonly string[]): Promise<{ stdout: string }> {
    try {
      return await execute(program, words, {
        maxBuffer: BUILD_OUTPUT_BYTES_MAX,
        env: { ...process.env, LC_ALL: 'C' },
      });
    } catch (cause) {
      const said = (cause as { stderr?: string }).stderr?.trim().split('\n') ?? [];
      const line = said.find(text => text.includes('rror')) ?? said.at(-1) ?? (cause as Error).message;
      throw new DriverModuleError(`the driver cannot be built for Linux ${this.#kernel.version}: ${line}`, {
        cause,
      });
    }
  }
}
