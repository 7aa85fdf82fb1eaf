/**
 * libvirt's own C library (libvirt.so.0) through koffi: domains with their state, balloon and statistics, in as few calls
 * as it has for them. Every call waits for libvirtd, however long that takes: this is for a thread of its own.
 */
import { AerostatError } from './error.ts';
import { koffi } from './koffi.ts';

const NAME = 'libvirt.so.0';

/** libvirt-domain.h: what is asked for of all domains. */
const STATS_STATE = 1 << 0;
const STATS_BALLOON = 1 << 2;
const ACTIVE = 1 << 0;
/** Domains that are busy are told of without what would have to be waited for. */
const NOWAIT = 1 << 29;
const AFFECT_LIVE = 1 << 0;
/** virTypedParameter: a name of 80 bytes, its type, and 8 bytes of value. */
const PARAMETER_BYTES = 96;
const PARAMETER_TYPE = 80;
const PARAMETER_VALUE = 88;
const PARAMETERS_MAX = 4096;
const UUID_BYTES = 37;
/** virDomainStatsRecord: the domain, its parameters, how many. */
const RECORD_BYTES = 24;
const DOMAINS_MAX = 10_000;

/** virTypedParameterType of numbers, and how each is read. */
const NUMBER_READERS: Readonly<Record<number, (view: DataView, at: number) => number>> = {
  1: (view, at) => view.getInt32(at, true),
  2: (view, at) => view.getUint32(at, true),
  3: (view, at) => Number(view.getBigInt64(at, true)),
  4: (view, at) => Number(view.getBigUint64(at, true)),
  5: (view, at) => view.getFloat64(at, true),
  6: (view, at) => view.getUint8(at),
};

/** libvirt refused, or libvirtd cannot be reached. */
class LibvirtError extends AerostatError {
  constructor(what: string, why: string) {
    super('AEROSTAT_LIBVIRT', `libvirt cannot ${what}: ${why}`);
  }
}

/** The library is not on this machine. */
class LibvirtMissingError extends AerostatError {
  constructor(cause: unknown) {
    super(
      'AEROSTAT_LIBVIRT_MISSING',
      'libvirt.so.0 is not on this machine; install it (Debian: apt-get install libvirt0, Fedora: dnf install libvirt-libs)',
      { cause },
    );
  }
}

/** One domain that is active; the numbers have libvirt's names (`balloon.current`), sizes in KiB. */
export interface DomainNumbers {
  readonly name: string;
  readonly uuid: string;
  readonly numbers: Readonly<Record<string, number>>;
}

function bind() {
  const library = koffi().load(NAME);
  return {
    open: library.func('intptr_t virConnectOpen(const char *uri)'),
    closeConnection: library.func('int virConnectClose(intptr_t connection)'),
    isAlive: library.func('int virConnectIsAlive(intptr_t connection)'),
    allStats: library.func(
      'int virConnectGetAllDomainStats(intptr_t connection, uint32_t stats, _Out_ intptr_t *records, uint32_t flags)',
    ),
    freeStats: library.func('void virDomainStatsRecordListFree(intptr_t records)'),
    nameOf: library.func('const char *virDomainGetName(intptr_t domain)'),
    uuidOf: library.func('int virDomainGetUUIDString(intptr_t domain, _Out_ uint8_t *buffer)'),
    find: library.func('intptr_t virDomainLookupByUUIDString(intptr_t connection, const char *uuid)'),
    freeDomain: library.func('int virDomainFree(intptr_t domain)'),
    xmlOf: library.func('void *virDomainGetXMLDesc(intptr_t domain, uint32_t flags)'),
    setMemory: library.func('int virDomainSetMemoryFlags(intptr_t domain, uint64_t kib, uint32_t flags)'),
    setPeriod: library.func(
      'int virDomainSetMemoryStatsPeriod(intptr_t domain, int seconds, uint32_t flags)',
    ),
    lastMessage: library.func('const char *virGetLastErrorMessage()'),
    setErrorFunc: library.func('void virSetErrorFunc(void *data, void *handler)'),
    free: koffi().load('libc.so.6').func('void free(void *pointer)'),
  } as const;
}

let bound: ReturnType<typeof bind> | undefined;

/** @throws LibvirtMissingError */
function calls(): ReturnType<typeof bind> {
  if (bound !== undefined) return bound;
  try {
    bound = bind();
  } catch (cause) {
    throw new LibvirtMissingError(cause);
  }
  // Left alone, the library prints every error to standard error as well.
  const quiet = koffi().register(
    () => {},
    koffi().pointer(koffi().proto('void quiet(void *data, void *error)')),
  );
  bound.setErrorFunc(null, quiet);
  return bound;
}

/** A connection to a libvirtd. Its calls wait. */
export class Libvirt {
  readonly #connection: number;

  private constructor(connection: number) {
    this.#connection = connection;
  }

  /** @throws LibvirtMissingError, LibvirtError */
  static open(uri: string): Libvirt {
    const connection = calls().open(uri);
    if (connection === 0) throw failure(`connect to ${uri}`);
    return new Libvirt(connection);
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

  /** Lets the domain keep so many KiB, as long as it runs; its persistent definition stays. @throws LibvirtError */
  setMemory(uuid: string, kib: number): void {
    this.#with(uuid, 'set the memory of a domain', domain =>
      calls().setMemory(domain, kib, AFFECT_LIVE) < 0 ? undefined : true,
    );
  }

  /** How often QEMU asks the guest for statistics, while it runs; 0 for never. @throws LibvirtError */
  setStatisticsPeriod(uuid: string, seconds: number): void {
    this.#with(uuid, 'set the statistics period of a domain', domain =>
      calls().setPeriod(domain, seconds, AFFECT_LIVE) < 0 ? undefined : true,
    );
  }

  /** Whether its libvirtd can still be there. */
  isAlive(): boolean {
    return calls().isAlive(this.#connection) === 1;
  }

  close(): void {
    calls().closeConnection(this.#connection);
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

const failure = (what: string): LibvirtError => new LibvirtError(what, calls().lastMessage());

function bytesAt(pointer: number | bigint, length: number): DataView {
  const bytes = new Uint8Array(koffi().view(BigInt(pointer), length).slice(0));
  return new DataView(bytes.buffer);
}

/** `records` is an array of pointers to records. */
function readRecord(records: number, at: number): DomainNumbers {
  const pointer = bytesAt(BigInt(records) + BigInt(8 * at), 8).getBigUint64(0, true);
  const record = bytesAt(pointer, RECORD_BYTES);
  const domain = Number(record.getBigUint64(0, true));
  const parameters = record.getBigUint64(8, true);
  const count = Math.min(record.getInt32(16, true), PARAMETERS_MAX);
  const uuid = new Uint8Array(UUID_BYTES);
  if (calls().uuidOf(domain, uuid) < 0) throw failure('tell the UUID of a domain');
  return {
    name: calls().nameOf(domain),
    uuid: Buffer.from(uuid.subarray(0, UUID_BYTES - 1)).toString('latin1'),
    numbers: count === 0 ? {} : readNumbers(bytesAt(parameters, count * PARAMETER_BYTES), count),
  };
}

function readNumbers(view: DataView, count: number): Record<string, number> {
  const numbers: Record<string, number> = {};
  const bytes = Buffer.from(view.buffer);
  for (let at = 0; at < count * PARAMETER_BYTES; at += PARAMETER_BYTES) {
    const read = NUMBER_READERS[view.getInt32(at + PARAMETER_TYPE, true)];
    if (read === undefined) continue;
    const end = bytes.indexOf(0, at);
    const name = bytes.toString(
      'latin1',
      at,
      Math.min(end === -1 ? at + PARAMETER_TYPE : end, at + PARAMETER_TYPE),
    );
    numbers[name] = read(view, at + PARAMETER_VALUE);
  }
  return numbers;
}
