/** Machines of nothing but memory and a few bytes of state, on both sides of a real connection, and wires that record. */
import { once } from 'node:events';
import { createServer, type Server, Socket } from 'node:net';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Convergence } from '../../src/migration/convergence.ts';
import { MigrationDestination } from '../../src/migration/destination.ts';
import { SoftwareDirtyLog } from '../../src/migration/dirty-log.ts';
import type { SavedState } from '../../src/migration/machine.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { MigrationSource } from '../../src/migration/source.ts';
import type { RegionShape } from '../../src/migration/stream/messages.ts';
import { AerostatError } from '../../src/sys/error.ts';
import type { TransferAddress } from '../../src/transfer/address.ts';
import { systemClock } from '../../src/transfer/clock.ts';
import { TransferConnector } from '../../src/transfer/connector.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';

export const STATE = new Uint8Array(1000).map((_, i) => i * 3);

export const until = async (met: () => boolean): Promise<void> => {
  for (let tries = 0; !met(); tries++) {
    if (tries > 6000) throw new Error('never came to it');
    await systemClock.sleep(5);
  }
};

export const memoryOf = (regions: readonly { guestAddress: number; size: number }[]): Ram =>
  new Ram(createSharedMemory({ regions: [...regions] }));

export const closeRam = (ram: Ram | undefined): void => {
  for (const { backing } of ram?.memory.regions ?? []) backing.close();
};

/** Bytes that the host has given for it. */
export const residentBytes = (ram: Ram): number =>
  ram.memory.regions.reduce((sum, { backing }) => sum + backing.residentBytes(), 0);

/** A page that says where it is, and when it was written. */
export function writePage(ram: Ram, slot: number, serial: number): void {
  const page = new Uint8Array(PAGE_SIZE).fill(1 + (serial & 0x7f));
  new DataView(page.buffer).setUint32(8, slot);
  ram.write(slot, 1, page, 0);
}

export function contents(ram: Ram): Buffer {
  const bytes = Buffer.alloc(ram.slots * PAGE_SIZE);
  ram.read(0, ram.slots, bytes, 0);
  return bytes;
}

/** A place that counts what it is asked for. */
export class Place {
  readonly destination: MigrationDestination;
  readonly created: number[] = [];
  ram: Ram | undefined;
  states: readonly SavedState[] = [];
  runs = 0;
  abandoned = 0;
  failure: Error | undefined;

  constructor(memoryBytesMax: number, inquiryMsMax?: number) {
    this.destination = new MigrationDestination({
      machine: {
        createMemory: async (regions: readonly RegionShape[]) => {
          this.created.push(regions.reduce((sum, { size }) => sum + size, 0));
          this.ram = memoryOf(regions);
        },
        load: async states => {
          if (!states.every(({ name, bytes }) => name === 'guest' && Buffer.compare(bytes, STATE) === 0)) {
            throw new AerostatError('AEROSTAT_VM_STATE', 'a state that is not read');
          }
          this.states = states;
        },
        run: async () => {
          this.runs++;
        },
        abandon: async () => {
          this.abandoned++;
          closeRam(this.ram);
        },
      },
      ramOf: () => {
        if (this.ram === undefined) throw new Error('no memory');
        return this.ram;
      },
      memoryBytesMax,
      clock: systemClock,
      ...(inquiryMsMax === undefined ? {} : { inquiryMsMax }),
    });
    this.destination.outcome.catch((error: Error) => {
      this.failure = error;
    });
  }
}

export interface LeavingOptions {
  readonly address: TransferAddress;
  readonly connections?: number;
  readonly bytesPerSecond?: number;
  readonly silenceMsMax?: number;
  readonly inquiryMsMax?: number;
  /** Pages that are written while the first rounds go out. */
  readonly writes?: (round: number) => readonly number[];
  /** The machine is asked for something, and has not done it yet. */
  readonly onAsked?: (what: string) => void;
}

/** A machine that leaves, with what it was asked. */
export class Leaving {
  readonly asked: string[] = [];
  readonly ram: Ram;
  readonly log: SoftwareDirtyLog;
  readonly source: MigrationSource;
  /** That have begun. */
  rounds = 0;
  readonly #connector: TransferConnector;
  #serial = 1;

  constructor(
    ram: Ram,
    { address, connections = 1, writes = () => [], onAsked, ...options }: LeavingOptions,
  ) {
    this.ram = ram;
    this.log = new SoftwareDirtyLog(ram.slots);
    const [dirty, sent] = [new SlotBitmap(ram.slots), new SlotBitmap(ram.slots)];
    this.#connector = new TransferConnector({ address, ram, dirty, sent, ...options });
    const ask = async (what: string): Promise<void> => {
      this.asked.push(what);
      onAsked?.(what);
    };
    this.source = new MigrationSource({
      id: crypto.getRandomValues(new Uint8Array(16)),
      ram,
      machine: {
        stop: () => ask('stop'),
        resume: () => ask('resume'),
        throttle: () => ask('throttle'),
        save: async () => [{ name: 'guest', bytes: STATE }],
        handOver: () => ask('let go'),
      },
      log: this.log,
      dirty,
      sent,
      connector: this.#connector,
      connections,
      convergence: new Convergence({ downtimeMsMax: 1, roundsMax: 5, autoConverge: false }),
      clock: systemClock,
      observer: progress => {
        if (progress.round === this.rounds) return;
        this.rounds = progress.round;
        if (progress.phase === 'copying') this.write(writes(progress.round));
      },
    });
  }

  write(slots: readonly number[]): void {
    for (const slot of slots) {
      writePage(this.ram, slot, this.#serial++);
      this.log.add(slot, 1);
    }
  }
}

/** What goes over one connection, and a hand on it. */
export interface Wire {
  /** From the side that connected. */
  readonly forth: Buffer[];
  readonly back: Buffer[];
  readonly sockets: readonly [Socket, Socket];
}

/** Forwards connections to `target`, until it is told otherwise. */
export class Relay {
  readonly wires: Wire[] = [];
  /** Sees what is about to be forwarded; false stops this connection for good: nothing more goes either way. */
  watch: (wire: Wire) => boolean = () => true;
  /** How often something was about to be forwarded. */
  events = 0;
  /** Forwards so much at once, and waits before each. */
  pieceBytes = Number.POSITIVE_INFINITY;
  delayMs = 0;
  /** New connections are cut. */
  down = false;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static open(target: () => TransferAddress): Promise<Relay> {
    const server = createServer({ allowHalfOpen: true });
    const relay = new Relay(server);
    server.on('connection', client => relay.#connect(client, target()));
    return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(relay)));
  }

  get address(): TransferAddress {
    return { host: '127.0.0.1', port: (this.#server.address() as { port: number }).port };
  }

  /** No new connection is taken any more; open ones stay. */
  refuse(): void {
    this.#server.close();
  }

  reset(): void {
    for (const { sockets } of this.wires) for (const socket of sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.#server.close();
    for (const { sockets } of this.wires) for (const socket of sockets) socket.destroy();
  }

  #connect(client: Socket, { host, port }: TransferAddress): void {
    if (this.down) {
      client.resetAndDestroy();
      return;
    }
    const remote = new Socket({ allowHalfOpen: true }).connect({ host, port });
    const wire: Wire = { forth: [], back: [], sockets: [client, remote] };
    this.wires.push(wire);
    void this.#forward(wire, client, remote, wire.forth);
    void this.#forward(wire, remote, client, wire.back);
  }

  async #forward(wire: Wire, from: Socket, to: Socket, kept: Buffer[]): Promise<void> {
    from.once('close', () => to.destroy());
    try {
      for await (const bytes of from as AsyncIterable<Buffer>) {
        kept.push(Buffer.from(bytes));
        this.events++;
        // One that was stopped is neither read nor written any more, and not closed either.
        if (!this.watch(wire)) return await new Promise(() => {});
        for (let at = 0; at < bytes.length; at += this.pieceBytes) {
          if (this.delayMs > 0) await systemClock.sleep(this.delayMs);
          const piece = bytes.subarray(at, at + Math.min(bytes.length, this.pieceBytes));
          if (!to.write(piece)) await once(to, 'drain');
        }
      }
      to.end();
    } catch {
      to.resetAndDestroy();
    }
  }
}
