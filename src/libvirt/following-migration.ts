/**
 * One migration by libvirt, followed to its end in a process of its own: how far it is, whether it is given up, and what became
 * of the domain where libvirtd goes away in the middle. What is not known is said to be unknown, and never to be done.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { MigrationReport, MigrationState } from '../control/migrations.ts';
import { BEGINNING, type MoveUnderWay } from '../qemu/guest-moves.ts';
import { AerostatError } from '../sys/error.ts';
import type { DomainJob, DomainPlace } from '../sys/libvirt.ts';
import type { DomainMove } from '../sys/libvirt-migration.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { LibvirtAsker } from './connection.ts';
import { migrationReport, migrationState, postcopyState, writeRate } from './job-state.ts';
import { adviceFor } from './migration-advice.ts';

const POLL_MS = 200;
/** A libvirtd that does not answer for so long is said to be silent; it may go on. */
const SILENT_MS = 5000;
/** As long as libvirtd may take to be started anew. */
const PATIENCE_MS = 60_000;
/** The destination is asked how it went, which is worth no longer wait. */
const DESTINATION_DEADLINE_MS = 5000;

/** libvirt-domain.h, virDomainState and virDomainPausedReason. */
const PAUSED = 3;
const PAUSED_FOR_MIGRATION = 2;
const PAUSED_IN_POSTCOPY = [11, 12];

const UNKNOWN = 'unknown';

/** libvirt did not move the domain. */
class LibvirtMigrationError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_LIBVIRT_MIGRATION', message);
  }
}

/** It is not known where the domain runs. */
class LibvirtMigrationUnknownError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN', message);
  }
}

interface FollowedMigrationOptions {
  readonly name: string;
  readonly asker: LibvirtAsker;
  readonly move: DomainMove;
  readonly downtimeMsMax?: number;
  readonly postcopyAfterRound?: number;
  readonly patienceMs?: number;
  readonly pollMs?: number;
}

export class FollowedMigration {
  readonly #options: FollowedMigrationOptions;
  readonly #asker: LibvirtAsker;
  readonly #patienceMs: number;
  readonly #pollMs: number;
  readonly #beganMs = monotonicMs();
  #last: DomainJob | undefined;
  #state: MigrationState = BEGINNING;
  #bounded = false;
  /** What was missing when post-copy began. */
  #missingBytes: number | undefined;
  #closed = false;

  constructor(options: FollowedMigrationOptions) {
    this.#options = options;
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#asker = options.asker.another({ deadlineMs: this.#patienceMs });
  }

  /** Bytes a second that the guest writes to, as libvirt measured it last. */
  get writeRate(): number | null {
    return this.#last === undefined ? null : writeRate(this.#last);
  }

  /**
   * Moves the domain. @throws AerostatError AEROSTAT_LIBVIRT_MIGRATION where it stays, AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN
   * where neither end can say
   */
  async carry(under: MoveUnderWay): Promise<MigrationReport> {
    let outcome: 'moved' | AerostatError | undefined;
    const moving = this.#asker
      .ask({ ask: 'migrate', move: this.#options.move }, { deadlineMs: Number.POSITIVE_INFINITY })
      .then(
        () => {
          outcome = 'moved';
        },
        (error: unknown) => {
          if (!(error instanceof AerostatError)) throw error;
          outcome = error;
        },
      );
    while (outcome === undefined) {
      await this.#look(under);
      await Promise.race([moving, delay(this.#pollMs)]);
    }
    // The compiler does not see what the promise sets.
    const end = outcome as 'moved' | AerostatError;
    if (end === 'moved') return this.#report((await this.#atDestination())?.completed ?? null);
    if (end.code === 'AEROSTAT_LIBVIRT_MIGRATION') throw await this.#refusal(end, under.signal);
    return this.#findOut(under, end);
  }

  close(): void {
    this.#closed = true;
    this.#asker.close();
  }

  /** Asks how far it is, and does what is due. Failures show by what becomes of the migration. */
  async #look(under: MoveUnderWay): Promise<void> {
    const { uuid } = this.#options.move;
    const job = await this.#patiently(under, this.#asker.ask({ ask: 'jobs', uuids: [uuid] })).catch(ignored);
    await this.#see(under, job?.[uuid]);
  }

  async #see(under: MoveUnderWay, job: DomainJob | undefined): Promise<void> {
    if (job === undefined || !job.isMigration) {
      // libvirt has yet to begin it, or is about to end it.
      this.#tell(under, { ...this.#state, elapsedMs: monotonicMs() - this.#beganMs });
    } else {
      this.#last = job;
      const missing = this.#missingBytes;
      const postcopy = missing === undefined ? null : postcopyState(job, missing);
      this.#tell(under, migrationState(job, { postcopy }));
      await this.#steer(under, job);
    }
  }

  async #steer(under: MoveUnderWay, job: DomainJob): Promise<void> {
    const { signal } = under;
    const { move, downtimeMsMax, postcopyAfterRound } = this.#options;
    const { uuid } = move;
    if (signal.aborted) return void (await this.#asker.ask({ ask: 'abortJob', uuid }).catch(ignored));
    if (downtimeMsMax !== undefined && !this.#bounded) {
      this.#bounded = await this.#done({ ask: 'setDowntime', uuid, ms: Math.max(1, downtimeMsMax) });
    }
    const rounds = job.numbers.memory_iteration ?? 0;
    if (postcopyAfterRound === undefined || this.#missingBytes !== undefined || !job.underWay) return;
    if (rounds > postcopyAfterRound && (await this.#done({ ask: 'startPostcopy', uuid }))) {
      this.#missingBytes = job.numbers.memory_remaining ?? 0;
      // It may be over before the next look.
      this.#tell(under, migrationState(job, { postcopy: postcopyState(job, this.#missingBytes) }));
    }
  }

  /** Whether libvirt did it; what is refused now is ordered again at the next look. */
  async #done(
    order:
      | { readonly ask: 'setDowntime'; readonly uuid: string; readonly ms: number }
      | { readonly ask: 'startPostcopy'; readonly uuid: string },
  ): Promise<boolean> {
    const asked = order.ask === 'setDowntime' ? this.#asker.ask(order) : this.#asker.ask(order);
    return asked.then(
      () => true,
      (error: unknown) => {
        ignored(error);
        return false;
      },
    );
  }

  /** Says so where the answer is late; one who gives the migration up then does not wait for it. */
  async #patiently<Answer>(under: MoveUnderWay, answer: Promise<Answer>): Promise<Answer> {
    let isLate = false;
    const giveUp = () => {
      if (isLate && under.signal.aborted) this.#asker.close();
    };
    const timer = setTimeout(() => {
      isLate = true;
      this.#tell(under, { ...this.#state, status: UNKNOWN });
      giveUp();
    }, SILENT_MS);
    under.signal.addEventListener('abort', giveUp);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
      under.signal.removeEventListener('abort', giveUp);
      if (isLate)
        this.#tell(under, { ...this.#state, status: this.#last === undefined ? 'setup' : 'active' });
    }
  }

  /** libvirt refused, or gave it up in the middle: in its own words, with what to do, and where the domain is. */
  async #refusal(error: AerostatError, signal: AbortSignal): Promise<AerostatError> {
    const { name, move } = this.#options;
    const place = await this.#asker.ask({ ask: 'place', uuid: move.uuid }).catch(ignored);
    if (place === null) {
      return new LibvirtMigrationUnknownError(
        `${error.message}. ${name} does not run at ${this.#asker.uri} any more; look for it at ${move.to}`,
      );
    }
    const advice = signal.aborted ? undefined : adviceFor(error.message);
    const where = place === undefined ? '' : `. ${standing(name, place)}`;
    return new LibvirtMigrationError(`${error.message}${where}${advice === undefined ? '' : `; ${advice}`}`);
  }

  /** libvirtd went away, or this process did: what is known of the domain when it can be asked again. */
  async #findOut(under: MoveUnderWay, why: AerostatError): Promise<MigrationReport> {
    const { name, move } = this.#options;
    this.#tell(under, { ...this.#state, status: UNKNOWN });
    let untilMs = monotonicMs() + this.#patienceMs;
    while (monotonicMs() < untilMs && !this.#closed) {
      const question = { ask: 'place', uuid: move.uuid } as const;
      const place = await this.#asker.ask(question, { deadlineMs: SILENT_MS }).catch(ignored);
      if (place === null) return this.#foundElsewhere();
      if (place?.job?.underWay && place.job.isMigration) {
        // libvirtd saw to it without us.
        untilMs = monotonicMs() + this.#patienceMs;
        await this.#see(under, place.job);
      } else if (place !== undefined && !isBetween(place)) {
        throw new LibvirtMigrationError(
          `libvirt at ${this.#asker.uri} went away while it moved ${name} (${why.message}), and gave it up. ${standing(name, place)}`,
        );
      } else if (under.signal.aborted) break;
      await delay(this.#pollMs);
    }
    throw new LibvirtMigrationUnknownError(
      `libvirt at ${this.#asker.uri} went away while it moved ${name} (${why.message}): whether it runs there or at ${move.to} is not known; ` +
        'look at both (virsh list --all) before you start it anywhere',
    );
  }

  /** The source has it no more. */
  async #foundElsewhere(): Promise<MigrationReport> {
    const { name, move } = this.#options;
    const there = await this.#atDestination();
    if (there !== undefined && there.place !== null && there.place.state !== PAUSED)
      return this.#report(there.completed);
    const said = there === undefined ? 'cannot be asked from here' : 'does not run it either';
    throw new LibvirtMigrationUnknownError(
      `${name} does not run at ${this.#asker.uri} any more, and ${move.to} ${said}; look there (virsh list --all)`,
    );
  }

  /** What the destination says of the domain; undefined where it cannot be asked from here. */
  async #atDestination(): Promise<{ place: DomainPlace | null; completed: DomainJob | null } | undefined> {
    const { uuid, to } = this.#options.move;
    // A path is of the source's host, which is another one than this.
    if (serverOf(to) === '' && serverOf(this.#asker.uri) !== '') return undefined;
    const there = this.#options.asker.another({ uri: to, deadlineMs: DESTINATION_DEADLINE_MS });
    try {
      const place = await there.ask({ ask: 'place', uuid });
      const completed = place === null ? null : await there.ask({ ask: 'completedJob', uuid });
      return { place, completed };
    } catch (error) {
      return ignored(error);
    } finally {
      there.close();
    }
  }

  #report(completed: DomainJob | null): MigrationReport {
    const elapsedMs = monotonicMs() - this.#beganMs;
    const report = migrationReport(completed, this.#last ?? { numbers: {} }, elapsedMs);
    const { postcopy } = this.#state;
    return postcopy == null ? report : { ...report, postcopy };
  }

  #tell(under: MoveUnderWay, state: MigrationState): void {
    this.#state = state;
    under.update(state);
  }
}

/** Undefined for an answer that there was not; what is no failure of libvirt's is thrown on. */
function ignored(error: unknown): undefined {
  if (!(error instanceof AerostatError)) throw error;
  return undefined;
}

/** It stands still because it is on its way. */
const isBetween = ({ state, reason }: DomainPlace): boolean =>
  state === PAUSED && (reason === PAUSED_FOR_MIGRATION || PAUSED_IN_POSTCOPY.includes(reason));

function standing(name: string, place: DomainPlace): string {
  if (place.state !== PAUSED) return `${name} runs on where it was`;
  if (PAUSED_IN_POSTCOPY.includes(place.reason))
    return `${name} began to run at its destination, and broke off there: see virsh migrate --postcopy-resume`;
  return `${name} is where it was, and stands still (virsh resume ${name})`;
}

/** Empty for a libvirt of the same host. */
const serverOf = (uri: string): string => /^[^:]+:\/\/([^/?]*)/.exec(uri)?.[1] ?? '';
