/**
 * A machine that is about to leave: its write log, the bitmaps of a migration, and the channel through which its guest
 * names free pages. All that MigrationSource asks of a machine; how bytes get to the destination is not here.
 */

import { KernelDirtyLog } from '../migration/kernel-dirty-log.ts';
import type { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import type { SourceOptions } from '../migration/source-shapes.ts';
import { type ChannelName, MachineChannel, waysOf } from './free-page-channel.ts';
import { GuestLog } from './guest-log.ts';
import type { Vm } from './vm.ts';

interface OutgoingMigrationOptions {
  /** The best that the guest's ABI has unless said otherwise. */
  readonly channel?: ChannelName;
  /** A test switch: hints count whatever session they are of, and the guest loses data. */
  readonly ignoreIds?: boolean;
}

export class OutgoingMigration {
  readonly vm: Vm;
  readonly log: GuestLog;
  /** Pages still to send, and pages that the destination has: shared memory, for senders in any thread. */
  readonly dirty: SlotBitmap;
  readonly sent: SlotBitmap;
  readonly #channel: MachineChannel | undefined;

  private constructor(vm: Vm, log: GuestLog, dirty: SlotBitmap, channel: MachineChannel | undefined) {
    this.vm = vm;
    this.log = log;
    this.dirty = dirty;
    this.sent = new SlotBitmap(vm.ram.slots);
    this.#channel = channel;
  }

  /**
   * @throws VmError when the guest's ABI has no such channel; AerostatError AEROSTAT_GUEST_STATE when its driver does
   *   not use it (`auto` goes without then), AEROSTAT_WRITE_TRACKING when the kernel keeps no log
   */
  static async of(
    vm: Vm,
    { channel = 'auto', ignoreIds }: OutgoingMigrationOptions = {},
  ): Promise<OutgoingMigration> {
    const dirty = new SlotBitmap(vm.ram.slots);
    const opened = await openChannel(vm, channel, dirty, ignoreIds);
    try {
      await vm.warmUpSaving();
      return new OutgoingMigration(vm, await openLog(vm), dirty, opened);
    } catch (error) {
      await opened?.close();
      throw error;
    }
  }

  /** The memory, whose file the senders read. */
  get ram(): Ram {
    return this.vm.ram;
  }

  /** What MigrationSource takes. */
  get source(): Pick<SourceOptions, 'ram' | 'machine' | 'log' | 'dirty' | 'sent' | 'hints'> {
    const { vm, log, dirty, sent } = this;
    const channel = this.#channel;
    return {
      ram: vm.ram,
      machine: vm,
      log,
      dirty,
      sent,
      ...(channel === undefined ? {} : { hints: { channel, pages: channel.pagesTaken } }),
    };
  }

  /** Pages that are not sent because the guest gave them away. */
  get balloonedPages(): number {
    return this.log.countBallooned();
  }

  /** The machine may leave again, or be closed. */
  async close(): Promise<void> {
    this.log.close();
    await this.#channel?.close().catch(() => {});
  }
}

async function openChannel(
  vm: Vm,
  name: ChannelName,
  dirty: SlotBitmap,
  ignoreIds: boolean | undefined,
): Promise<MachineChannel | undefined> {
  for (const way of waysOf(name, vm.config.profile)) {
    const channel = new MachineChannel(vm.deviceMigration, vm.name, way, vm.ram, dirty, ignoreIds);
    try {
      await channel.open();
      return channel;
    } catch (error) {
      if (name !== 'auto') throw error;
    }
  }
  return undefined;
}

async function openLog(vm: Vm): Promise<GuestLog> {
  const { ram, log: software, config } = vm;
  const balloon = await vm.deviceMigration.balloon(vm.name);
  const kernel = config.dirtyLog === 'kernel' ? { kernel: new KernelDirtyLog(await vm.mappings()) } : {};
  return new GuestLog({ ram, software, balloon, ...kernel });
}
