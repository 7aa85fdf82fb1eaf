/**
 * A domain moved by libvirt itself: libvirtd connects to the libvirt of the destination and sees to all of it (peer-to-peer),
 * so that the end of the process that asked for it ends nothing. The one call lasts as long as the migration: it has a thread and a
 * connection of its own.
 */
import { koffi } from './koffi.ts';
import { calls, errorHandler, failure, LibvirtError, Parameters } from './libvirt-calls.ts';

/** virDomainMigrateFlags. */
const LIVE = 1 << 0;
const PEER2PEER = 1 << 1;
const PERSIST_DESTINATION = 1 << 3;
const UNDEFINE_SOURCE = 1 << 4;
const AUTO_CONVERGE = 1 << 13;
const POSTCOPY = 1 << 15;
const PARALLEL = 1 << 17;

const MIB = 2 ** 20;

/** What the domain is moved like. */
export interface DomainMove {
  readonly uuid: string;
  /** The libvirt of the destination, as the libvirtd of the source reaches it. */
  readonly to: string;
  readonly bandwidthBytesPerSecond?: number;
  /** More than one are QEMU's multifd. */
  readonly connections?: number;
  /** Slows the guest down when it writes faster than can be sent. */
  readonly autoConverge: boolean;
  /** Whether post-copy may begin, by an order of its own. */
  readonly postcopy: boolean;
  /** Its definition goes along: persistent there, and not here any more. */
  readonly persist: boolean;
}

/** libvirt's until its call returns: the collector must not have them before. */
const inUse = new Set<Parameters>();

/** @throws LibvirtError AEROSTAT_LIBVIRT_MIGRATION libvirt's answer; AEROSTAT_LIBVIRT where there was none */
export async function migrateDomain(uri: string, move: DomainMove): Promise<void> {
  const connection = calls().open(uri);
  if (connection === 0) throw failure(`connect to ${uri}`);
  // A thread's last error is told to that thread alone; this handler is told as well.
  let message = 'it does not say why';
  const handler = errorHandler(heard => {
    message = heard;
  });
  calls().setConnectionErrorFunc(connection, null, handler);
  const domain = calls().find(connection, move.uuid);
  try {
    if (domain === 0) throw failure('move a domain');
    const failed = await carryOut(domain, move);
    if (!failed) return;
    const answered = calls().isAlive(connection) === 1;
    throw new LibvirtError('move it', message, answered ? 'AEROSTAT_LIBVIRT_MIGRATION' : 'AEROSTAT_LIBVIRT');
  } finally {
    if (domain !== 0) calls().freeDomain(domain);
    calls().closeConnection(connection);
    koffi().unregister(handler);
  }
}

function carryOut(domain: number, move: DomainMove): Promise<boolean> {
  const { bandwidthBytesPerSecond: bandwidth, connections = 1 } = move;
  const parameters = new Parameters();
  // Counted in MiB a second, where 0 is no bound.
  if (bandwidth !== undefined) parameters.unsignedLong('bandwidth', Math.max(1, Math.round(bandwidth / MIB)));
  if (connections > 1) parameters.int('parallel.connections', connections);
  const flags =
    LIVE |
    PEER2PEER |
    (move.autoConverge ? AUTO_CONVERGE : 0) |
    (move.postcopy ? POSTCOPY : 0) |
    (connections > 1 ? PARALLEL : 0) |
    (move.persist ? PERSIST_DESTINATION | UNDEFINE_SOURCE : 0);
  inUse.add(parameters);
  return new Promise<boolean>((resolve, reject) => {
    const { bytes, count } = parameters;
    calls().migrate.async(domain, move.to, bytes, count, flags, (error: unknown, answer: number) => {
      if (error) reject(error);
      else resolve(answer < 0);
    });
  }).finally(() => inUse.delete(parameters));
}
