/** A machine that is awaited from elsewhere: its memory comes first, then its states, and then it runs. */

import { checkSize } from '../embedded/machine.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { DestinationMachine, LatePages, SavedState } from '../migration/machine.ts';
import type { NoteStep } from '../migration/pause.ts';
import type { Ram } from '../migration/ram.ts';
import type { RegionShape } from '../migration/stream/messages.ts';
import { defined } from '../sys/defined.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { VmError, VmStateError } from './errors.ts';
import { LateMemory } from './late-memory.ts';
import type { VmWorld } from './options.ts';
import { Vm } from './vm.ts';
import type { VmThreads } from './vm-threads.ts';
import { openWarmThreads, type WarmUp } from './warm-up.ts';

export interface IncomingVmOptions extends VmWorld {
  readonly adviseHugePages?: boolean;
  readonly hugePageSize?: number;
  /** Threads to live in. Default: new ones, which are warmed up. */
  readonly threads?: VmThreads;
  /** How those are warmed up. Default: `thorough`. */
  readonly warmUp?: WarmUp;
}

export class IncomingVm implements DestinationMachine {
  readonly #options: IncomingVmOptions;
  readonly #threads: VmThreads;
  #vm: Vm | undefined;
  #late: LateMemory | undefined;

  private constructor(threads: VmThreads, options: IncomingVmOptions) {
    this.#threads = threads;
    this.#options = options;
  }

  /** Starts the threads and warms them up, unless it is given some; takes up to half a second. */
  static async open(options: IncomingVmOptions = {}): Promise<IncomingVm> {
    return new IncomingVm(options.threads ?? (await openWarmThreads(options.log, options.warmUp)), options);
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

  async createMemory(regions: readonly RegionShape[], late = false): Promise<void> {
    const [region] = regions;
    const { hugePageSize, adviseHugePages = false } = this.#options;
    if (regions.length !== 1 || region.guestAddress !== 0) {
      throw new VmStateError(`${regions.length} regions of memory; ours have one, at address 0`);
    }
    checkSize(region.size, hugePageSize ?? PAGE_SIZE);
    const memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: region.size }],
      adviseHugePages,
      ...defined({ hugePageSize }),
    });
    this.#late = late ? await LateMemory.over(memory) : undefined;
    this.#vm = this.#vmOn(memory);
  }

  #vmOn(memory: GuestMemory): Vm {
    const { adviseHugePages = false } = this.#options;
    return Vm.on(this.#threads, {
      ...this.#options,
      memory,
      adviseHugePages,
      ...defined({ late: this.#late }),
    });
  }

  get latePages(): LatePages | undefined {
    return this.#late;
  }

  prepare(states: readonly SavedState[], note?: NoteStep): Promise<void> {
    return this.vm.prepare(states, note);
  }

  expectedRunMs(): Promise<number | undefined> {
    return this.vm.expectedRunMs();
  }

  load(states: readonly SavedState[], note?: NoteStep): Promise<void> {
    return this.vm.load(states, note);
  }

  /** The machine that was loaded is taken down; another one waits in the same memory, on the same threads. */
  async unload(): Promise<void> {
    const { memory } = this.ram;
    await this.vm.leave();
    this.#vm = this.#vmOn(memory);
  }

  run(note?: NoteStep): Promise<void> {
    return this.vm.resumeLoaded(note);
  }

  abandon(): Promise<void> {
    return this.close();
  }

  /** The place is given up, with the machine that may be there. */
  async close(): Promise<void> {
    await (this.#vm ?? this.#threads).close();
  }
}
