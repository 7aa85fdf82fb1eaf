/** One domain of libvirt's, as its guest's hypervisor: what the newest look at all domains said of it, and orders to it. */
import { noStatistics, type StatisticName } from '../balloon/statistics.ts';
import type { GuestState } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import type {
  GuestMachine,
  MachineListener,
  MachineLook,
  MachineMemory,
  MachineStatistics,
} from '../qemu/guest-machine.ts';
import type { AerostatError } from '../sys/error.ts';
import type { DomainNumbers } from '../sys/libvirt.ts';
import { type BalloonDefinition, balloonIn } from './definition.ts';
import type { LibvirtAnswers, LibvirtQuestion } from './questions.ts';

const KIB = 1024;

/** libvirt-domain.h, virDomainState: of domains that are active. */
const RUNNING = [1, 2];
const STANDING = [3, 6, 7];

/** libvirt's names of statistics, those of sizes in KiB. */
const SIZES: Readonly<Record<string, StatisticName>> = {
  'balloon.swap_in': 'swapInBytes',
  'balloon.swap_out': 'swapOutBytes',
  'balloon.unused': 'freeBytes',
  'balloon.available': 'totalBytes',
  'balloon.usable': 'availableBytes',
  'balloon.disk_caches': 'cacheBytes',
};
const COUNTS: Readonly<Record<string, StatisticName>> = {
  'balloon.major_fault': 'majorFaults',
  'balloon.minor_fault': 'minorFaults',
  'balloon.hugetlb_pgalloc': 'hugetlbAllocations',
  'balloon.hugetlb_pgfail': 'hugetlbFailures',
};

const NO_BALLOON =
  "its domain has <memballoon model='none'/>; write <memballoon model='virtio' autodeflate='on' freePageReporting='on'>";

/** What a domain needs of the libvirt that runs it. */
export interface DomainHost {
  /** Looks at all domains, unless that was done a moment ago. @throws AerostatError */
  refresh(): Promise<void>;
  ask<Name extends LibvirtQuestion['ask']>(
    question: Extract<LibvirtQuestion, { ask: Name }>,
  ): Promise<LibvirtAnswers[Name]>;
  /** The next look is a new one. */
  expire(): void;
}

export class LibvirtDomain implements GuestMachine {
  readonly path = null;
  readonly hasDefinition = true;
  readonly uuid: string;
  readonly id: number;
  readonly #host: DomainHost;
  readonly #name: string;
  #numbers: DomainNumbers['numbers'];
  #definition: BalloonDefinition;
  #listener: MachineListener | undefined;
  #lost: AerostatError | null = null;

  constructor(host: DomainHost, { name, uuid, id, numbers }: DomainNumbers, xml: string) {
    this.#host = host;
    this.#name = name;
    this.uuid = uuid;
    this.id = id;
    this.#numbers = numbers;
    this.#definition = balloonIn(xml);
  }

  get connected(): boolean {
    return this.#lost === null;
  }

  listen(listener: MachineListener): void {
    this.#listener = listener;
    listener.connection(null);
  }

  /** What a look at all domains said of this one. */
  update(numbers: DomainNumbers['numbers']): void {
    const before = { state: this.#state, left: this.#numbers['balloon.current'] };
    const wasLost = this.#lost !== null;
    this.#lost = null;
    this.#numbers = numbers;
    if (wasLost) this.#listener?.connection(null);
    if (numbers['balloon.current'] !== before.left) {
      this.#listener?.balloon((numbers['balloon.current'] ?? 0) * KIB);
    }
    if (this.#state !== before.state) this.#listener?.state();
  }

  /** libvirt told of its balloon. */
  balloonChanged(kib: number): void {
    this.update({ ...this.#numbers, 'balloon.current': kib });
  }

  /** libvirt told that its guest began anew. */
  wasReset(): void {
    this.#listener?.reset();
  }

  /** libvirt cannot be asked any more. */
  lose(error: AerostatError): void {
    const wasLost = this.#lost !== null;
    this.#lost = error;
    if (!wasLost) this.#listener?.connection(error);
  }

  async look(): Promise<MachineLook> {
    const memory = await this.memory();
    const { hasBalloon, features } = this.#definition;
    return {
      ...memory,
      hasBalloon,
      state: hasBalloon ? this.#state : 'waiting',
      features: hasBalloon ? features : null,
      // libvirt tells what its process holds, which is more than the guest's memory.
      residentBytes: null,
      trouble: hasBalloon ? undefined : NO_BALLOON,
    };
  }

  async memory(): Promise<MachineMemory> {
    await this.#host.refresh();
    const left = this.#numbers['balloon.current'];
    return {
      memoryBytes: (this.#numbers['balloon.maximum'] ?? 0) * KIB,
      leftBytes: left === undefined || !this.#definition.hasBalloon ? null : left * KIB,
    };
  }

  async state(): Promise<GuestState | null> {
    await this.#host.refresh();
    return this.#state;
  }

  async expectBalloon(): Promise<void> {
    if (!this.#definition.hasBalloon)
      throw new GuestStateError(`${this.#name} has no balloon: ${NO_BALLOON}`);
  }

  async statistics(): Promise<MachineStatistics> {
    await this.expectBalloon();
    await this.#host.refresh();
    const numbers = this.#numbers;
    const statistics = noStatistics();
    for (const [key, name] of Object.entries(SIZES)) {
      if (numbers[key] !== undefined) statistics[name] = numbers[key] * KIB;
    }
    for (const [key, name] of Object.entries(COUNTS)) {
      if (numbers[key] !== undefined) statistics[name] = numbers[key];
    }
    const updated = numbers['balloon.last-update'] ?? 0;
    return { updatedMs: updated === 0 ? null : updated * 1000, statistics };
  }

  async interval(): Promise<number> {
    await this.expectBalloon();
    this.#definition = balloonIn(await this.#host.ask({ ask: 'definition', uuid: this.uuid }));
    return this.#definition.statisticsPeriod;
  }

  async setInterval(seconds: number, persist = false): Promise<void> {
    await this.#host.ask({ ask: 'setStatisticsPeriod', uuid: this.uuid, seconds, persist });
    this.#host.expire();
  }

  async setLeft(bytes: number, persist = false): Promise<void> {
    await this.#host.ask({ ask: 'setMemory', uuid: this.uuid, kib: Math.floor(bytes / KIB), persist });
    this.#host.expire();
  }

  close(): void {
    this.#listener = undefined;
  }

  /** Whether the guest's driver is at work is known only by its statistics. */
  get #state(): GuestState | null {
    const state = this.#numbers['state.state'];
    if (STANDING.includes(state)) return 'paused';
    return RUNNING.includes(state) && (this.#numbers['balloon.last-update'] ?? 0) > 0 ? 'running' : null;
  }
}
