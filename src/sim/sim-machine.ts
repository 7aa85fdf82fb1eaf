/**
 * A guest, its driver and the host's device on simulated memory, time and transport, everything chosen by chance: the
 * ABI, the rings, the size of memory and of the host's pages, what the host offers and how the driver is tuned
 * (sim-plan.ts). What must be true of it is sim-checks.ts's, and what happens to it sim-history.ts's.
 */
import { HINT_ID_MIN } from '../balloon/hint-session.ts';
import { profile } from '../balloon/profiles.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import { BENCH_DISCARD_MODES } from '../device/discard-mode.ts';
import { BalloonDriver } from '../driver/balloon-driver.ts';
import { ManualScheduler } from '../driver/scheduler.ts';
import { DeviceConnection } from '../embedded/connection.ts';
import { Guest } from '../guest/guest.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import type { Random } from '../guest/random.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { defined } from '../sys/defined.ts';
import { HintWitness } from './hint-witness.ts';
import { SimBacking } from './sim-backing.ts';
import { holds, MachineChecks } from './sim-checks.ts';
import type { MachinePlan } from './sim-plan.ts';
import { SimTransport } from './sim-transport.ts';

const MIB = 2 ** 20;
const MIB_PAGES = MIB / PAGE_SIZE;
const HUGE_PAGE = 2 * MIB;

export class SimMachine {
  readonly plan: MachinePlan;
  readonly scheduler = new ManualScheduler();
  readonly checks: MachineChecks;
  readonly backings: readonly SimBacking[];
  readonly memory: GuestMemory;
  readonly guest: Guest;
  readonly driver: BalloonDriver;
  readonly transport: SimTransport;
  readonly connection: DeviceConnection;
  /** Looks at what the device takes for unused. */
  readonly hintWitness: HintWitness;
  /** Free pages of a guest that has just booted. */
  readonly bootPages: number;
  device: BalloonDevice;
  /** No back-end can be started. */
  hostDown = false;
  /** Back-ends that there were. */
  backends = 0;
  /** The host holds pages that were given away: a discard failed, or was not wished for. */
  keepsPages = false;
  /** Ends the run that the discarding thread is at. */
  #openRun: (() => void) | undefined;
  readonly #random: Random;

  constructor(plan: MachinePlan, random: Random) {
    this.plan = plan;
    this.checks = new MachineChecks(this);
    this.#random = random;
    const size = plan.sizeMiB * MIB;
    const unit = plan.hugePages ? HUGE_PAGE : PAGE_SIZE;
    const half = Math.floor(size / 2 / HUGE_PAGE) * HUGE_PAGE;
    const sizes = plan.twoRegions ? [half, size - half] : [size];
    this.backings = sizes.map(bytes => new SimBacking(bytes, unit));
    this.memory = new GuestMemory(
      this.backings.map((backing, index) => {
        const guestAddress = index === 0 ? 0 : 4 * size;
        const region = { guestAddress, userAddress: guestAddress, size: backing.size };
        backing.onDiscard = (page, count) => this.checks.checkDiscard(guestAddress / PAGE_SIZE + page, count);
        return new MemoryRegion(region, backing);
      }),
    );
    this.guest = Guest.boot({
      memory: this.memory,
      clock: this.scheduler,
      seed: random.u32(),
      writeLog: { add: (pfn, count) => this.#touched(pfn, count) },
      warn: () => {},
      checkZeros: true,
      ...defined({ poison: plan.poison }),
      ...(plan.twoZones ? { dma32End: 4 * MIB_PAGES } : {}),
    });
    this.bootPages = this.freePages;
    this.hintWitness = new HintWitness(this.kernel, what => this.checks.complain(what));
    this.device = this.#newDevice();
    this.transport = new SimTransport(this.memory, this.#hostSide());
    this.driver = new BalloonDriver({
      ...plan.tuning,
      kernel: this.kernel,
      transport: this.transport,
      scheduler: this.scheduler,
      profile: profile(plan.profile),
    });
    this.connection = new DeviceConnection({
      transport: this.transport,
      driver: this.driver,
      scheduler: this.scheduler,
      socketPath: 'simulated',
      onEvent: () => {},
    });
  }

  get kernel(): GuestKernel {
    return this.guest.kernel;
  }

  /** Free pages, wherever the allocator keeps them. */
  get freePages(): number {
    const { allocator } = this.kernel;
    return allocator.freePages + allocator.perCpuPages;
  }

  /** The back-end dies with all that it knew; the next one knows nothing but what it is started with. */
  killHost(why: string): void {
    if (!this.transport.connected) return;
    const { targetPages } = this.device;
    const { mode } = this.device.inflation;
    this.transport.lose(why);
    // With its process went the thread that discarded.
    this.#openRun = undefined;
    this.device = this.#newDevice();
    this.device.targetPages = targetPages;
    this.device.inflation.mode = mode;
  }

  /**
   * The back-end is replaced by another one, in the middle of whatever is under way: what it knows goes there as bytes. The
   * front-end and the guest notice nothing.
   */
  handOver(): string {
    if (!this.transport.connected) return 'nothing is connected';
    const { mode } = this.device.inflation;
    this.transport.handOver(() => {
      this.device = this.#newDevice();
      this.device.inflation.mode = mode;
      this.backends++;
      return this.device;
    });
    return `with ${this.device.accounts.balloonedPages} ballooned pages`;
  }

  get pendingPages(): number {
    return this.device.accounts.pendingPages + this.device.accounts.reportedPending;
  }

  /**
   * The discarding thread gives some of what is pending back. Where the device leaves that to others, it does so run by run,
   * and anything may happen between the beginning of a run and its end.
   */
  discardSome(): void {
    if (!this.plan.discardsElsewhere) {
      for (const account of this.device.accounts.all) {
        this.#noteFailure(account.pending.discardSome(account.discardUnits).failure);
      }
      return;
    }
    if (this.#openRun !== undefined) this.#endRun();
    else this.#beginRun();
    this.#resume();
  }

  /** A message waits until nothing is under way, as a vhost-user back-end's do. */
  settle(): void {
    while (!this.device.settle()) {
      if (this.#openRun === undefined) this.#beginRun();
      this.#endRun();
    }
    this.#resume();
  }

  #beginRun(): void {
    for (const { pending, reports, discardUnits } of this.device.accounts.all) {
      for (const set of reports === undefined ? [pending] : [reports, pending]) {
        const run = set.beginRun();
        if (run === undefined) continue;
        this.#openRun = () => this.#noteFailure(run.end(discardUnits));
        return;
      }
    }
  }

  #endRun(): void {
    const end = this.#openRun;
    this.#openRun = undefined;
    end?.();
  }

  /** The discarding thread has news: rings that waited for it are served some time. */
  #resume(): void {
    for (const index of this.device.resumable()) this.transport.kick(index);
  }

  #noteFailure(failure: Error | undefined): void {
    if (failure !== undefined) this.keepsPages = true;
  }

  #touched(pfn: number, count: number): void {
    const index = this.memory.regions.findIndex(region => holds(region, pfn));
    const { firstPfn } = this.memory.regions[index];
    this.backings[index].touch(pfn - firstPfn, count);
  }

  // The host ----------------------------------------------------------------------------------------------

  #hostSide(): ConstructorParameters<typeof SimTransport>[1] {
    const machine = this;
    return {
      offered: this.plan.offered,
      queueSizeMax: 256,
      get device() {
        return machine.device;
      },
      get coin() {
        return machine.#random.chance(0.5);
      },
      start: () => this.#startBackend(),
      settle: () => this.settle(),
      complain: what => this.checks.complain(what),
    };
  }

  #startBackend(): boolean {
    if (this.hostDown) return false;
    this.backends++;
    return true;
  }

  #newDevice(): BalloonDevice {
    const { offered, profile: name } = this.plan;
    const { scheduler } = this;
    const device = new BalloonDevice({
      profile: profile(name),
      features: offered,
      unusedPages: this.hintWitness,
      clock: {
        nowMs: () => scheduler.now(),
        write: (into, at) => {
          into[at] = scheduler.now();
        },
      },
      host: {
        configChanged: () => this.transport?.configChanged(),
        accountOpened: () => {},
        pendingMarked: () => {},
        badInput: reason => this.#badInput(reason),
        discardFailed: () => {
          this.keepsPages = true;
        },
        actualChanged: () => {},
        statisticsArrived: () => {},
        hintChanged: () => {},
        requestAnswered: () => {},
        ...(this.plan.discardsElsewhere ? { discardSoon: () => {} } : {}),
      },
    });
    for (const region of this.memory.regions) device.regionAdded(region);
    // It knows nothing of the sessions of the one before, as a daemon does not.
    device.hints.beginAt(HINT_ID_MIN + this.#random.below(2 ** 30));
    return device;
  }

  /** A back-end that took over may get pages back that it never had; nothing else of the driver's is nonsense. */
  #badInput(reason: string): void {
    const pages = this.device.counters.badPages;
    if (this.backends < 2 || pages === 0) this.checks.complain(`the device refuses something: ${reason}`);
  }

  /** A mode in which the host discards, by chance. */
  changeDiscardMode(): string {
    const mode = BENCH_DISCARD_MODES[this.#random.below(BENCH_DISCARD_MODES.length)];
    this.device.inflation.mode = mode;
    // Page by page is never a huge page.
    if (mode === 'none' || mode === 'per-page') this.keepsPages = true;
    return mode;
  }
}
