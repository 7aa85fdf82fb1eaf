/**
 * A guest that travels between two places of this host, by the same migration over TCP that would take it to another: it
 * is a machine, and a place waits for it wherever it is not. Clients reach it under one name, here or there.
 */

import type { GuestRoute } from '../control/combined-control.ts';
import type { GuestEvent, GuestStatus } from '../control/contract.ts';
import { handlerOf } from '../control/handlers.ts';
import type { MigrationAnswer, MigrationStatus } from '../control/migrations.ts';
import {
  GUEST_OPERATIONS,
  type GuestControl,
  type GuestOperation,
  handlersOf,
} from '../control/operations.ts';
import { MigrationDestination } from '../migration/destination.ts';
import { Listeners } from '../sys/listeners.ts';
import { formatTransferAddress } from '../transfer/address.ts';
import { systemClock } from '../transfer/clock.ts';
import { TransferListener } from '../transfer/listener.ts';
import { IncomingVm } from '../vm/incoming-vm.ts';
import type { VmOptions } from '../vm/options.ts';
import { Vm } from '../vm/vm.ts';
import { type VmControl, vmControl } from '../vm/vm-control.ts';

const HOST = '127.0.0.1';
const POLL_MS = 1000;
/** A stranger that finds the place can bring no larger machine. */
const MEMORY_BYTES_MAX = 2 ** 30;
/** No faster than an onlooker can follow. */
const BYTES_PER_SECOND = 48 * 2 ** 20;

/** Where the guest is awaited. */
interface Place {
  readonly machine: IncomingVm;
  readonly destination: MigrationDestination;
  readonly listener: TransferListener;
}

export class MigratingGuest {
  readonly name: string;
  readonly #listeners = new Listeners<[event: GuestEvent]>();
  readonly #ending = new AbortController();
  #vm: Vm;
  #control: VmControl;
  #place: Place;
  #unsubscribe: () => void = () => {};
  /** Of where the guest is: a source that lost its connections asks there what became of it. */
  #door: TransferListener | undefined;
  /** Its newest arrival, of which the machine that arrived knows nothing. */
  #arrival: MigrationStatus | null = null;
  readonly #hosted: Promise<void>;

  private constructor(vm: Vm, place: Place) {
    this.name = vm.name;
    this.#vm = vm;
    this.#place = place;
    this.#control = this.#take(vm);
    this.route = { name: vm.name, remoteName: vm.name, control: this.#everywhere() };
    this.#hosted = this.#host();
  }

  static async start(options: VmOptions & { readonly name: string }): Promise<MigratingGuest> {
    const place = await openPlace(options, 0);
    try {
      return new MigratingGuest(await Vm.start(options), place);
    } catch (error) {
      await closePlace(place);
      throw error;
    }
  }

  /** For a control of several guests, which finds it wherever it is. */
  readonly route: GuestRoute;

  /** Where it can go: the place that waits for it, as `tcp:HOST:PORT`. */
  get destination(): string {
    return `tcp:${formatTransferAddress(this.#place.listener.address)}`;
  }

  /** Sets out. @throws GuestStateError when it is on its way already, or does not run here any more */
  async travel(): Promise<void> {
    const order = { to: this.destination, bandwidthBytesPerSecond: BYTES_PER_SECOND };
    await this.#control.migrate(this.name, order);
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#control.cancelMigration(this.name).catch(() => {});
    this.#place.destination.cancel('the demonstration ends');
    await this.#hosted;
    await closePlace(this.#place);
    await this.#door?.close();
    await this.#vm.close();
  }

  /** Its control, wherever it is. */
  #everywhere(): GuestControl {
    return {
      ...handlersOf<GuestOperation, GuestStatus>(
        GUEST_OPERATIONS,
        operation => (name, args) => handlerOf(this.#control, operation)(name, args),
      ),
      migration: name => this.#migration(name),
      guests: () => this.#control.guests(),
      samples: () => this.#control.samples(),
      renewLeases: args => this.#control.renewLeases(args),
      subscribe: listener => {
        return this.#listeners.add(listener);
      },
    };
  }

  /** Of a machine that has just arrived, the journey that brought it. */
  async #migration(name: string): Promise<MigrationAnswer> {
    const answer = await this.#control.migration(name);
    return { ...answer, migration: answer.migration ?? this.#arrival };
  }

  #take(vm: Vm): VmControl {
    const control = vmControl(vm);
    // What becomes of a machine that was left behind is no news of the guest.
    this.#unsubscribe();
    this.#unsubscribe = control.subscribe(event => {
      this.#listeners.emit(event);
    });
    control.change(this.name, { pollIntervalMs: POLL_MS }).catch(() => {});
    return control;
  }

  /** Keeps a place waiting, whatever becomes of the migrations there. */
  async #host(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      const arrived = await this.#place.destination.outcome.then(
        () => true,
        () => false,
      );
      if (signal.aborted) return;
      const vacated = arrived ? await this.#arrive() : this.#place.listener;
      const port = vacated?.address.port ?? 0;
      await vacated?.close();
      this.#place = await openPlace({ name: this.name }, port);
    }
  }

  /** The guest runs in the place; resolves with the door of where it was. */
  async #arrive(): Promise<TransferListener | undefined> {
    const [left, control, door] = [this.#vm, this.#control, this.#door];
    if (left.state !== 'gone') {
      // Another source's guest came; ours is where it was.
      await this.#place.machine.close();
      return this.#place.listener;
    }
    await control.departed;
    this.#arrival = (await control.migration(this.name)).migration;
    this.#vm = this.#place.machine.vm;
    this.#control = this.#take(this.#vm);
    this.#door = this.#place.listener;
    await left.close();
    return door;
  }
}

async function openPlace({ name }: { readonly name: string }, port: number): Promise<Place> {
  const machine = await IncomingVm.open({ name });
  try {
    const destination = new MigrationDestination({
      machine,
      ramOf: () => machine.ram,
      memoryBytesMax: MEMORY_BYTES_MAX,
      clock: systemClock,
    });
    const listener = await TransferListener.open({
      address: { host: HOST, port },
      accept: inlet => destination.accept(inlet),
    });
    return { machine, destination, listener };
  } catch (error) {
    await machine.close();
    throw error;
  }
}

async function closePlace({ machine, listener }: Place): Promise<void> {
  await listener.close();
  await machine.close();
}
