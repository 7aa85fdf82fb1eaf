/** A machine's control: that of its device, and its migrations. */
import type { DeviceGuestStatus, GuestEvent } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { Listeners } from '../sys/listeners.ts';
import type { MigrationPlace } from './migration-route.ts';
import type { Vm } from './vm.ts';
import { VmMigrations } from './vm-migrations.ts';

export interface VmControl extends Control<DeviceGuestStatus> {
  /** Resolves when the guest runs elsewhere. */
  readonly departed: Promise<void>;
}

export function vmControl(vm: Vm, place: MigrationPlace = {}): VmControl {
  const listeners = new Listeners<[event: GuestEvent]>();
  const emit = (event: GuestEvent) => {
    listeners.emit(event);
  };
  const migrations = new VmMigrations(vm, place, emit);
  /** A guest that was handed over is not connected here, though its device still knows it. */
  const seen = (status: DeviceGuestStatus) =>
    vm.state === 'gone' ? { ...status, connected: false } : status;
  return {
    ...vm.control,
    departed: migrations.departed,
    migration: name => migrations.migration(name),
    migrate: (name, order) => migrations.migrate(name, order),
    cancelMigration: name => migrations.cancelMigration(name),
    guests: async () => (await vm.control.guests()).map(seen),
    guest: async name => seen(await vm.control.guest(name)),
    change: async (name, changes) => {
      // A device that was saved already would keep a target to itself.
      const targeted = changes?.targetBytes !== undefined || changes?.memoryBytes !== undefined;
      if (name === vm.name && targeted) await vm.awake();
      return vm.control.change(name, changes);
    },
    map: async (name, options) => migrations.mapped(await vm.control.map(name, options)),
    subscribe: listener => {
      const leave = vm.control.subscribe(listener);
      const forget = listeners.add(listener);
      return () => {
        leave();
        forget();
      };
    },
  };
}
