/**
 * What the page knows, kept fresh: asks the daemon once a second while the tab is visible, more often for a guest that
 * moves, and keeps asking when it does not answer. Draws nothing.
 */
import { isMoving } from '../../src/control/judgement.ts';
import { type MemoryUse, MemoryUseTracker } from '../../src/control/memory-use.ts';
import { ALL_EVERY, DAEMON_EVERY, FAST_TICK_MS, TICK_MS } from '../../src/server/page-pace.ts';
import {
  api,
  type DaemonStatus,
  eventReader,
  type GuestEvent,
  type GuestStatus,
  type HostStatus,
  type MigrationAnswer,
  RefusalError,
  type StatisticsSample,
  Unreachable,
} from './api.ts';
import { History } from './history.ts';
import { Store } from './store.ts';

/** A hidden tab. */
const HIDDEN_TICK_MS = 5000;
/** A guest that refused to be asked is left alone for so long. */
const REFUSED_MS = 10_000;
const EVENTS_KEPT_MAX = 500;

/** `locked`: the daemon needs a token. */
type Connection = 'connecting' | 'live' | 'lost' | 'locked';

export interface GuestView {
  readonly status: GuestStatus;
  readonly sample: StatisticsSample | undefined;
  /** When the guest took the sample, by this machine's clock. */
  readonly sampledAtMs: number | null;
  readonly use: MemoryUse | undefined;
  readonly history: History;
  /** Undefined where it was not asked for: of guests that are not open, and that do not move. */
  readonly migration: MigrationAnswer | undefined;
}

export interface PageView {
  readonly connection: Connection;
  /** Why there is no connection. */
  readonly trouble: string;
  /** When the daemon answered last. */
  readonly seenAtMs: number | null;
  readonly daemon: DaemonStatus | undefined;
  readonly host: HostStatus | undefined;
  readonly guests: readonly GuestView[];
}

/** A guest that is on its way to another host. */
export const isMigrating = ({ migration }: GuestView): boolean => isUnderWay(migration);

const isUnderWay = (answer: MigrationAnswer | undefined): boolean =>
  answer?.migration != null && answer.migration.report === null && answer.migration.error === null;

/** Undefined for a refusal; a daemon that does not answer throws. */
function unlessRefused(error: unknown): undefined {
  if (!(error instanceof RefusalError)) throw error;
}

interface Kept {
  readonly history: History;
  readonly tracker: MemoryUseTracker;
  migration: MigrationAnswer | undefined;
}

class Live {
  readonly view = new Store<PageView>({
    connection: 'connecting',
    trouble: '',
    seenAtMs: null,
    daemon: undefined,
    host: undefined,
    guests: [],
  });
  /** Newest first. */
  readonly events = new Store<readonly GuestEvent[]>([]);
  readonly #kept = new Map<string, Kept>();
  /** Guests that are migrating, whichever client began it and whichever guest is open. */
  readonly #movers = new Set<string>();
  #focus: string | undefined;
  #ticks = 0;
  #timer = 0;
  #dueMs = 0;
  #looking = false;
  /** Before this, the guest that is open is not asked about again. */
  #freshenAtMs = 0;
  #streaming = false;

  start(): void {
    document.addEventListener('visibilitychange', () => this.refresh());
    void this.#tick();
  }

  /** The guest that is open, if any. */
  set focus(name: string | undefined) {
    this.#focus = name;
    this.#freshenAtMs = 0;
    this.refresh();
  }

  /** Asks anew soon, because something changed. */
  refresh(): void {
    this.#schedule(50);
  }

  /** The next look is due in `ms` at the latest. */
  #schedule(ms: number): void {
    const dueMs = performance.now() + ms;
    if (this.#timer !== 0 && dueMs >= this.#dueMs) return;
    window.clearTimeout(this.#timer);
    this.#dueMs = dueMs;
    this.#timer = window.setTimeout(() => {
      this.#timer = 0;
      void this.#tick();
    }, ms);
  }

  async #tick(): Promise<void> {
    // A caller that asks while a look is under way gets another after it.
    if (this.#looking) return this.#schedule(FAST_TICK_MS);
    this.#looking = true;
    try {
      await this.#look();
      if (!this.#streaming) void this.#stream();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#looking = false;
      const fast = this.#moving() !== undefined && this.view.value.connection === 'live';
      this.#schedule(document.hidden ? HIDDEN_TICK_MS : fast ? FAST_TICK_MS : TICK_MS);
    }
  }

  async #look(): Promise<void> {
    const moving = this.#moving();
    const whole = moving === undefined || this.#ticks % ALL_EVERY === 0;
    await (whole ? this.#lookAtAll() : this.#lookAt(moving.status.name));
    this.#ticks++;
  }

  /** The guest that is open, if its balloon moves, or the guest itself. */
  #moving(): GuestView | undefined {
    const focused = this.#focused();
    return focused !== undefined && (isMoving(focused.status) || isMigrating(focused)) ? focused : undefined;
  }

  #focused(): GuestView | undefined {
    return this.view.value.guests.find(({ status }) => status.name === this.#focus);
  }

  async #lookAtAll(): Promise<void> {
    const wantDaemon = this.view.value.daemon === undefined || this.#ticks % DAEMON_EVERY === 0;
    if (this.#focused()?.status.connected) this.#freshen(this.#focus as string);
    const [guests, samples, host, daemon] = await Promise.all([
      api.guests(),
      api.samples(),
      api.host(),
      wantDaemon ? api.daemon() : this.view.value.daemon,
    ]);
    const asked = guests.filter(({ name }) => name === this.#focus || this.#movers.has(name));
    await Promise.all(asked.map(({ name }) => this.#askMigration(name)));
    const nowMs = Date.now();
    this.view.set({
      connection: 'live',
      trouble: '',
      seenAtMs: nowMs,
      daemon,
      host,
      guests: guests.map(status => this.#see(status, samples[status.name], nowMs)),
    });
    const names = new Set(guests.map(({ name }) => name));
    for (const name of this.#kept.keys()) if (!names.has(name)) this.#kept.delete(name);
  }

  async #lookAt(name: string): Promise<void> {
    const [status] = await Promise.all([api.guest(name).catch(unlessRefused), this.#askMigration(name)]);
    // It is gone, or what it belongs to is: the daemon knows what is left.
    if (status === undefined) return this.#lookAtAll();
    const seen = this.#see(status, undefined, Date.now());
    const { guests } = this.view.value;
    this.view.update({
      seenAtMs: Date.now(),
      guests: guests.map(guest => (guest.status.name === name ? seen : guest)),
    });
  }

  /** Where the daemon cannot say, what was known stays: all else that the daemon says of the guest is worth showing. */
  async #askMigration(name: string): Promise<void> {
    const answer = await api.migration(name).catch(unlessRefused);
    if (answer === undefined) return;
    this.#keptOf(name).migration = answer;
    if (!isUnderWay(answer)) this.#movers.delete(name);
  }

  /** Asks the guest itself, which may take its time; the next look shows what it said. */
  #freshen(name: string): void {
    if (performance.now() < this.#freshenAtMs) return;
    api.freshSample(name).catch(() => {
      // It has no statistics, or is busy; the age of the sample says so.
      this.#freshenAtMs = performance.now() + REFUSED_MS;
    });
  }

  /** Without a sample, the one before is still the newest. */
  #see(status: GuestStatus, sample: StatisticsSample | undefined, nowMs: number): GuestView {
    const { history, tracker, migration } = this.#keptOf(status.name);
    const use = tracker.see(status, sample, nowMs);
    history.add(nowMs, status, tracker.sample);
    return { status, sample: tracker.sample, sampledAtMs: tracker.sampledAtMs, use, history, migration };
  }

  #keptOf(name: string): Kept {
    let kept = this.#kept.get(name);
    if (kept === undefined) {
      kept = { history: new History(), tracker: new MemoryUseTracker(), migration: undefined };
      this.#kept.set(name, kept);
    }
    return kept;
  }

  #fail(error: unknown): void {
    if (error instanceof RefusalError && error.status === 401) {
      this.view.update({ connection: 'locked', trouble: error.message });
    } else if (error instanceof Unreachable || error instanceof RefusalError) {
      this.view.update({ connection: 'lost', trouble: error.message });
    } else {
      // A bug of the page's own; it is not to look like the daemon's.
      this.view.update({ connection: 'lost', trouble: `the page failed: ${String(error)}` });
      throw error;
    }
  }

  async #stream(): Promise<void> {
    this.#streaming = true;
    const read = this.#reader;
    try {
      await read();
    } catch {
      // The connection is lost; polling says so, and begins anew when it is back.
    }
    window.setTimeout(() => {
      this.#streaming = false;
    }, TICK_MS);
  }

  readonly #reader = eventReader(event => {
    if (event.type === 'migration') {
      this.#movers.add(event.guest);
      if (!this.#isNews(event)) return;
    }
    this.events.set([event, ...this.events.value].slice(0, EVENTS_KEPT_MAX));
    if (Date.now() - event.timeMs < 2000) this.refresh();
  });

  /** A migration tells of every step; what is worth a line is another state, or another round. */
  #isNews({ guest, detail: { status, round, message } }: GuestEvent): boolean {
    const before = this.events.value.find(
      event => event.guest === guest && event.type === 'migration',
    )?.detail;
    return before?.status !== status || before?.round !== round || before?.message !== message;
  }
}

export const live = new Live();
