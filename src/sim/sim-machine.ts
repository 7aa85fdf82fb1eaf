/**
 * A guest, its driver and the host's device on simulated memory, time and transport, everything chosen by chance: the
 * ABI, the rings, the size of memory and of the host's pages, what the host offers and how the driver is tuned. Also
 * what must be true of the machine at any moment, and what when it is at rest. What happens to it is sim-history.ts's.
 */
import { HINT_ID_MIN } from '../balloon/hint-session.ts';
import { PROFILE_NAMES, type ProfileName, profile } from '../balloon/profiles.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import { BENCH_DISCARD_MODES } from '../device/inflation.ts';
import { BalloonDriver } from '../driver/balloon-driver.ts';
import type { DriverTuning } from '../driver/options.ts';
import { ManualScheduler } from '../driver/scheduler.ts';
import { DeviceConnection } from '../embedded/connection.ts';
import { Guest } from '../guest/guest.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import { KIND_ALLOCATED, KIND_ISOLATED, KIND_MASK } from '../guest/page-state.ts';
import type { Random } from '../guest/random.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';
import {
  IN_ORDER,
  RING_EVENT_IDX,
  RING_FEATURES,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../virtio/features.ts';
import { HintWitness } from './hint-witness.ts';
import { SimBacking } from './sim-backing.ts';
import { SimTransport } from './sim-transport.ts';

const MIB = 2 ** 20;
const MIB_PAGES = MIB / PAGE_SIZE;
const HUGE_PAGE = 2 * MIB;

/** Something that must be true was not. */
export class ViolationError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_SIM_VIOLATION', message);
  }
}

/** What chance chose for a machine. */
export interface MachinePlan {
  /** Other threads discard, and nothing of the device waits for them. */
  readonly discardsElsewhere: boolean;
  readonly profile: ProfileName;
  readonly sizeMiB: number;
  /** Guest memory is in two regions, with a gap between them. */
  readonly twoRegions: boolean;
  readonly hugePages: boolean;
  readonly poison: number | undefined;
  /** The guest's memory is in two zones. */
  readonly twoZones: boolean;
  readonly offered: bigint;
  readonly tuning: Partial<DriverTuning>;
}

export function planMachine(random: Random, only?: ProfileName): MachinePlan {
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)];
  const chosen = pick(PROFILE_NAMES);
  const name = only ?? chosen;
  const abi = profile(name);
  // One feature is often missing, and the rings' are any.
  const missing = random.chance(0.5) ? pick(abi.features).mask : 0n;
  const ringFeatures = [RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED, IN_ORDER].reduce(
    (mask, feature) => (random.chance(0.5) ? mask | feature : mask),
    0n,
  );
  return {
    profile: name,
    sizeMiB: 8 * random.between(1, 4),
    twoRegions: random.chance(0.25),
    hugePages: random.chance(0.25),
    poison: random.chance(0.2) ? pick([0, 0xaa]) : undefined,
    twoZones: random.chance(0.25),
    offered: (abi.featureMask & ~missing) | VERSION_1 | RING_FEATURES,
    tuning: {
      ringFeatures,
      queueSizeMax: pick([8, 32, 256]),
      pfnsPerBuffer: pick([16, 256]),
      depth: pick([null, 1, 3]),
      sort: pick([null, true, false]),
      orderMax: pick([null, 0, 4]),
      oomPages: pick([16, 256]),
      reportingPipelined: random.chance(0.5),
    },
    discardsElsewhere: random.chance(0.5),
  };
}

export class SimMachine {
  readonly plan: MachinePlan;
  readonly scheduler = new ManualScheduler();
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
  #violation: string | undefined;
  /** Ends the run that the discarding thread is at. */
  #openRun: (() => void) | undefined;
  readonly #random: Random;

  constructor(plan: MachinePlan, random: Random) {
    this.plan = plan;
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
        backing.onDiscard = (page, count) => this.#checkDiscard(guestAddress / PAGE_SIZE + page, count);
        return new MemoryRegion(region, backing);
      }),
    );
    this.guest = Guest.boot({
      memory: this.memory,
      clock: this.scheduler,
      seed: random.u32(),
      writeLog: { add: (pfn, count) => this.#touched(pfn, count) },
      warn: () => {},
      ...(plan.poison === undefined ? {} : { poison: plan.poison }),
      ...(plan.twoZones ? { dma32End: 4 * MIB_PAGES } : {}),
    });
    this.bootPages = this.freePages;
    this.hintWitness = new HintWitness(this.kernel, what => this.complain(what));
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

  // What must be true -------------------------------------------------------------------------------------

  /** At any moment. @throws ViolationError, InvariantError, ContentError */
  check(): void {
    if (this.#violation !== undefined) throw new ViolationError(this.#violation);
    const { driver, kernel } = this;
    kernel.checkInvariants();
    demand(kernel.events.poisonFaults === 0, 'a free page does not hold what the guest filled it with');
    demand(driver.state !== 'broken', `the driver gave up: ${driver.failure?.message}`);
    this.#checkHeld();
    this.#checkAccount();
  }

  /** When nothing is under way: both sides agree on every page, and the host holds nothing that it need not. */
  checkAtRest(): void {
    this.check();
    this.guest.verify();
    const { driver, device } = this;
    const { accounts } = device;
    demand(driver.state === 'running', `the driver is ${driver.state}: ${driver.failure?.message}`);
    const pages = driver.actualPages;
    demand(driver.heldPages === pages, `${driver.heldPages} pages are held, ${pages} in the balloon`);
    demand(
      accounts.balloonedPages === pages,
      `the host's account has ${accounts.balloonedPages}, not ${pages}`,
    );
    demand(device.actualPages === pages, `the host was told of ${device.actualPages} pages, not ${pages}`);
    demand(accounts.pendingPages === 0, `${accounts.pendingPages} pages are pending`);
    driver.forEachBlock((pfn, order) => {
      const account = accounts.all.find(({ region }) => holds(region, pfn));
      const known = account?.ballooned.countIn(pfn - account.region.firstPfn, 1 << order) ?? 0;
      demand(known === 1 << order, `the host knows ${known} of the ${1 << order} pages at frame ${pfn}`);
    });
    if (!this.keepsPages) this.#checkResident();
  }

  /** Notes what is wrong where it cannot be thrown. */
  complain(what: string): void {
    this.#violation ??= what;
  }

  /** What the driver says that it holds is what the allocator says that the balloon owns. */
  #checkHeld(): void {
    const { kernel, driver } = this;
    let owned = 0;
    const id = kernel.allocator.owners.names.indexOf('balloon');
    if (id > 0) {
      kernel.allocator.forEachOwned(id, (_, order) => {
        owned += 1 << order;
      });
    }
    demand(owned === driver.heldPages, `the balloon owns ${owned} pages and counts ${driver.heldPages}`);
  }

  /** The host has no page in its account that the guest may use. */
  #checkAccount(): void {
    // Whether it is still this guest's account shows when a ring starts; until then nothing is done by it.
    if (this.transport.undecided) return;
    for (const { region, ballooned, balloonedPages, unitPages, incompletePages } of this.device.accounts
      .all) {
      let pages = 0;
      ballooned.forEachRun((start, count) => {
        pages += count;
        this.#demandAway(region.firstPfn + start, count, false, 'is in the account');
      });
      demand(pages === balloonedPages, `an account of ${pages} pages counts ${balloonedPages}`);
      let incomplete = 0;
      for (let page = 0; unitPages > 1 && page < region.pageCount; page += unitPages) {
        incomplete += ballooned.countIn(page, unitPages) % unitPages;
      }
      demand(
        incomplete === incompletePages,
        `${incomplete} pages wait for their huge pages, and ${incompletePages} are counted`,
      );
    }
  }

  #checkDiscard(pfn: number, count: number): void {
    try {
      this.#demandAway(pfn, count, true, 'is discarded');
    } catch (error) {
      // The discarding code takes an error for a failure of the host's.
      this.complain((error as Error).message);
    }
  }

  /** Every page of a run is the balloon's, or, where that counts, isolated while it is reported. */
  #demandAway(pfn: number, count: number, mayBeReported: boolean, what: string): void {
    const { allocator, pages } = this.kernel;
    for (let page = pfn; page < pfn + count; ) {
      const start = this.#blockOf(page);
      const kind = pages.state[start] & KIND_MASK;
      const balloons = kind === KIND_ALLOCATED && allocator.ownerOf(start)?.name === 'balloon';
      const reported = mayBeReported && kind === KIND_ISOLATED;
      if (!balloons && !reported) throw new ViolationError(`frame ${page} ${what} and is the guest's`);
      page = start + 2 ** allocator.orderOf(start);
    }
  }

  /** First frame of the block that a page lies in; inner pages of a block have no state of their own. */
  #blockOf(page: number): number {
    const { pages } = this.kernel;
    for (let order = 0; ; order++) {
      const start = page - (page % 2 ** order);
      if (pages.state[start] !== 0 || order === 10) return start;
    }
  }

  #checkResident(): void {
    for (const [index, { region, ballooned, unitPages }] of this.device.accounts.all.entries()) {
      const { resident } = this.backings[index];
      for (let page = 0; page < region.pageCount; page += unitPages) {
        if (ballooned.countIn(page, unitPages) < unitPages) continue;
        const held = resident.countIn(page, unitPages);
        demand(held === 0, `the host holds ballooned frame ${region.firstPfn + page}`);
      }
    }
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
      complain: what => this.complain(what),
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
    if (this.backends < 2 || pages === 0) this.complain(`the device refuses something: ${reason}`);
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

const holds = ({ firstPfn, pageCount }: MemoryRegion, pfn: number): boolean =>
  pfn >= firstPfn && pfn < firstPfn + pageCount;

function demand(condition: boolean, complaint: string): asserts condition {
  if (!condition) throw new ViolationError(complaint);
}
