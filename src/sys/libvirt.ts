/**
 * A connection to a libvirt by its own C library: domains with their state, balloon and statistics, in as few calls as it has
 * for them. Every call waits for libvirtd, however long that takes: this is for a thread of its own.
 */
import { koffi } from './koffi.ts';
import { bytesAt, calls, failure, LibvirtError, numbersAt, uuidOf } from './libvirt-calls.ts';
import { type LibvirtEvent, LibvirtEvents } from './libvirt-events.ts';
import { type DomainMove, migrateDomain } from './libvirt-migration.ts';

/** libvirt-domain.h: what is asked for of all domains. */
const STATS_STATE = 1 << 0;
const STATS_BALLOON = 1 << 2;
const ACTIVE = 1 << 0;
/** Domains that are busy are told of without what would have to be waited for. */
const NOWAIT = 1 << 29;
const AFFECT_LIVE = 1 << 0;
const AFFECT_CONFIG = 1 << 1;
/** virDomainStatsRecord: the domain, its parameters, how many. */
const RECORD_BYTES = 24;
const DOMAINS_MAX = 10_000;

/** virDomainJobType. */
const JOB_NONE = 0;
const JOB_RUNS = [1, 2];
const JOB_STATS_COMPLETED = 1 << 0;
/** virDomainJobOperation. */
const OPERATION_MIGRATION_OUT = 5;

/** One domain that is active; the numbers have libvirt's names (`balloon.current`), sizes in KiB. */
export interface DomainNumbers {
  readonly name: string;
  readonly uuid: string;
  /** Another one each time that the domain is started. */
  readonly id: number;
  readonly numbers: Readonly<Record<string, number>>;
}

/** What libvirt does with a domain, or did last; the numbers have its names (`memory_remaining`), sizes in bytes. */
export interface DomainJob {
  readonly underWay: boolean;
  /** The domain is moved from here by it. */
  readonly isMigration: boolean;
  readonly numbers: Readonly<Record<string, number>>;
}

/** virDomainState and its reason, and what is done with the domain now. */
export interface DomainPlace {
  readonly state: number;
  readonly reason: number;
  readonly job: DomainJob | null;
}

/** A connection to a libvirtd. Its calls wait. */
export class Libvirt {
  readonly #connection: number;
  readonly #events: LibvirtEvents | undefined;

  private constructor(connection: number, hear?: (event: LibvirtEvent) => void) {
    this.#connection = connection;
    this.#events = hear === undefined ? undefined : new LibvirtEvents(connection, hear);
  }

  /**
   * `hear` is told what happens, in a process whose event loop was started.
   * @throws LibvirtMissingError, LibvirtError
   */
  static open(uri: string, hear?: (event: LibvirtEvent) => void): Libvirt {
    const connection = calls().open(uri);
    if (connection === 0) throw failure(`connect to ${uri}`);
    return new Libvirt(connection, hear);
  }

  /** All domains that are active. @throws LibvirtError */
  domains(): readonly DomainNumbers[] {
    const { allStats, freeStats } = calls();
    const records: [number] = [0];
    const count = allStats(this.#connection, STATS_STATE | STATS_BALLOON, records, ACTIVE | NOWAIT);
    if (count < 0) throw failure('list its domains');
    try {
      return Array.from({ length: Math.min(count, DOMAINS_MAX) }, (_, at) => readRecord(records[0], at));
    } finally {
      if (records[0] !== 0) freeStats(records[0]);
    }
  }

  /** The definition of a domain as it runs. @throws LibvirtError */
  definition(uuid: string): string {
    return this.#with(uuid, 'read the definition of a domain', domain => {
      const text = calls().xmlOf(domain, 0);
      if (text === null) return undefined;
      try {
        return koffi().decode(text, 'char', -1) as string;
      } finally {
        calls().free(text);
      }
    });
  }

  /** Lets the domain keep so many KiB, as long as it runs, and with `persist` from then on. @throws LibvirtError */
  setMemory(uuid: string, kib: number, persist: boolean): void {
    this.#change(uuid, 'set the memory of a domain', domain =>
      calls().setMemory(domain, kib, affected(persist)),
    );
  }

  /** How often QEMU asks the guest for statistics, while it runs or from then on; 0 for never. @throws LibvirtError */
  setStatisticsPeriod(uuid: string, seconds: number, persist: boolean): void {
    this.#change(uuid, 'set the statistics period of a domain', domain =>
      calls().setPeriod(domain, seconds, affected(persist)),
    );
  }

  /**
   * Has libvirtd move the domain to the libvirt at `to`, and settles when that is over. Other questions are answered
   * meanwhile. @throws LibvirtError AEROSTAT_LIBVIRT_MIGRATION libvirt's answer; AEROSTAT_LIBVIRT where there was none
   */
  migrate(uri: string, move: DomainMove): Promise<void> {
    return migrateDomain(uri, move);
  }

  /** What is done with these domains at the moment: those with which something is. Those that are gone are left out. */
  jobs(uuids: readonly string[]): Readonly<Record<string, DomainJob>> {
    const jobs: Record<string, DomainJob> = {};
    for (const uuid of uuids) {
      const domain = calls().find(this.#connection, uuid);
      if (domain === 0) continue;
      try {
        const job = jobOf(domain);
        if (job !== null) jobs[uuid] = job;
      } finally {
        calls().freeDomain(domain);
      }
    }
    return jobs;
  }

  /** How the last one went that was completed; null where libvirt does not know. @throws LibvirtError */
  completedJob(uuid: string): DomainJob | null {
    // A null would pass for a failure.
    return this.#with(uuid, 'tell how a domain was moved', domain => [jobOf(domain, JOB_STATS_COMPLETED)])[0];
  }

  /** Null for a domain that does not run here. @throws LibvirtError where libvirtd cannot be reached */
  place(uuid: string): DomainPlace | null {
    const domain = calls().find(this.#connection, uuid);
    if (domain === 0) {
      if (this.isAlive()) return null;
      throw failure('look for a domain');
    }
    try {
      const [state, reason]: [[number], [number]] = [[0], [0]];
      if (calls().stateOf(domain, state, reason, 0) < 0) throw failure('tell the state of a domain');
      // virDomainState: no state, shut down and crashed are those of domains without a process.
      if ([0, 5, 6].includes(state[0])) return null;
      return { state: state[0], reason: reason[0], job: jobOf(domain) };
    } finally {
      calls().freeDomain(domain);
    }
  }

  /** Gives up what is done with the domain. @throws LibvirtError */
  abortJob(uuid: string): void {
    this.#order(uuid, 'give up the migration of a domain', domain => calls().abortJob(domain));
  }

  /** How long the domain may stand still when it moves. @throws LibvirtError */
  setDowntime(uuid: string, ms: number): void {
    this.#order(uuid, 'bound the downtime of a domain', domain => calls().setDowntime(domain, ms, 0));
  }

  /** The domain runs at its destination from now on, and gets the rest of its memory there. @throws LibvirtError */
  startPostcopy(uuid: string): void {
    this.#order(uuid, 'begin the post-copy of a domain', domain => calls().startPostcopy(domain, 0));
  }

  /** Whether its libvirtd can still be there. */
  isAlive(): boolean {
    return calls().isAlive(this.#connection) === 1;
  }

  close(): void {
    this.#events?.close();
    calls().closeConnection(this.#connection);
  }

  #order(uuid: string, what: string, order: (domain: number) => number): void {
    this.#with(uuid, what, domain => (order(domain) < 0 ? undefined : true));
  }

  /** libvirt lets a change of a domain that is on its way wait for half a minute, and its caller with it. */
  #change(uuid: string, what: string, change: (domain: number) => number): void {
    this.#order(uuid, what, domain => {
      if (jobOf(domain)?.isMigration) throw new LibvirtError(what, 'it is on its way to another host');
      return change(domain);
    });
  }

  #with<Answer>(uuid: string, what: string, use: (domain: number) => Answer | undefined): Answer {
    const domain = calls().find(this.#connection, uuid);
    if (domain === 0) throw failure(what);
    try {
      const answer = use(domain);
      if (answer === undefined) throw failure(what);
      return answer;
    } finally {
      calls().freeDomain(domain);
    }
  }
}

/** The definition stays as it is unless that is said. */
const affected = (persist: boolean): number => (persist ? AFFECT_LIVE | AFFECT_CONFIG : AFFECT_LIVE);

/** Null where nothing is done, and where libvirt does not tell. */
function jobOf(domain: number, flags = 0): DomainJob | null {
  const [type, parameters, count]: [[number], [number], [number]] = [[JOB_NONE], [0], [0]];
  if (calls().jobStats(domain, type, parameters, count, flags) < 0) return null;
  try {
    if (type[0] === JOB_NONE) return null;
    const numbers = numbersAt(parameters[0], count[0]);
    const isMigration = numbers.operation === OPERATION_MIGRATION_OUT;
    return { underWay: JOB_RUNS.includes(type[0]), isMigration, numbers };
  } finally {
    if (parameters[0] !== 0) calls().freeParameters(parameters[0], count[0]);
  }
}

/** `records` is an array of pointers to records. */
function readRecord(records: number, at: number): DomainNumbers {
  const pointer = bytesAt(BigInt(records) + BigInt(8 * at), 8).getBigUint64(0, true);
  const record = bytesAt(pointer, RECORD_BYTES);
  const domain = Number(record.getBigUint64(0, true));
  return {
    name: calls().nameOf(domain),
    uuid: uuidOf(domain),
    id: calls().idOf(domain),
    numbers: numbersAt(record.getBigUint64(8, true), record.getInt32(16, true)),
  };
}
