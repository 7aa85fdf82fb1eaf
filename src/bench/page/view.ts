/** What `bench page` wants of a viewer of the page: a real browser, or a client that asks for the same. */

export interface Place {
  readonly origin: string;
  readonly token: string;
  /** The guest that is looked at closely; all of them at a glance if there is none. */
  readonly guest?: string;
}

/** One look of the page at the daemon. */
export interface Update {
  /** From the first question to the last answer. */
  readonly elapsedMs: number;
  readonly bytes: number;
}

export interface Drawing {
  readonly framesPerSecond: number;
  /** Of all frames, those that came more than half a frame late. */
  readonly lateShare: number;
  readonly longestFrameMs: number;
  /** Processor time of the page's own thread (scripts, styles, layout), of all time. */
  readonly busyShare: number;
  /** Each time that the map was drawn. */
  readonly mapDrawsMs: readonly number[];
}

export interface Watched {
  readonly elapsedMs: number;
  readonly updates: readonly Update[];
  /** Null where nothing is drawn. */
  readonly drawing: Drawing | null;
}

export interface WatchedPage {
  /** What happened in so many milliseconds. */
  watch(ms: number, signal: AbortSignal): Promise<Watched>;
  /** The viewer has left. */
  leave(): Promise<void>;
}

export interface Onlooker {
  readonly name: string;
  /** Resolves when the page shows what it is to show. */
  look(place: Place): Promise<WatchedPage>;
  close(): Promise<void>;
}
