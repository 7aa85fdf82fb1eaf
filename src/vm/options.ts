/** What a machine is started with, or put together from. */
import { DEFAULT_PROFILE, type ProfileName } from '../balloon/profiles.ts';
import type { DiscardMode } from '../control/contract.ts';
import type { DriverTuning } from '../driver/options.ts';
import type { EmbeddedGuestOptions, RingKind } from '../embedded/options.ts';
import type { WorkloadKind } from '../guest/workloads/workload.ts';
import type { LogRecord } from '../hosting/options.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { defined } from '../sys/defined.ts';
import type { DirtyLogKind, VmConfig } from './config.ts';
import type { LateMemory } from './late-memory.ts';
import type { VmThreads } from './vm-threads.ts';

export interface VmWorld {
  /** What the device is called to its control; `vm` unless said otherwise. */
  readonly name?: string;
  /** Takes a line of the device's or the guest's log. */
  readonly log?: (record: LogRecord) => void;
}

export interface VmOptions extends VmWorld {
  /** A multiple of the page size, and of the huge pages' where there are any. */
  readonly memoryBytes: number;
  readonly profile?: ProfileName;
  readonly rings?: RingKind;
  readonly seed?: number;
  readonly coverage?: NonNullable<EmbeddedGuestOptions['coverage']>;
  readonly poison?: number;
  readonly driver?: Partial<DriverTuning>;
  /** Pages that workloads may use in a second. */
  readonly pagesPerSecondMax?: number;
  /** What runs from the beginning; a quarter of memory each unless said otherwise. */
  readonly workloads?: readonly { readonly kind: WorkloadKind; readonly bytes?: number }[];
  /** The balloon's target. */
  readonly targetBytes?: number;
  readonly discard?: DiscardMode;
  /** Features of the profile that the device does not offer. */
  readonly without?: readonly string[];
  /** `auto` is `software`, which costs nothing to arm: every store in this process passes by where it is kept. */
  readonly dirtyLog?: DirtyLogKind;
  readonly adviseHugePages?: boolean;
  readonly hugePageSize?: number;
  /** Threads that are there already, without a machine. The new machine owns them, also when it cannot be started. */
  readonly threads?: VmThreads;
}

/** What a machine is put together from. */
export interface VmParts extends VmWorld {
  /** One region at address 0, on a file. The machine's until it has left. */
  readonly memory: GuestMemory;
  readonly adviseHugePages: boolean;
  /** Pages of it may come while the guest runs. The machine's, as the memory is. */
  readonly late?: LateMemory;
}

export type BootOptions = Pick<EmbeddedGuestOptions, 'seed' | 'coverage' | 'poison'>;

export const DEFAULT_NAME = 'vm';

/** What the machine is wherever it goes. */
export function configOf(options: VmOptions): VmConfig {
  return {
    profile: options.profile ?? DEFAULT_PROFILE,
    rings: options.rings ?? 'split',
    without: [...(options.without ?? [])],
    discard: options.discard ?? 'auto',
    dirtyLog: options.dirtyLog ?? 'auto',
    pagesPerSecondMax: options.pagesPerSecondMax ?? null,
    tuning: options.driver ?? {},
  };
}

/** What only a guest that boots takes. */
export function bootOf({ seed, coverage, poison }: VmOptions): BootOptions {
  return {
    ...defined({ seed, coverage, poison }),
  };
}

/** What the guest's thread takes of it. */
export function threadPartsOf(
  { profile, rings, pagesPerSecondMax, tuning, dirtyLog }: VmConfig,
  boot: BootOptions,
) {
  const limited = pagesPerSecondMax === null ? {} : { pagesPerSecondMax };
  return {
    options: { ...boot, profile, rings, driver: tuning, ...limited },
    /** The guest keeps the log, not the kernel. */
    keepsLog: dirtyLog !== 'kernel',
  };
}
