/**
 * The migrations of one machine, for its control: begun, watched, given up. A machine that has left is of no use any more,
 * which {@link VmMigrations.departed} tells; one that was written into a file runs on.
 */

import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError, MigrationOrderError, UnknownGuestError } from '../control/errors.ts';
import type { MemoryMap } from '../control/memory-map.ts';
import type {
  MigrationAnswer,
  MigrationOrder,
  MigrationReport,
  MigrationState,
  MigrationStatus,
} from '../control/migrations.ts';
import type { GuestHandlers, MigrationOperation } from '../control/operations.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { Convergence } from '../migration/convergence.ts';
import { MigrationCancelled, MigrationUnknown } from '../migration/errors.ts';
import {
  AUTO_CONVERGE_DEFAULT,
  CONNECTIONS_DEFAULT,
  DOWNTIME_MS_DEFAULT,
  ROUNDS_DEFAULT,
} from '../migration/limits.ts';
import { MigrationSource } from '../migration/source.ts';
import type { MigrationProgress, MigrationSummary } from '../migration/source-shapes.ts';
import { SnapshotCancelled } from '../snapshot/errors.ts';
import { deferred } from '../sys/deferred.ts';
import { wireError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import { systemClock } from '../transfer/clock.ts';
import { withDirty } from './dirty-layer.ts';
import { CHANNEL_NAMES, type ChannelName } from './free-page-channel.ts';
import { type MigrationPlace, type MigrationRoute, migrationRouteOf } from './migration-route.ts';
import { OutgoingMigration } from './outgoing-migration.ts';
import { arrivingObstacle, arrivingStatus, postcopyStateOf } from './postcopy-status.ts';
import type { Vm } from './vm.ts';
import { WriteRate } from './write-rate.ts';

/** What the guest waits for is not to wait behind what it does not. */
const POSTCOPY_CONNECTIONS_MIN = 2;

/** Between two questions to a destination that has not answered for long. */
const SEARCH_PAUSE_MS = 5000;

interface Underway {
  readonly source: MigrationSource;
  readonly outgoing: OutgoingMigration;
  readonly route: MigrationRoute;
  readonly startedMs: number;
}

export class VmMigrations implements GuestHandlers<MigrationOperation> {
  readonly #departure = deferred();
  /** Resolves when the guest runs elsewhere. */
  readonly departed = this.#departure.promise;
  readonly #vm: Vm;
  readonly #place: MigrationPlace;
  readonly #emit: (event: GuestEvent) => void;
  #writes: WriteRate | undefined;
  #underway: Underway | undefined;
  /** Under way, and it is not known where the guest runs. */
  #lost: { readonly recall: AbortController; readonly over: Promise<void> } | undefined;
  #starting = false;
  #status: MigrationStatus | null = null;

  constructor(vm: Vm, place: MigrationPlace, emit: (event: GuestEvent) => void) {
    this.#vm = vm;
    this.#place = place;
    this.#emit = emit;
  }

  async migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    this.#expectName(name);
    if (order.recover === true) return this.#recover(name);
    if (this.#underway !== undefined || this.#starting)
      throw new GuestStateError(`${name} is moving already`);
    if (this.#vm.state !== 'running') throw new GuestStateError(goneFrom(name));
    if (arrivingStatus(this.#vm) !== undefined) throw new GuestStateError(arrivingObstacle(name));
    if (order.persist === true)
      throw new MigrationOrderError(`${name} has no definition that could go along`);
    const channel = channelOf(order.channel);
    this.#starting = true;
    let route: MigrationRoute | undefined;
    try {
      route = await migrationRouteOf(this.#vm, order, this.#place);
      const outgoing = await OutgoingMigration.of(this.#vm, { channel });
      return this.#begin(outgoing, route, order);
    } catch (error) {
      route?.close();
      throw error;
    } finally {
      this.#starting = false;
    }
  }

  async migration(name: string): Promise<MigrationAnswer> {
    this.#expectName(name);
    const runsHere = this.#vm.state === 'running' || this.#underway !== undefined;
    const arriving = arrivingStatus(this.#vm);
    if (arriving !== undefined) {
      return { migration: arriving, obstacle: arrivingObstacle(name), dirtyBytesPerSecond: null };
    }
    return {
      migration: this.#current(),
      obstacle: runsHere ? null : goneFrom(name),
      dirtyBytesPerSecond: this.#writeRate(),
    };
  }

  /** Of a log that is the kernel's nothing is known but in a migration, whose own it is then. */
  #writeRate(): number | null {
    const isOurs = !this.#starting && this.#underway === undefined && this.#vm.state === 'running';
    if (isOurs && this.#vm.config.dirtyLog !== 'kernel') {
      this.#writes ??= new WriteRate(this.#vm.log, monotonicMs);
      return this.#writes.look();
    }
    this.#writes?.forget();
    return null;
  }

  #current(): MigrationStatus | null {
    const status = this.#status;
    if (status === null || status.report !== null || status.error !== null) return status;
    if (this.#underway === undefined) return status;
    return { ...status, state: { ...status.state, ...this.#sendingOf(this.#underway) } };
  }

  /** The map with what the migration under way has still to send. */
  mapped(map: MemoryMap): MemoryMap {
    return this.#underway === undefined ? map : withDirty(map, this.#underway.outgoing.dirty);
  }

  async cancelMigration(name: string): Promise<MigrationAnswer> {
    this.#expectName(name);
    if (this.#lost !== undefined) {
      const { recall, over } = this.#lost;
      recall.abort();
      await over;
      if (this.#vm.state === 'running') return this.migration(name);
    }
    const { source, route } = this.#underway ?? {};
    if (source?.cancel('it was called back') !== true && route?.cancel() !== true) {
      throw new GuestStateError(
        this.#underway === undefined ? `${name} is not being moved` : `${name} was handed over already`,
      );
    }
    return this.migration(name);
  }

  /** The guest runs elsewhere and waits for pages: its destination is to be reached now, and not in a while. */
  #recover(name: string): MigrationStatus {
    if (this.#underway?.source.recover() !== true || this.#status === null) {
      throw new GuestStateError(`${name} is not in post-copy with a destination that is out of reach`);
    }
    return this.#status;
  }

  #begin(outgoing: OutgoingMigration, route: MigrationRoute, order: MigrationOrder): MigrationStatus {
    const { connections = CONNECTIONS_DEFAULT, compress = false, postcopyAfterRound: afterRound } = order;
    const postcopy = afterRound === undefined ? undefined : { afterRound };
    const source = new MigrationSource({
      ...outgoing.source,
      ...route.source(outgoing),
      connections: postcopy === undefined ? connections : Math.max(POSTCOPY_CONNECTIONS_MIN, connections),
      postcopy,
      compress,
      convergence: new Convergence({
        downtimeMsMax: order.downtimeMsMax ?? DOWNTIME_MS_DEFAULT,
        keepsLimit: order.downtimeMsMax !== undefined,
        roundsMax: order.roundsMax ?? ROUNDS_DEFAULT,
        // Who names a number of rounds wants it stopped then; who does not, no longer than the limit says.
        overLimit: order.roundsMax === undefined && postcopy === undefined ? 'refuse' : 'stop',
        autoConverge: order.autoConverge ?? AUTO_CONVERGE_DEFAULT,
      }),
      clock: systemClock,
      observer: progress => this.#progressed(order.to, progress),
    });
    this.#underway = { source, outgoing, route, startedMs: monotonicMs() };
    const status = this.#become({ to: order.to, state: this.#stateOf(undefined), report: null, error: null });
    void this.#follow(this.#underway);
    return status;
  }

  async #follow({ source, outgoing, route }: Underway): Promise<void> {
    const status = this.#status as MigrationStatus;
    try {
      const summary = await source.run();
      const { downtimeMs = summary.downtimeMs, leaves } = route;
      // A guest that stays runs again when the file has all of it, and not when that has its name.
      const pause = leaves ? summary.pause : summary.pause.filter(({ step }) => step !== 'run');
      const report = reportOf({ ...summary, downtimeMs, pause }, outgoing.balloonedPages);
      this.#become({ ...(this.#status ?? status), report });
      if (leaves) this.#departure.resolve();
    } catch (thrown) {
      const error = route.failure(thrown as Error);
      const { state } = this.#status ?? status;
      const cancelled = error instanceof MigrationCancelled || error instanceof SnapshotCancelled;
      const word = cancelled ? 'cancelled' : 'failed';
      const failed = this.#become({
        ...status,
        state: { ...state, status: word },
        error: wireError(error),
      });
      if (error instanceof MigrationUnknown) {
        const recall = new AbortController();
        const over = this.#search(source, failed, recall.signal);
        this.#lost = { recall, over };
        // The caller that cancelled hears of it; of a machine that is switched off meanwhile nothing is said.
        await over.catch(() => {});
        this.#lost = undefined;
      }
    } finally {
      this.#underway = undefined;
      route.close();
      await outgoing.close();
    }
  }

  /**
   * The guest stands still, for this may be all that there is of it, and its destination is asked on. A person may know
   * better, and call it back.
   */
  async #search(source: MigrationSource, status: MigrationStatus, recalled: AbortSignal): Promise<void> {
    while (this.#vm.state === 'gone' && !recalled.aborted) {
      if ((await source.askAgain()) === 'running') {
        await source.bringRest();
        this.#become({ ...status, state: { ...status.state, status: 'done' }, error: null });
        this.#departure.resolve();
        return;
      }
      await systemClock.sleep(SEARCH_PAUSE_MS, recalled);
    }
    if (this.#vm.state !== 'gone') return;
    await source.recall();
    const error = {
      code: 'AEROSTAT_MIGRATION_CANCELLED',
      message: 'the guest was called back, and runs on here',
    };
    this.#become({ ...status, state: { ...status.state, status: 'cancelled' }, error });
  }

  #progressed(to: string, progress: MigrationProgress): void {
    // How it failed is said when that is known.
    if (progress.phase === 'failed') return;
    this.#become({ to, state: this.#stateOf(progress), report: null, error: null });
  }

  /** What changes while a round is sent, which may take minutes. */
  #sendingOf({ source, outgoing, startedMs }: Underway): Partial<MigrationState> {
    const elapsedMs = monotonicMs() - startedMs;
    const { sentBytes } = source;
    const { remainingBytes, bytesPerSecond } = (this.#status as MigrationStatus).state;
    return {
      elapsedMs,
      sentBytes,
      remainingBytes:
        remainingBytes === null ? null : (source.postcopy?.leftPages ?? outgoing.dirty.countIn()) * PAGE_SIZE,
      postcopy: source.postcopy && postcopyStateOf(source.postcopy),
      // No round has told how fast it goes: then it is what went so far.
      bytesPerSecond: bytesPerSecond ?? (sentBytes === 0 ? null : Math.round((sentBytes * 1000) / elapsedMs)),
    };
  }

  #stateOf(progress: MigrationProgress | undefined): MigrationStatus['state'] {
    const rate = (progress?.bytesPerMs ?? 0) * 1000;
    const downtimeMs = progress?.expectedDowntimeMs ?? Number.POSITIVE_INFINITY;
    return {
      status: progress?.phase ?? 'connecting',
      elapsedMs: monotonicMs() - (this.#underway?.startedMs ?? monotonicMs()),
      round: progress?.round ?? 0,
      totalBytes: this.#vm.memoryBytes,
      sentBytes: this.#underway?.source.sentBytes ?? null,
      remainingBytes: progress === undefined ? null : progress.remainingPages * PAGE_SIZE,
      bytesPerSecond: rate > 0 ? Math.round(rate) : null,
      expectedDowntimeMs: Number.isFinite(downtimeMs) ? downtimeMs : null,
      guestShare: progress?.guestShare ?? 1,
      postcopy: progress?.postcopy ? postcopyStateOf(progress.postcopy) : null,
    };
  }

  #become(status: MigrationStatus): MigrationStatus {
    this.#status = status;
    const { state, error } = status;
    this.#emit({
      guest: this.#vm.name,
      type: 'migration',
      timeMs: Date.now(),
      detail: {
        to: status.to,
        status: state.status,
        round: state.round,
        remainingBytes: state.remainingBytes,
        ...(error === null ? {} : { message: error.message }),
      },
    });
    return status;
  }

  #expectName(name: string): void {
    if (name !== this.#vm.name) throw new UnknownGuestError(name, [this.#vm.name]);
  }
}

const goneFrom = (name: string): string => `${name} does not run here any more`;

function channelOf(name: string | undefined): ChannelName {
  if (name === undefined) return 'auto';
  const channel = CHANNEL_NAMES.find(candidate => candidate === name);
  if (channel !== undefined) return channel;
  throw new MigrationOrderError(
    `no free page channel is called ${name}; there are ${CHANNEL_NAMES.join(', ')}`,
  );
}

const reportOf = (summary: MigrationSummary, balloonPages: number): MigrationReport => ({
  totalMs: summary.totalMs,
  downtimeMs: summary.downtimeMs,
  rounds: summary.rounds,
  bytes: summary.bytes,
  pages: summary.pages,
  zeroPages: summary.zeroPages,
  resentPages: summary.resentPages,
  freePages: summary.freePages,
  balloonPages,
  unbackedPages: summary.unbackedPages,
  hintRaces: summary.hintRaces,
  postcopy: summary.postcopy && postcopyStateOf(summary.postcopy),
  pause: summary.pause,
});
