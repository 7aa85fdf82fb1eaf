/**
 * The functions of libvirt's own C library (libvirt.so.0) through koffi, its errors, and its lists of named values. What is
 * done with them is libvirt.ts's and libvirt-migration.ts's.
 */
import { AerostatError, type ErrorCode } from './error.ts';
import { koffi } from './koffi.ts';

const NAME = 'libvirt.so.0';

/** virTypedParameter: a name of 80 bytes, its type, and 8 bytes of value. */
const PARAMETER_BYTES = 96;
const PARAMETER_TYPE = 80;
const PARAMETER_VALUE = 88;
const PARAMETERS_MAX = 4096;
/** virTypedParameterType. */
const TYPE_INT = 1;
const TYPE_ULLONG = 4;
/** As text, with the byte that ends it. */
const UUID_BYTES = 37;
/** virError: its code, the part of libvirt that it is of, its message. */
const ERROR_BYTES = 16;
const ERROR_MESSAGE = 8;

/** virTypedParameterType of numbers, and how each is read. */
const NUMBER_READERS: Readonly<Record<number, (view: DataView, at: number) => number>> = {
  [TYPE_INT]: (view, at) => view.getInt32(at, true),
  2: (view, at) => view.getUint32(at, true),
  3: (view, at) => Number(view.getBigInt64(at, true)),
  [TYPE_ULLONG]: (view, at) => Number(view.getBigUint64(at, true)),
  5: (view, at) => view.getFloat64(at, true),
  6: (view, at) => view.getUint8(at),
};

/** libvirt refused, or libvirtd cannot be reached. */
export class LibvirtError extends AerostatError {
  constructor(what: string, why: string, code: ErrorCode = 'AEROSTAT_LIBVIRT') {
    super(code, `libvirt cannot ${what}: ${why}`);
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

const handlerOf = (prototype: string) => koffi().pointer(koffi().proto(prototype));

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
    idOf: library.func('uint32_t virDomainGetID(intptr_t domain)'),
    uuidOf: library.func('int virDomainGetUUIDString(intptr_t domain, _Out_ uint8_t *buffer)'),
    find: library.func('intptr_t virDomainLookupByUUIDString(intptr_t connection, const char *uuid)'),
    freeDomain: library.func('int virDomainFree(intptr_t domain)'),
    xmlOf: library.func('void *virDomainGetXMLDesc(intptr_t domain, uint32_t flags)'),
    setMemory: library.func('int virDomainSetMemoryFlags(intptr_t domain, uint64_t kib, uint32_t flags)'),
    setPeriod: library.func(
      'int virDomainSetMemoryStatsPeriod(intptr_t domain, int seconds, uint32_t flags)',
    ),
    stateOf: library.func(
      'int virDomainGetState(intptr_t domain, _Out_ int *state, _Out_ int *reason, uint32_t flags)',
    ),
    migrate: library.func(
      'int virDomainMigrateToURI3(intptr_t domain, const char *uri, void *parameters, uint32_t count, uint32_t flags)',
    ),
    jobStats: library.func(
      'int virDomainGetJobStats(intptr_t domain, _Out_ int *type, _Out_ intptr_t *parameters, _Out_ int *count, uint32_t flags)',
    ),
    freeParameters: library.func('void virTypedParamsFree(intptr_t parameters, int count)'),
    abortJob: library.func('int virDomainAbortJob(intptr_t domain)'),
    setDowntime: library.func(
      'int virDomainMigrateSetMaxDowntime(intptr_t domain, uint64_t ms, uint32_t flags)',
    ),
    startPostcopy: library.func('int virDomainMigrateStartPostCopy(intptr_t domain, uint32_t flags)'),
    registerEventLoop: library.func('int virEventRegisterDefaultImpl()'),
    runEventLoop: library.func('int virEventRunDefaultImpl()'),
    registerEvent: library.func(
      'int virConnectDomainEventRegisterAny(intptr_t connection, intptr_t domain, int event, void *handler, void *data, void *free)',
    ),
    deregisterEvent: library.func('int virConnectDomainEventDeregisterAny(intptr_t connection, int id)'),
    registerClose: library.func(
      'int virConnectRegisterCloseCallback(intptr_t connection, void *handler, void *data, void *free)',
    ),
    unregisterClose: library.func(
      'int virConnectUnregisterCloseCallback(intptr_t connection, void *handler)',
    ),
    lifecycleHandler: handlerOf(
      'int libvirt_lifecycle(intptr_t connection, intptr_t domain, int type, int detail, void *data)',
    ),
    rebootHandler: handlerOf('void libvirt_reboot(intptr_t connection, intptr_t domain, void *data)'),
    balloonHandler: handlerOf(
      'void libvirt_balloon(intptr_t connection, intptr_t domain, uint64_t kib, void *data)',
    ),
    closeHandler: handlerOf('void libvirt_close(intptr_t connection, int reason, void *data)'),
    lastMessage: library.func('const char *virGetLastErrorMessage()'),
    setErrorFunc: library.func('void virSetErrorFunc(void *data, void *handler)'),
    setConnectionErrorFunc: library.func(
      'void virConnSetErrorFunc(intptr_t connection, void *data, void *handler)',
    ),
    errorHandler: handlerOf('void libvirt_error(void *data, intptr_t error)'),
    free: koffi().load('libc.so.6').func('void free(void *pointer)'),
  } as const;
}

let bound: ReturnType<typeof bind> | undefined;

/** @throws LibvirtMissingError */
export function calls(): ReturnType<typeof bind> {
  if (bound !== undefined) return bound;
  try {
    bound = bind();
  } catch (cause) {
    throw new LibvirtMissingError(cause);
  }
  // Left alone, the library prints every error to standard error as well.
  bound.setErrorFunc(
    null,
    errorHandler(() => {}),
  );
  return bound;
}

/**
 * virErrorFunc. libvirt calls it on the thread whose call failed, where that is another one koffi brings the call here, and
 * the thread waits for it.
 */
export const errorHandler = (heard: (message: string) => void) =>
  koffi().register((_data: unknown, error: number | bigint) => heard(messageOf(error)), calls().errorHandler);

/** Of this thread's last call. */
export const failure = (what: string): LibvirtError => new LibvirtError(what, calls().lastMessage());

function messageOf(error: number | bigint): string {
  const text = bytesAt(error, ERROR_BYTES).getBigUint64(ERROR_MESSAGE, true);
  return text === 0n ? 'it does not say why' : (koffi().decode(text, 'char', -1) as string);
}

export function uuidOf(domain: number): string {
  const uuid = new Uint8Array(UUID_BYTES);
  if (calls().uuidOf(domain, uuid) < 0) throw failure('tell the UUID of a domain');
  return Buffer.from(uuid.subarray(0, UUID_BYTES - 1)).toString('latin1');
}

export function bytesAt(pointer: number | bigint, length: number): DataView {
  const bytes = new Uint8Array(koffi().view(BigInt(pointer), length).slice(0));
  return new DataView(bytes.buffer);
}

/** Those of an array of virTypedParameter that are numbers, by their names. */
export function numbersAt(pointer: number | bigint, length: number): Record<string, number> {
  const count = Math.min(length, PARAMETERS_MAX);
  if (count <= 0) return {};
  const view = bytesAt(pointer, count * PARAMETER_BYTES);
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

/** An array of virTypedParameter. */
export class Parameters {
  #bytes = Buffer.alloc(0);

  get count(): number {
    return this.#bytes.length / PARAMETER_BYTES;
  }

  /** For a call; they have to be kept for as long as it lasts. */
  get bytes(): Buffer | null {
    return this.count === 0 ? null : this.#bytes;
  }

  int(name: string, value: number): this {
    return this.#add(name, TYPE_INT, bytes => bytes.writeInt32LE(value, PARAMETER_VALUE));
  }

  unsignedLong(name: string, value: number): this {
    return this.#add(name, TYPE_ULLONG, bytes => bytes.writeBigUInt64LE(BigInt(value), PARAMETER_VALUE));
  }

  #add(name: string, type: number, write: (parameter: Buffer) => void): this {
    const parameter = Buffer.alloc(PARAMETER_BYTES);
    parameter.write(name, 0, PARAMETER_TYPE - 1, 'latin1');
    parameter.writeInt32LE(type, PARAMETER_TYPE);
    write(parameter);
    this.#bytes = Buffer.concat([this.#bytes, parameter]);
    return this;
  }
}
