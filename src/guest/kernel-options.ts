/** What a guest kernel is booted or restored with. */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import type { GuestClock } from './clock.ts';
import type { Coverage } from './contents.ts';
import type { PageState } from './page-state.ts';

export interface GuestKernelOptions {
  readonly memory: GuestMemory;
  readonly clock?: GuestClock;
  /** Pages at the bottom of memory that are the kernel's own and never allocated. */
  readonly reservedPages?: number;
  /** First frame above the DMA32 zone, a multiple of 1024; 4 GiB unless a small guest shall have both zones. */
  readonly dma32End?: number;
  /**
   * Fills every page with this byte when it is freed (0 is Linux's init_on_free, 0xaa its page poisoning) and
   * checks it when it is allocated. With any byte but 0, boot writes all of memory, and a migration of
   * this guest must move its free pages too.
   */
  readonly poison?: number;
  /** How much of each page workloads write and check; edges unless said otherwise. */
  readonly coverage?: Coverage;
  /** Hears of every page that the guest's code writes, after the store. */
  readonly writeLog?: PageSink;
  /** Takes a line where Linux would log one. */
  readonly warn?: (message: string) => void;
  /** Looks at what pages hold that the host says are zeros; {@link GuestKernel.zeroFaults} counts those that are not. */
  readonly checkZeros?: boolean;
  /** Made beforehand for a guest of this size; see {@link PageState.backed}. */
  readonly pages?: PageState;
}

/** Its memory is one zone from the beginning on; what the host has taken reads as zeros, so that no poison stays. */
export type SharedKernelOptions = Omit<GuestKernelOptions, 'reservedPages' | 'dma32End' | 'poison'>;

/** What a resumed guest needs anew; the rest is in what was saved. */
export type GuestResumeOptions = Pick<GuestKernelOptions, 'memory' | 'clock' | 'writeLog' | 'warn' | 'pages'>;
