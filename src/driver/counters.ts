/**
 * What the driver counts, and where its time goes. Every figure only ever rises while the driver lives. Times are
 * milliseconds on the driver's clock; on a clock that stands still they are 0.
 */
export class DriverCounters {
  /** Buffers that were added to inflate and deflate queues, and the bytes of the page lists in them. */
  inflateBuffers = 0;
  deflateBuffers = 0;
  listBytes = 0;
  /** Runs of pages that those lists named. */
  runs = 0;
  /** Pages whose inflation, or deflation, the host has acknowledged. */
  inflatedPages = 0;
  deflatedPages = 0;
  /** Kicks on any queue, and interrupts from any. */
  kicks = 0;
  interrupts = 0;
  configReads = 0;
  actualWrites = 0;

  /** Taking pages from the guest's allocator, and giving them back to it. */
  allocatingMs = 0;
  freeingMs = 0;
  /** Sorting, writing page lists, and putting them into the ring. */
  encodingMs = 0;
  /** Until the host returned buffers: in kicks, and with nothing else to do. */
  waitingMs = 0;

  /** Times that the guest had no page for the balloon. */
  allocationFailures = 0;
  /** Calls of the out-of-memory notifier that got something, and the pages that they asked back. */
  oomReleases = 0;
  oomPages = 0;
  /** Ballooned pages that compaction moved. */
  movedPages = 0;

  statisticsBuffers = 0;
  /** Hint sessions that were answered; pages hinted, and those of them that went back early for want of memory. */
  hintSessions = 0;
  /** Pages of which the host said that they are zeros. */
  zeroedPages = 0;
  hintedPages = 0;
  hintedPagesReleased = 0;
  /** Requests that were answered, those of an unknown kind that were not, and the pages in the answers. */
  requests = 0;
  unknownRequests = 0;
  answeredPages = 0;
  /** Free blocks that were reported (queues `reporting` and `hinting`): buffers, and the pages in them. */
  reports = 0;
  reportedPages = 0;
}
