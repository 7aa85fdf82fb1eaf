/** Guests of QEMU's, by their monitors. What they have in common with those of other hypervisors is hypervisor-control.ts's. */
import { migrateAway, queryLastMigration } from '../peers/qemu/migration.ts';
import type { QmpMonitor } from '../peers/qemu/monitor.ts';
import { cancelMigration } from '../peers/qemu/qmp-commands.ts';
import { HypervisorControl } from './hypervisor-control.ts';
import { QemuMigrations } from './qemu-migrations.ts';
import { type QemuGuestOptions, QmpMachine } from './qmp-machine.ts';

export class QemuControl extends HypervisorControl {
  readonly #monitors = new Map<string, QmpMonitor>();
  protected readonly migrations: QemuMigrations;

  /** Begins to connect to every guest's monitor, and goes on trying. `anyDestination`: see {@link QemuMigrations}. */
  constructor(guests: readonly QemuGuestOptions[], { anyDestination = false } = {}) {
    super();
    for (const options of guests) this.add(options);
    this.migrations = new QemuMigrations(
      {
        expect: name => this.expect(name),
        moveAway: async (name, options) => migrateAway(this.#monitorOf(name), options),
        lastMove: async name => queryLastMigration(this.#monitorOf(name)),
        cancelMove: async name => cancelMigration(this.#monitorOf(name)),
        emit: event => this.emit(event),
      },
      anyDestination,
    );
  }

  /** The name is not taken. */
  protected add(options: QemuGuestOptions): void {
    const machine = new QmpMachine(options);
    this.#monitors.set(options.name, machine.monitor);
    this.admit(options.name, machine);
  }

  protected override remove(name: string): void {
    this.#monitors.delete(name);
    super.remove(name);
  }

  /** @throws UnknownGuestError */
  #monitorOf(name: string): QmpMonitor {
    this.expect(name);
    return this.#monitors.get(name) as QmpMonitor;
  }
}
