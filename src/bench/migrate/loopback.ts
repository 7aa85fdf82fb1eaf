/**
 * How fast a migration could be: memory that goes from one process to another over loopback, without a limit. Beside
 * it, in the same run, a plain copy of the same bytes over as many connections: read from a file, written to a socket,
 * read from it, written to a file. And what it costs to move a guest that has nothing.
 */
import { once } from 'node:events';
import { readSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { PAGE_SIZE } from '../../memory/page.ts';
import { Convergence } from '../../migration/convergence.ts';
import { SoftwareDirtyLog } from '../../migration/dirty-log.ts';
import type { SourceMachine } from '../../migration/machine.ts';
import type { Ram } from '../../migration/ram.ts';
import { SlotBitmap } from '../../migration/slot-bitmap.ts';
import { MigrationSource } from '../../migration/source.ts';
import type { MigrationSummary } from '../../migration/source-shapes.ts';
import { AerostatError, assert } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { systemClock } from '../../transfer/clock.ts';
import { TransferConnector } from '../../transfer/connector.ts';
import { PeerProcess } from '../peer-process.ts';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import { runUntil } from './interruptible.ts';
import { createRam, digestOf, fileOf, fillMemory } from './loopback-memory.ts';
import {
  type CopyKind,
  type FromLoopbackPeer,
  PLAIN_BYTES,
  PLAIN_HEAD_BYTES,
  type ToLoopbackPeer,
} from './loopback-protocol.ts';

export interface LoopbackOptions {
  /** A multiple of 1 MiB; both processes hold as much. */
  readonly bytes: number;
  /** Numbers of connections, each measured by itself. */
  readonly connections: readonly number[];
  readonly runs: number;
  /** Bytes of the guest that has nothing; 0 leaves it out. */
  readonly sparseBytes: number;
  readonly signal?: AbortSignal;
  readonly progress?: (done: number, total: number, what: string) => void;
}

export const LOOPBACK_DEFAULTS = {
  bytes: 2 ** 30,
  connections: [1, 4],
  runs: 5,
  sparseBytes: 2 ** 37,
} as const satisfies LoopbackOptions;

/** A guest that does nothing. */
const STILL: SourceMachine = {
  stop: async () => {},
  resume: async () => {},
  throttle: async () => {},
  save: async () => [],
  saveAhead: async () => [],
  handOver: async () => {},
};

type Peer = PeerProcess<ToLoopbackPeer, FromLoopbackPeer>;

interface Copy {
  readonly elapsedMs: number;
  /** Of both processes. */
  readonly cpuMs: number;
  readonly residentBytes: number;
}

/** A {@link Copy} that was a migration. */
export interface MemoryMove extends Copy {
  readonly summary: MigrationSummary;
}

/** @throws AerostatError when a side fails, or memory arrived changed */
export async function measureLoopback(options: LoopbackOptions): Promise<Measured> {
  const { bytes, connections, runs, sparseBytes, signal, progress = () => {} } = options;
  assert(bytes % PLAIN_BYTES === 0, `${bytes} bytes are no multiple of ${PLAIN_BYTES}`);
  const total = connections.length * (runs + 1) * 2 + (sparseBytes > 0 ? 1 : 0);
  const rows: BenchRow[] = [];
  const ratios: Record<string, number> = {};
  let done = 0;
  const peer: Peer = new PeerProcess(workerUrl('./loopback-peer', import.meta.url), { signal });
  try {
    const ram = createRam(bytes);
    try {
      fillMemory(ram);
      const digest = digestOf(ram);
      for (const count of connections) {
        const copies: Record<CopyKind, Copy[]> = { plain: [], migration: [] };
        // The first of each only warms both processes up.
        for (let run = 0; run <= runs; run++) {
          for (const kind of ['plain', 'migration'] as const) {
            signal?.throwIfAborted();
            progress(done++, total, `${kind} over ${count}`);
            const copy = await copyOnce(peer, ram, kind, count, digest);
            if (run > 0) copies[kind].push(copy);
          }
        }
        const [plain, migration] = (['plain', 'migration'] as const).map(kind => {
          const row = rowOf(`loopback ${kind}`, `${count} connections`, bytes, copies[kind]);
          rows.push(row);
          return row.elapsedMs.median;
        });
        ratios[`loopback.toPlainCopy.${count}`] = plain / migration;
      }
    } finally {
      ram.memory.close();
    }
    ratios['loopback.toPlainCopy'] = Math.min(...Object.values(ratios));
    if (sparseBytes > 0) {
      progress(done++, total, 'a guest that has nothing');
      const copy = await moveNothing(peer, sparseBytes);
      rows.push(rowOf('loopback sparse', `${sparseBytes / 2 ** 30} GiB, nothing in it`, 0, [copy]));
      ratios['loopback.sparseCpuSeconds'] = copy.cpuMs / 1e3;
    }
  } finally {
    await peer.end();
  }
  return {
    rows,
    ratios,
    notes: ['Plain: read from a file, a socket of Node, written to a file, 1 MiB at a time.'],
  };
}

/** Moves memory of which every page is in use. @throws AerostatError when a side fails, or memory arrived changed */
export async function moveOverLoopback(
  bytes: number,
  connections: number,
  signal: AbortSignal,
): Promise<MemoryMove> {
  const peer: Peer = new PeerProcess(workerUrl('./loopback-peer', import.meta.url), { signal });
  const ram = createRam(bytes);
  try {
    fillMemory(ram);
    return await moveOnce(peer, ram, connections, digestOf(ram), signal);
  } finally {
    ram.memory.close();
    await peer.end();
  }
}

/** Copies memory of which every page is in use, over one connection, as a program that knows nothing of pages does it. */
export async function copyPlainly(bytes: number): Promise<Copy> {
  const peer: Peer = new PeerProcess(workerUrl('./loopback-peer', import.meta.url));
  const ram = createRam(bytes);
  try {
    fillMemory(ram);
    return await copyOnce(peer, ram, 'plain', 1, digestOf(ram));
  } finally {
    ram.memory.close();
    await peer.end();
  }
}

async function copyOnce(
  peer: Peer,
  ram: Ram,
  kind: CopyKind,
  connections: number,
  digest: string,
): Promise<Copy> {
  if (kind === 'migration') return moveOnce(peer, ram, connections, digest);
  return timed(peer, ram, kind, connections, digest, port => sendPlain(ram, port, connections));
}

async function moveOnce(
  peer: Peer,
  ram: Ram,
  connections: number,
  digest: string,
  signal?: AbortSignal,
): Promise<MemoryMove> {
  let summary: MigrationSummary | undefined;
  const copy = await timed(peer, ram, 'migration', connections, digest, async port => {
    summary = await migrate(ram, port, connections, signal);
  });
  assert(summary !== undefined, 'a migration without a summary');
  return { ...copy, summary };
}

async function timed(
  peer: Peer,
  ram: Ram,
  kind: CopyKind,
  connections: number,
  digest: string,
  send: (port: number) => Promise<void>,
): Promise<Copy> {
  peer.send({ kind: 'arm', copy: kind, bytes: ram.slots * PAGE_SIZE, connections });
  const { port } = await peer.hear('listening');
  const used = process.cpuUsage();
  const startMs = monotonicMs();
  await send(port);
  await peer.hear('arrived');
  const elapsedMs = monotonicMs() - startMs;
  const { user, system } = process.cpuUsage(used);
  const seen = await peer.hear('seen');
  if (seen.digest !== digest) throw new AerostatError('AEROSTAT_BENCH', `memory arrived changed (${kind})`);
  return { elapsedMs, cpuMs: seen.cpuMs + (user + system) / 1e3, residentBytes: seen.residentBytes };
}

async function moveNothing(peer: Peer, bytes: number): Promise<Copy> {
  const ram = createRam(bytes);
  try {
    return await copyOnce(peer, ram, 'migration', 1, digestOf(ram));
  } finally {
    ram.memory.close();
  }
}

async function migrate(
  ram: Ram,
  port: number,
  connections: number,
  signal?: AbortSignal,
): Promise<MigrationSummary> {
  const dirty = new SlotBitmap(ram.slots);
  const sent = new SlotBitmap(ram.slots);
  const connector = new TransferConnector({ address: { host: '127.0.0.1', port }, ram, dirty, sent });
  const source = new MigrationSource({
    id: crypto.getRandomValues(new Uint8Array(16)),
    ram,
    machine: STILL,
    log: new SoftwareDirtyLog(ram.slots),
    dirty,
    sent,
    connector,
    connections,
    convergence: new Convergence({ downtimeMsMax: 300, roundsMax: 30, autoConverge: false }),
    clock: systemClock,
  });
  return runUntil(source, signal);
}

/** Each connection brings one stretch; two buffers, so that one is read while the other one is under way. */
async function sendPlain(ram: Ram, port: number, connections: number): Promise<void> {
  const fd = fileOf(ram).number;
  const chunks = (ram.slots * PAGE_SIZE) / PLAIN_BYTES;
  await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      const first = Math.floor((chunks * index) / connections);
      const end = Math.floor((chunks * (index + 1)) / connections);
      const head = Buffer.alloc(PLAIN_HEAD_BYTES);
      head.writeBigUInt64LE(BigInt(first * PLAIN_BYTES));
      let writing = write(socket, head);
      const buffers = [Buffer.alloc(PLAIN_BYTES), Buffer.alloc(PLAIN_BYTES)];
      for (let chunk = first; chunk < end; chunk++) {
        const buffer = buffers[chunk % 2];
        readSync(fd, buffer, 0, PLAIN_BYTES, chunk * PLAIN_BYTES);
        await writing;
        writing = write(socket, buffer);
      }
      await writing;
      socket.end();
    }),
  );
}

const write = (socket: Socket, bytes: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.write(bytes, error => (error == null ? resolve() : reject(error)));
  });

function rowOf(name: string, scenario: string, bytes: number, copies: readonly Copy[]): BenchRow {
  const elapsedMs = spreadOf(copies.map(copy => copy.elapsedMs));
  return {
    case: name,
    scenario,
    peer: 'loopback',
    elapsedMs,
    gigabytesPerSecond: bytes / 1e6 / elapsedMs.median,
    cpuMs: spreadOf(copies.map(copy => copy.cpuMs)),
    residentBytes: copies[0].residentBytes,
  };
}
