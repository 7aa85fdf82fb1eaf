/** A machine's control: that of its device, and its migrations. */
import type { Control, DeviceGuestStatus, GuestEvent } from '../daemon/control.ts';
import type { TlsIdentity } from '../transfer/tls.ts';
import type { Vm } from './vm.ts';
import { VmMigrations } from './vm-migrations.ts';

export interface VmControl extends Control<DeviceGuestStatus> {
  readonly migrations: VmMigrations;
}

/** `tls` is what the machine shows to whoever it goes to. */
export function vmControl(vm: Vm, tls?: TlsIdentity): VmControl {
  const listeners = new Set<(event: GuestEvent) => void>();
  const emit = (event: GuestEvent) => {
    for (const listener of listeners) listener(event);
  };
  const migrations = new VmMigrations(vm, tls, emit);
  return {
    ...vm.control,
    migrations,
    map: async (name, options) => migrations.mapped(await vm.control.map(name, options)),
    subscribe: listener => {
      const leave = vm.control.subscribe(listener);
      listeners.add(listener);
      return () => {
        leave();
        listeners.delete(listener);
      };
    },
  };
}
