/** A place for a machine that comes from elsewhere: memory first, then its states, then it goes on. */

import { checkSize } from '../embedded/embedded-guest.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { DestinationMachine, SavedState } from '../migration/machine.ts';
import { Ram } from '../migration/ram.ts';
import type { RegionShape } from '../migration/stream/messages.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { decodeConfig } from './config.ts';
import { VmError, VmStateError } from './errors.ts';
import { Vm, type VmWorld } from './vm.ts';

export interface VmPlaceOptions extends VmWorld {
  readonly adviseHugePages?: boolean;
  readonly hugePageSize?: number;
}

const STATES = ['machine', 'guest', 'driver', 'device'] as const;

export class VmPlace implements DestinationMachine {
  readonly #options: VmPlaceOptions;
  #memory: GuestMemory | undefined;
  #ram: Ram | undefined;
  #vm: Vm | undefined;

  constructor(options: VmPlaceOptions = {}) {
    this.#options = options;
  }

  /** The memory, once it was made. */
  get ram(): Ram {
    if (this.#ram === undefined) throw new VmError('no memory was made for a machine here');
    return this.#ram;
  }

  /** The machine, once its states were read; it is running when the migration is over. */
  get vm(): Vm {
    if (this.#vm === undefined) throw new VmError('no machine has arrived here');
    return this.#vm;
  }

  async createMemory(regions: readonly RegionShape[]): Promise<void> {
    const [region] = regions;
    const { hugePageSize, adviseHugePages = false } = this.#options;
    if (regions.length !== 1 || region.guestAddress !== 0) {
      throw new VmStateError(`${regions.length} regions of memory; ours have one, at address 0`);
    }
    checkSize(region.size, hugePageSize ?? PAGE_SIZE);
    this.#memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: region.size }],
      adviseHugePages,
      ...(hugePageSize === undefined ? {} : { hugePageSize }),
    });
    this.#ram = new Ram(this.#memory);
  }

  async load(states: readonly SavedState[]): Promise<void> {
    const memory = this.#memory;
    if (memory === undefined) throw new VmError('states came before there was memory');
    const [machine, guest, driver, device] = STATES.map(name => {
      const found = states.find(state => state.name === name);
      if (found === undefined) throw new VmStateError(`its state ${name} did not come`);
      return found.bytes;
    });
    if (states.length > STATES.length)
      throw new VmStateError(`${states.length} states; ours have ${STATES.length}`);
    const { name, log, adviseHugePages = false } = this.#options;
    const config = decodeConfig(machine);
    // From here on the memory is the machine's.
    this.#memory = undefined;
    this.#vm = await Vm.assemble({
      ...(name === undefined ? {} : { name }),
      ...(log === undefined ? {} : { log }),
      memory,
      config,
      targetBytes: 0,
      adviseHugePages,
      boot: {},
      saved: { guest, driver, device },
    });
  }

  async run(): Promise<void> {
    await this.vm.goOn();
  }

  async abandon(): Promise<void> {
    await this.#vm?.close();
    this.#memory?.close();
    this.#memory = undefined;
  }
}
