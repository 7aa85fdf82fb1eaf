/**
 * Migrations of libvirt's domains, by libvirt's own means: what may be ordered, what is told of them, and those that others
 * began. One that is under way is followed in following-migration.ts.
 */
import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError, MigrationOrderError } from '../control/errors.ts';
import type { MigrationAnswer, MigrationOrder, MigrationStatus } from '../control/migrations.ts';
import type { GuestHandlers, MigrationOperation } from '../control/operations.ts';
import { GuestMoves } from '../qemu/guest-moves.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError } from '../sys/error.ts';
import type { DomainJob } from '../sys/libvirt.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { LibvirtAsker } from './connection.ts';
import { FollowedMigration } from './following-migration.ts';
import { migrationState, writeRate } from './job-state.ts';

/** What migrations need of the domains. */
interface DomainDirectory {
  /** @throws UnknownGuestError for a name that no domain has */
  expect(name: string): void;
  /** Undefined for one that is not here. */
  uuidOf(name: string): string | undefined;
  uuids(): readonly string[];
  emit(event: GuestEvent): void;
  /** The domains are looked at anew. */
  expire(): void;
}

export interface LibvirtMigrationOptions {
  /** Also to URIs that would run a program on the host of the source. */
  readonly anyDestination?: boolean;
  /** A libvirtd that answers no question for so long is waited for no longer. */
  readonly patienceMs?: number;
  /** What is under way is asked for so often. */
  readonly pollMs?: number;
}

/** A look at the jobs of all domains is good for so long: many guests are asked about at once. */
const FRESH_MS = 100;
/** One domain whose QEMU hangs makes its libvirtd wait: it costs this question, in a process of its own. */
const JOBS_DEADLINE_MS = 2000;

const LIBVIRT_URI = /^[a-z][a-z0-9]*(?:\+[a-z0-9]+)?:\/\//i;
/** libvirt reads commands, files of keys and sockets out of queries, and `qemu+ext` runs a program on the source's host. */
const PLAIN_URI =
  /^qemu\+(?:ssh|libssh2?|tls|tcp):\/\/(?:[\w.-]+@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9a-f:]+\])(?::\d{1,5})?\/(?:system|session)$/i;

/** What libvirt has no means for, and the virsh that has. */
const OURS_ALONE: Readonly<Partial<Record<keyof MigrationOrder, string>>> = {
  roundsMax: '--max-rounds',
  channel: '--channel',
  compress: '--compress',
  recover: '--recover; virsh migrate --postcopy --postcopy-resume goes on with one that broke',
};

export class LibvirtMigrations implements GuestHandlers<MigrationOperation> {
  readonly #asker: LibvirtAsker;
  readonly #domains: DomainDirectory;
  readonly #options: LibvirtMigrationOptions;
  readonly #moves: GuestMoves;
  readonly #followed = new Map<string, FollowedMigration>();
  #jobsAsker: LibvirtAsker | undefined;
  #jobsAsked:
    | { readonly atMs: number; readonly jobs: Promise<Readonly<Record<string, DomainJob>>> }
    | undefined;
  #closed = false;

  constructor(asker: LibvirtAsker, domains: DomainDirectory, options: LibvirtMigrationOptions = {}) {
    this.#asker = asker;
    this.#domains = domains;
    this.#options = options;
    this.#moves = new GuestMoves(event => domains.emit(event));
  }

  async migration(name: string): Promise<MigrationAnswer> {
    const own = this.#moves.of(name) ?? null;
    if (this.#moves.isUnderWay(name)) {
      const dirtyBytesPerSecond = this.#followed.get(name)?.writeRate ?? null;
      return { migration: own, obstacle: null, dirtyBytesPerSecond };
    }
    if (own === null) this.#domains.expect(name);
    const job = await this.#jobOf(name);
    if (job !== undefined) {
      // Its destination is known to those who began it.
      const migration: MigrationStatus = { to: null, state: migrationState(job), report: null, error: null };
      return { migration, obstacle: null, dirtyBytesPerSecond: writeRate(job) };
    }
    return { migration: own, obstacle: this.#obstacle(name, own), dirtyBytesPerSecond: null };
  }

  async migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    const obstacle = this.#obstacle(name, this.#moves.of(name) ?? null);
    if (obstacle !== null) throw new GuestStateError(obstacle);
    this.#domains.expect(name);
    const moving = this.#moves.isUnderWay(name) || (await this.#jobOf(name)) !== undefined;
    if (moving) throw new GuestStateError(`${name} is moving already`);
    this.#check(name, order);
    const { to, bandwidthBytesPerSecond, downtimeMsMax, connections, postcopyAfterRound } = order;
    const uuid = this.#domains.uuidOf(name) as string;
    const followed = new FollowedMigration({
      name,
      asker: this.#asker,
      ...defined({ downtimeMsMax, postcopyAfterRound }),
      ...defined({ patienceMs: this.#options.patienceMs, pollMs: this.#options.pollMs }),
      move: {
        uuid,
        to,
        autoConverge: order.autoConverge ?? true,
        postcopy: postcopyAfterRound !== undefined,
        persist: order.persist ?? false,
        ...defined({ bandwidthBytesPerSecond, connections }),
      },
    });
    this.#followed.set(name, followed);
    return this.#moves.begin(name, to, async under => {
      try {
        return await followed.carry(under);
      } finally {
        this.#followed.delete(name);
        this.#jobsAsked = undefined;
        followed.close();
        if (!this.#closed) this.#domains.expire();
      }
    });
  }

  /** Resolves when libvirt has given it up, or it was over before. */
  async cancelMigration(name: string): Promise<MigrationAnswer> {
    if (!(await this.#moves.cancel(name))) {
      this.#domains.expect(name);
      const uuid = this.#domains.uuidOf(name);
      if (uuid === undefined || (await this.#jobOf(name)) === undefined)
        throw new GuestStateError(`${name} is not being moved`);
      await this.#jobs().ask({ ask: 'abortJob', uuid });
      this.#jobsAsked = undefined;
    }
    return this.migration(name);
  }

  /** What is under way goes on: libvirtd sees to it. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#jobsAsker?.close();
    for (const followed of this.#followed.values()) followed.close();
  }

  #check(name: string, order: MigrationOrder): void {
    const { to } = order;
    if (!LIBVIRT_URI.test(to) || to.startsWith('file:')) {
      throw new MigrationOrderError(
        `${name} is a domain of libvirt, which moves it to another libvirt: write its URI, qemu+ssh://HOST/system, instead of ${to}`,
      );
    }
    if (this.#options.anyDestination !== true && !PLAIN_URI.test(to)) {
      throw new MigrationOrderError(
        `${to} is no destination; write qemu+ssh://HOST/system or qemu+tls://HOST/system, without a query`,
      );
    }
    for (const [option, words] of Object.entries(OURS_ALONE)) {
      const value = order[option as keyof MigrationOrder];
      if (value !== undefined && value !== false)
        throw new MigrationOrderError(`libvirt moves ${name}, and takes no ${words}`);
    }
  }

  /** One that left, and did not come back. */
  #obstacle(name: string, own: MigrationStatus | null): string | null {
    const isGone = own?.report != null && this.#domains.uuidOf(name) === undefined;
    return isGone ? `${name} does not run here any more` : null;
  }

  /** The migration of a domain that this program did not begin; undefined where there is none, or libvirt does not say. */
  async #jobOf(name: string): Promise<DomainJob | undefined> {
    const uuid = this.#domains.uuidOf(name);
    if (uuid === undefined) return undefined;
    const now = monotonicMs();
    if (this.#jobsAsked === undefined || now - this.#jobsAsked.atMs > FRESH_MS) {
      const jobs = this.#jobs()
        .ask({ ask: 'jobs', uuids: this.#domains.uuids() })
        .catch((error: unknown) => {
          if (!(error instanceof AerostatError)) throw error;
          return {};
        });
      this.#jobsAsked = { atMs: now, jobs };
    }
    const job = (await this.#jobsAsked.jobs)[uuid];
    return job?.underWay && job.isMigration ? job : undefined;
  }

  #jobs(): LibvirtAsker {
    this.#jobsAsker ??= this.#asker.another({ deadlineMs: JOBS_DEADLINE_MS });
    return this.#jobsAsker;
  }
}
