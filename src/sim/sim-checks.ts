/**
 * What must be true of a simulated machine: at any moment, at each discard, and when nothing is under way. It looks at both
 * sides and changes nothing.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { BalloonDriver } from '../driver/balloon-driver.ts';
import type { Guest } from '../guest/guest.ts';
import { KIND_ALLOCATED, KIND_ISOLATED, KIND_MASK } from '../guest/page-state.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import type { SimBacking } from './sim-backing.ts';
import type { SimTransport } from './sim-transport.ts';

/** Something that must be true was not. */
export class ViolationError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_SIM_VIOLATION', message);
  }
}

interface CheckedMachine {
  readonly guest: Guest;
  readonly driver: BalloonDriver;
  readonly device: BalloonDevice;
  readonly transport: SimTransport;
  readonly backings: readonly SimBacking[];
  /** The host holds pages that were given away: a discard failed, or was not wished for. */
  readonly keepsPages: boolean;
}

export class MachineChecks {
  readonly #machine: CheckedMachine;
  #violation: string | undefined;

  constructor(machine: CheckedMachine) {
    this.#machine = machine;
  }

  /** At any moment. @throws ViolationError, InvariantError, ContentError */
  check(): void {
    if (this.#violation !== undefined) throw new ViolationError(this.#violation);
    const { driver, guest } = this.#machine;
    guest.kernel.checkInvariants();
    demand(guest.kernel.events.poisonFaults === 0, 'a free page does not hold what the guest filled it with');
    demand(guest.kernel.zeroFaults === 0, 'a free page is not zeros, as the host promised');
    demand(driver.state !== 'broken', `the driver gave up: ${driver.failure?.message}`);
    this.#checkHeld();
    this.#checkAccount();
  }

  /** When nothing is under way: both sides agree on every page, and the host holds nothing that it need not. */
  checkAtRest(): void {
    this.check();
    const { driver, device, guest, keepsPages } = this.#machine;
    guest.verify();
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
    if (!keepsPages) this.#checkResident();
  }

  /** Notes what is wrong where it cannot be thrown. */
  complain(what: string): void {
    this.#violation ??= what;
  }

  /** What the driver says that it holds is what the allocator says that the balloon owns. */
  #checkHeld(): void {
    const { driver, guest } = this.#machine;
    const { allocator } = guest.kernel;
    let owned = 0;
    const id = allocator.owners.names.indexOf('balloon');
    if (id > 0) {
      allocator.forEachOwned(id, (_, order) => {
        owned += 1 << order;
      });
    }
    demand(owned === driver.heldPages, `the balloon owns ${owned} pages and counts ${driver.heldPages}`);
  }

  /** The host has no page in its account that the guest may use. */
  #checkAccount(): void {
    // Whether it is still this guest's account shows when a ring starts; until then nothing is done by it.
    if (this.#machine.transport.undecided) return;
    for (const { region, ballooned, balloonedPages, unitPages, incompletePages } of this.#machine.device
      .accounts.all) {
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

  /** The host discards these pages. */
  checkDiscard(pfn: number, count: number): void {
    try {
      this.#demandAway(pfn, count, true, 'is discarded');
    } catch (error) {
      // The discarding code takes an error for a failure of the host's.
      this.complain((error as Error).message);
    }
  }

  /** Every page of a run is the balloon's, or, where that counts, isolated while it is reported. */
  #demandAway(pfn: number, count: number, mayBeReported: boolean, what: string): void {
    const { allocator, pages } = this.#machine.guest.kernel;
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
    const { pages } = this.#machine.guest.kernel;
    for (let order = 0; ; order++) {
      const start = page - (page % 2 ** order);
      if (pages.state[start] !== 0 || order === 10) return start;
    }
  }

  #checkResident(): void {
    for (const [index, { region, ballooned, unitPages }] of this.#machine.device.accounts.all.entries()) {
      const { resident } = this.#machine.backings[index];
      for (let page = 0; page < region.pageCount; page += unitPages) {
        if (ballooned.countIn(page, unitPages) < unitPages) continue;
        const held = resident.countIn(page, unitPages);
        demand(held === 0, `the host holds ballooned frame ${region.firstPfn + page}`);
      }
    }
  }
}

export const holds = ({ firstPfn, pageCount }: MemoryRegion, pfn: number): boolean =>
  pfn >= firstPfn && pfn < firstPfn + pageCount;

function demand(condition: boolean, complaint: string): asserts condition {
  if (!condition) throw new ViolationError(complaint);
}
