/**
 * Guests of the QEMUs whose monitors lie in one directory: each appears with its socket and vanishes with it. Proxmox has
 * `100.qmp`, Incus `web/qemu.monitor`, a plain folder either. What one guest answers is hypervisor-guest.ts's.
 *
 * A list of the guests waits for none of them beyond a bound: a monitor that another program holds, or whose QEMU is
 * stopped, costs its own row.
 */
import { readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type GuestStatus, statusOf } from '../control/contract.ts';
import { PatientQuestion } from '../control/patient-question.ts';
import { QmpTimeoutError } from '../peers/qemu/errors.ts';
import { connectQmp } from '../peers/qemu/qmp.ts';
import { queryName } from '../peers/qemu/qmp-commands.ts';
import { AerostatError } from '../sys/error.ts';
import { cleanedName, NAME_LENGTH_MAX } from './names.ts';
import { QemuControl } from './qemu-control.ts';

/** How often the directory is read: a guest that boots takes longer. */
const SCAN_MS = 2000;
/** More sockets than a host has guests; what lies beyond is left out. */
const MONITORS_MAX = 1000;
/** QEMU answers within some milliseconds; a list is not held up for longer. */
const PATIENCE_MS = 2000;
/** Other sockets in such directories (guest agents, displays, consoles, vhost-user) are never touched. */
const MONITOR_FILE = /^(.+?)(?:\.qmp|\.monitor)(?:\.sock)?$/;
const MONITOR_IN_FOLDER = ['qemu.monitor', 'qmp.sock', 'monitor.sock', 'qmp'];
/** What a name keeps where a number is put behind it. */
const NUMBERED_MAX = NAME_LENGTH_MAX - 5;

export class MonitorDirectoryError extends AerostatError {
  constructor(directory: string, cause: unknown) {
    const { code } = cause as NodeJS.ErrnoException;
    const why =
      code === 'ENOENT' || code === 'ENOTDIR' ? 'there is no such directory' : (cause as Error).message;
    super('AEROSTAT_MONITOR_DIRECTORY', `no monitors can be looked for in ${directory}: ${why}`, { cause });
  }
}

export interface MonitorDirectoryOptions {
  /** Call guests as their QEMUs do (`-name`), not after their sockets. Of two with one name the second keeps the socket's. */
  readonly namedByQemu?: boolean;
  /** See {@link QemuControl}. */
  readonly anyDestination?: boolean;
  /** A directory that is not there has no guests until it is. */
  readonly mayBeMissing?: boolean;
  readonly scanMs?: number;
  readonly patienceMs?: number;
}

export class MonitorDirectory extends QemuControl {
  readonly #directory: string;
  readonly #options: MonitorDirectoryOptions;
  /** Names of guests by the paths of their monitors; undefined while a QEMU is asked for its name. */
  readonly #names = new Map<string, string | undefined>();
  readonly #questions = new Map<string, PatientQuestion<GuestStatus>>();
  readonly #naming = new Set<Promise<void>>();
  #failures: ReadonlyMap<string, AerostatError> = new Map();
  readonly #timer: NodeJS.Timeout;

  /** @throws MonitorDirectoryError when there is no such directory; one that vanishes later has no guests until it is back */
  constructor(directory: string, options: MonitorDirectoryOptions = {}) {
    super([], options);
    this.#directory = directory;
    this.#options = options;
    try {
      this.#follow(monitorsIn(directory));
    } catch (cause) {
      if (options.mayBeMissing !== true) throw new MonitorDirectoryError(directory, cause);
    }
    this.#timer = setInterval(() => this.#scan(), options.scanMs ?? SCAN_MS).unref();
  }

  /** Settles when the guests that were found at first have names. */
  async named(): Promise<void> {
    await Promise.all(this.#naming);
  }

  /** Why nothing is known of some guests, as of the last time that all were asked for. */
  failures = (): ReadonlyMap<string, AerostatError> => this.#failures;

  /** Never fails for one guest: what cannot be reached has a row with the reason. */
  override async guests(): Promise<readonly GuestStatus[]> {
    this.#scan();
    const { patienceMs = PATIENCE_MS } = this.#options;
    const failed = new Map<string, AerostatError>();
    const rows = await Promise.all(
      this.names.map(async name => {
        const late = new QmpTimeoutError('query-status', patienceMs);
        const answer = await this.#questions.get(name)?.within(patienceMs, late);
        if (answer === undefined) return [];
        if (!(answer instanceof AerostatError)) return [answer];
        failed.set(name, answer);
        return [statusOf(name, { lastError: answer.message })];
      }),
    );
    this.#failures = failed;
    // A guest may have left meanwhile.
    return rows.flat().filter(({ name }) => this.names.includes(name));
  }

  override close(): void {
    clearInterval(this.#timer);
    super.close();
  }

  #scan(): void {
    let paths: readonly string[] = [];
    try {
      paths = monitorsIn(this.#directory);
    } catch {
      // It is gone with its guests, and may come back: Proxmox's is made anew after a boot.
    }
    this.#follow(paths);
  }

  #follow(paths: readonly string[]): void {
    for (const [path, name] of this.#names) {
      if (paths.includes(path)) continue;
      this.#names.delete(path);
      if (name === undefined) continue;
      this.#questions.delete(name);
      this.remove(name);
    }
    for (const path of paths) {
      if (this.#names.has(path)) continue;
      if (this.#options.namedByQemu !== true) {
        this.#admit(path, nameOfMonitor(path));
        continue;
      }
      this.#names.set(path, undefined);
      const naming: Promise<void> = askName(path).then(name => {
        this.#naming.delete(naming);
        // Its socket may be gone by now.
        if (this.#names.has(path)) this.#admit(path, name ?? nameOfMonitor(path));
      });
      this.#naming.add(naming);
    }
  }

  #admit(path: string, wished: string): void {
    const taken = this.names;
    const choices = [wished, nameOfMonitor(path), cleanedName(basename(path))];
    const numbered = Array.from(
      { length: taken.length + 1 },
      (_, at) => `${wished.slice(0, NUMBERED_MAX)}-${at + 2}`,
    );
    const name = [...choices, ...numbered].find(choice => !taken.includes(choice)) as string;
    this.#names.set(path, name);
    this.#questions.set(name, new PatientQuestion(() => this.guest(name)));
    this.add({ name, qmpPath: path });
  }
}

/** Paths of the monitors in `directory`, sorted. */
function monitorsIn(directory: string): readonly string[] {
  const found: string[] = [];
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      const within = MONITOR_IN_FOLDER.map(file => join(path, file)).find(isSocket);
      if (within !== undefined) found.push(within);
    } else if (MONITOR_FILE.test(entry.name) && isSocket(path)) found.push(path);
    if (found.length === MONITORS_MAX) break;
  }
  return found.sort();
}

function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

/** `100` for `/var/run/qemu-server/100.qmp`, `web` for `/run/incus/web/qemu.monitor`. */
function nameOfMonitor(path: string): string {
  const file = basename(path);
  return cleanedName(
    MONITOR_IN_FOLDER.includes(file) ? basename(dirname(path)) : file.replace(MONITOR_FILE, '$1'),
  );
}

/** What QEMU was told to call its guest; undefined where it says none or cannot be asked. */
async function askName(path: string): Promise<string | undefined> {
  try {
    const connection = await connectQmp(path);
    try {
      const name = await queryName(connection);
      return name === undefined ? undefined : cleanedName(name);
    } finally {
      connection.close();
    }
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    return undefined;
  }
}
