/**
 * Reported free pages (queues `reporting` and `hinting`): the guest keeps the pages out of its allocator until
 * their buffer is returned, so they are discarded before that, and read as zeros afterwards. Where DEVICE_INIT_REPORTED was
 * negotiated, the used length of the buffer says so.
 */
import type { PageSink } from '../memory/page.ts';
import type { DurationHistogram } from '../sys/durations.ts';
import type { DiscardTotals } from './discard-totals.ts';
import type { PageAccount } from './page-account.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { DevicePart, PartWorld } from './part.ts';
import { PromptDiscards } from './prompt-discards.ts';
import type { RunningQueue } from './running-queue.ts';

export class Reporting implements DevicePart {
  readonly roles = ['reporting', 'hinting'] as const;
  readonly counters = { reportingBuffers: 0, reportedPages: 0 };
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  readonly #prompt: PromptDiscards;
  #poisons = false;
  /** The guest has a queue for reports, or for hints that are isolated as reports are. */
  running = false;
  promised: DevicePart['promised'] = undefined;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
    this.#prompt = new PromptDiscards(world);
  }

  negotiated(features: bigint): void {
    const { poisonFeature, zeroing } = this.#world.profile;
    this.#poisons = (features & poisonFeature) !== 0n;
    this.promised = (features & zeroing.reported) === 0n ? undefined : this.#promise;
  }

  /** Hears of the pages of guest memory that were discarded, while the guest may not use them yet. */
  set observer(observer: PageSink | undefined) {
    this.#prompt.observer = observer;
  }

  /**
   * The guest counts on its free pages holding something else than zeros (PAGE_POISON with a value that is not 0):
   * discarding would change them (VIRTIO 1.4, 5.5.6.8.1).
   */
  get keepContents(): boolean {
    return this.#poisons && this.#world.config.poisonValue !== 0;
  }

  start(): void {
    this.running = true;
  }

  /** A batch that it keeps is that of a guest or a front-end that is given up: in order, it settles first. */
  stop(ring: RunningQueue): void {
    if (ring.kept) this.#prompt.forget();
    this.running = false;
  }

  reset(): void {}

  get totals(): DiscardTotals {
    return this.#accounts.reportDiscards;
  }

  /** How long those discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    return this.#accounts.reportTimes;
  }

  batchBegun(): void {
    this.#prompt.begin();
  }

  mayReturn(): boolean {
    return this.#prompt.mayReturn();
  }

  serve(ring: RunningQueue): true {
    const list = ring.readList();
    const { profile, counters } = this.#world;
    this.counters.reportingBuffers++;
    counters.listBytes += list.length;
    ring.walk.begin(profile.freePages.format, this.#reporting, this.#accounts);
    return true;
  }

  readonly #promise = (ring: RunningQueue): number =>
    this.keepContents ? 0 : this.#prompt.zeroedBytes(ring);

  promisesHold(): boolean {
    return !this.#prompt.failed;
  }

  readonly #reporting: PageSink = {
    add: (pfn, count) => {
      this.counters.reportedPages += count;
      this.#accounts.forEachPart(pfn, count, this.#discard);
    },
  };

  readonly #discard = (account: PageAccount, page: number, count: number): void => {
    if (!this.keepContents) this.#prompt.discard(account, page, count);
  };
}
