/** A place for a machine that comes from elsewhere: memory first, then its states, then it goes on. */

import { checkSize } from '../embedded/embedded-guest.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { DestinationMachine, SavedState } from '../migration/machine.ts';
import type { Ram } from '../migration/ram.ts';
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
  #vm: Vm | undefined;

  constructor(options: VmPlaceOptions = {}) {
    this.#options = options;
  }

  /** The memory, once it was made. */
  get ram(): Ram {
    return this.vm.ram;
  }

  /** The machine, empty until its states were read, and running when the migration is over. */
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
    const memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: region.size }],
      adviseHugePages,
      ...(hugePageSize === undefined ? {} : { hugePageSize }),
    });
    // Its threads start while the pages arrive.
    this.#vm = await Vm.prepare({ ...this.#options, memory, adviseHugePages });
  }

  async load(states: readonly SavedState[]): Promise<void> {
    const [machine, guest, driver, device] = STATES.map(name => {
      const found = states.find(state => state.name === name);
      if (found === undefined) throw new VmStateError(`its state ${name} did not come`);
      return found.bytes;
    });
    if (states.length > STATES.length) {
      throw new VmStateError(`${states.length} states; ours have ${STATES.length}`);
    }
    const config = decodeConfig(machine);
    await this.vm.begin({ config, boot: {}, targetBytes: 0, saved: { guest, driver, device } });
  }

  async run(): Promise<void> {
    await this.vm.goOn();
  }

  async abandon(): Promise<void> {
    await this.#vm?.close();
  }
}
