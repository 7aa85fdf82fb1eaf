/**
 * The process where memory arrives in `bench migrate`'s loopback measurement: by a migration, or by a plain copy as
 * one writes it with Node's sockets and files.
 */
import { writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { MigrationDestination } from '../../migration/destination.ts';
import type { Ram } from '../../migration/ram.ts';
import { InvariantError } from '../../sys/error.ts';
import { fileStatus } from '../../sys/file.ts';
import { systemClock } from '../../transfer/clock.ts';
import { TransferListener } from '../../transfer/listener.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import { createRam, digestOf, fileOf } from './loopback-memory.ts';
import { type FromLoopbackPeer, PLAIN_HEAD_BYTES, type ToLoopbackPeer } from './loopback-protocol.ts';

const HOST = '127.0.0.1';

const tell = (message: FromLoopbackPeer): void => tellBench(message);

let ram: Ram | undefined;
let stop: () => Promise<void> = async () => {};

async function arm({ copy, bytes }: ToLoopbackPeer): Promise<void> {
  await stop();
  ram?.memory.close();
  ram = undefined;
  if (copy === 'plain') await listenPlain(bytes);
  else await listenMigration(bytes);
}

async function listenMigration(bytes: number): Promise<void> {
  const destination = new MigrationDestination({
    machine: {
      createMemory: async () => {
        ram = createRam(bytes);
      },
      prepare: async () => {},
      load: async () => {},
      unload: async () => {},
      run: async () => {},
      abandon: async () => {},
    },
    ramOf: () => {
      if (ram === undefined) throw new InvariantError('no memory yet');
      return ram;
    },
    memoryBytesMax: bytes,
    clock: systemClock,
  });
  const listener = await TransferListener.open({
    address: { host: HOST, port: 0 },
    accept: inlet => destination.accept(inlet),
  });
  stop = () => listener.close();
  const used = process.cpuUsage();
  destination.outcome.then(() => arrived(used), fail);
  tell({ kind: 'listening', port: listener.address.port });
}

async function listenPlain(bytes: number): Promise<void> {
  const memory = createRam(bytes);
  ram = memory;
  const fd = fileOf(memory).number;
  const used = process.cpuUsage();
  let missing = bytes;
  const take = (socket: Socket) => {
    let at: number | undefined;
    socket.on('data', data => {
      let from = 0;
      if (at === undefined) {
        at = Number(data.readBigUInt64LE(0));
        from = PLAIN_HEAD_BYTES;
      }
      writeSync(fd, data, from, data.length - from, at);
      at += data.length - from;
      missing -= data.length - from;
      if (missing === 0) arrived(used);
    });
  };
  const server: Server = createServer(take);
  await new Promise<void>(resolve => server.listen(0, HOST, resolve));
  stop = () => new Promise(resolve => server.close(() => resolve()));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new InvariantError('no port');
  tell({ kind: 'listening', port: address.port });
}

function arrived(before: NodeJS.CpuUsage): void {
  tell({ kind: 'arrived' });
  const { user, system } = process.cpuUsage(before);
  if (ram === undefined) throw new InvariantError('memory arrived nowhere');
  tell({
    kind: 'seen',
    digest: digestOf(ram),
    residentBytes: fileStatus(fileOf(ram)).residentBytes,
    cpuMs: (user + system) / 1e3,
  });
}

const fail = (error: Error): void => tell({ kind: 'failed', message: error.message });

process.on('message', (message: ToLoopbackPeer) => void arm(message).catch(fail));
whenLetGo(() => process.exit());
