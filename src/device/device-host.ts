/** What the device needs of its host: an ear for what happens, and threads that discard. */
import type { PageAccount } from './page-account.ts';

/** Where the device reaches out. */
export interface DeviceHost {
  /** The driver should read the configuration space. */
  configChanged(): void;
  /** A region's account exists: the threads that discard may begin to drain it. */
  accountOpened(account: PageAccount): void;
  /** Pages were marked as pending, after their buffer was returned. */
  pendingMarked(): void;
  /**
   * There are threads that discard, and they should do so at once: buffers or the end of a drain wait for it. Where it is
   * absent the device discards in its own thread, and waits for no other.
   */
  readonly discardSoon?: () => void;
  /** A region's set of reported pages exists, to be drained as {@link accountOpened}'s. */
  readonly reportsOpened?: (account: PageAccount) => void;
  /** `BalloonDevice.shared` has more to do and wants to be called soon, after others; it goes on at once where absent. */
  readonly stepSoon?: () => void;
  /** The guest wrote nonsense; it is counted already. */
  badInput(reason: string): void;
  /** A discard failed; it is counted already. */
  discardFailed(error: Error): void;
  /** The guest says that its balloon holds this many pages. */
  actualChanged(pages: number): void;
  /** A sample of statistics arrived. */
  statisticsArrived(): void;
  /** The hint session went on to another phase. */
  hintChanged(): void;
  /** The guest answered a request to the end, or is done with it without an answer. */
  requestAnswered(): void;
}
