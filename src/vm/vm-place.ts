/** A place for a machine that comes from elsewhere: memory first, then its states, then it goes on. */

import { checkSize } from '../embedded/embedded-guest.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { DestinationMachine, SavedState } from '../migration/machine.ts';
import type { Ram } from '../migration/ram.ts';
import type { RegionShape } from '../migration/stream/messages.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { VmError, VmStateError } from './errors.ts';
import { openRehearsedStage } from './rehearsal.ts';
import type { Stage } from './stage.ts';
import { Vm, type VmWorld } from './vm.ts';

export interface VmPlaceOptions extends VmWorld {
  readonly adviseHugePages?: boolean;
  readonly hugePageSize?: number;
}

export class VmPlace implements DestinationMachine {
  readonly #options: VmPlaceOptions;
  readonly #stage: Stage;
  #vm: Vm | undefined;

  private constructor(stage: Stage, options: VmPlaceOptions) {
    this.#stage = stage;
    this.#options = options;
  }

  /** Starts the threads, and rehearses in them; takes half a second. */
  static async open(options: VmPlaceOptions = {}): Promise<VmPlace> {
    return new VmPlace(await openRehearsedStage(options.log), options);
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
    this.#vm = Vm.on(this.#stage, { ...this.#options, memory, adviseHugePages });
  }

  load(states: readonly SavedState[]): Promise<void> {
    return this.vm.load(states);
  }

  run(): Promise<void> {
    return this.vm.goOn();
  }

  abandon(): Promise<void> {
    return this.close();
  }

  /** The place is given up, with the machine that may be there. */
  async close(): Promise<void> {
    await (this.#vm ?? this.#stage).close();
  }
}
