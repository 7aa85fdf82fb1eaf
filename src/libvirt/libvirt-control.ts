/**
 * The domains of a libvirt under the contract: all that are active, by their names, as they come and go. One call asks for
 * all of them. A persistent definition is changed only by an order that says so.
 */
import { type GuestStatus, statusOf } from '../control/contract.ts';
import { HypervisorControl } from '../qemu/hypervisor-control.ts';
import { cleanedName } from '../qemu/names.ts';
import { AerostatError } from '../sys/error.ts';
import type { DomainNumbers } from '../sys/libvirt.ts';
import type { LibvirtEvent } from '../sys/libvirt-events.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { LibvirtAsker } from './connection.ts';
import { type DomainHost, LibvirtDomain } from './domain.ts';
import { type LibvirtMigrationOptions, LibvirtMigrations } from './libvirt-migrations.ts';

/** How often domains are looked at of itself: events tell of changes so much later at most, where libvirt tells of none. */
const POLL_MS = 2000;
/** Where libvirt tells of changes, a look that is so many periods old is good: only a guest's first statistics are not told. */
const PERIODS_WHILE_TOLD = 5;
/** Domains that start or end at once cost one look. */
const SETTLE_MS = 50;
/** A look is good for so long: many guests are asked about at once. */
const FRESH_MS = 100;
/** Definitions that are read one after the other when many domains appear. */
const DEFINITIONS_AT_ONCE = 4;

export class LibvirtControl extends HypervisorControl {
  readonly #asker: LibvirtAsker;
  readonly #domains = new Map<string, LibvirtDomain>();
  readonly #host: DomainHost;
  readonly #timer: NodeJS.Timeout;
  protected readonly migrations: LibvirtMigrations;
  #looking: Promise<void> | undefined;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #reached = false;
  #failure: AerostatError | undefined;
  /** libvirt tells of changes. */
  #told = false;
  #dueLook: NodeJS.Timeout | undefined;

  constructor(
    asker: LibvirtAsker,
    { pollMs = POLL_MS, migrations = {} }: { pollMs?: number; migrations?: LibvirtMigrationOptions } = {},
  ) {
    super();
    this.#asker = asker;
    this.#host = {
      refresh: () => this.#refresh(),
      ask: question => asker.ask(question),
      expire: () => {
        this.#lookedAtMs = Number.NEGATIVE_INFINITY;
      },
    };
    this.migrations = new LibvirtMigrations(
      asker,
      {
        expect: name => this.expect(name),
        uuidOf: name => this.#domains.get(name)?.uuid,
        uuids: () => [...this.#domains.values()].map(({ uuid }) => uuid),
        emit: event => this.emit(event),
        expire: () => {
          this.#host.expire();
          this.#refresh().catch(() => {});
        },
      },
      migrations,
    );
    asker.listen(event => this.#hear(event));
    this.#timer = setInterval(() => {
      const isFresh = this.#told && monotonicMs() - this.#lookedAtMs < PERIODS_WHILE_TOLD * pollMs;
      if (!isFresh) this.#refresh().catch(() => {});
    }, pollMs).unref();
  }

  /** Settles when the domains are known. @throws AerostatError where libvirt cannot be reached */
  reached(): Promise<void> {
    return this.#refresh();
  }

  /** Why nothing is known of some guests, as of the last time that all were asked for. */
  failures = (): ReadonlyMap<string, AerostatError> => {
    const failure = this.#failure;
    return failure === undefined ? new Map() : new Map(this.names.map(name => [name, failure]));
  };

  /** Those that are active. One that libvirt tells nothing of now has a row with the reason. @throws AerostatError where libvirt was never reached */
  override async guests(): Promise<readonly GuestStatus[]> {
    try {
      await this.#refresh();
      return await super.guests();
    } catch (error) {
      if (!this.#reached || !(error instanceof AerostatError)) throw error;
      return this.names.map(name => statusOf(name, { lastError: error.message }));
    }
  }

  override close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#dueLook);
    this.migrations.close();
    super.close();
    this.#asker.close();
  }

  #hear(event: LibvirtEvent): void {
    if (event.event === 'following') this.#told = event.told;
    else if (event.event === 'balloon') this.#withUuid(event.uuid)?.balloonChanged(event.kib);
    else if (event.event === 'reset') this.#withUuid(event.uuid)?.wasReset();
    else {
      if (event.event === 'lost') this.#told = false;
      this.#lookSoon();
    }
  }

  #withUuid(uuid: string): LibvirtDomain | undefined {
    return [...this.#domains.values()].find(domain => domain.uuid === uuid);
  }

  #lookSoon(): void {
    this.#dueLook ??= setTimeout(async () => {
      this.#dueLook = undefined;
      // A look that is under way may have begun before.
      await this.#looking?.catch(() => {});
      this.#host.expire();
      await this.#refresh().catch(() => {});
    }, SETTLE_MS).unref();
  }

  #refresh(): Promise<void> {
    if (monotonicMs() - this.#lookedAtMs < FRESH_MS) return Promise.resolve();
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    try {
      this.#follow(await this.#asker.ask({ ask: 'domains' }));
      await this.#admitNew();
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.#failure = error;
      this.#told = false;
      for (const domain of this.#domains.values()) domain.lose(error);
      throw error;
    }
    this.#failure = undefined;
    this.#reached = true;
    this.#lookedAtMs = monotonicMs();
  }

  /** Domains that are there and have no guest yet. */
  #arriving: readonly DomainNumbers[] = [];

  #follow(domains: readonly DomainNumbers[]): void {
    const there = new Map(domains.map(domain => [domain.uuid, domain]));
    for (const [name, domain] of this.#domains) {
      const now = there.get(domain.uuid);
      // One that was started anew between two looks may have another balloon.
      const isSame = now?.id === domain.id;
      if (isSame) there.delete(domain.uuid);
      if (now !== undefined && isSame) domain.update(now.numbers);
      else {
        this.#domains.delete(name);
        this.remove(name);
        this.emit({ guest: name, type: 'disconnected', timeMs: Date.now(), detail: {} });
      }
    }
    this.#arriving = [...there.values()];
  }

  async #admitNew(): Promise<void> {
    for (let at = 0; at < this.#arriving.length; at += DEFINITIONS_AT_ONCE) {
      await Promise.all(
        this.#arriving.slice(at, at + DEFINITIONS_AT_ONCE).map(domain => this.#admit(domain)),
      );
    }
    this.#arriving = [];
  }

  async #admit(domain: DomainNumbers): Promise<void> {
    let xml: string;
    try {
      xml = await this.#asker.ask({ ask: 'definition', uuid: domain.uuid });
    } catch (error) {
      // It ended meanwhile; where libvirt is lost, the next look says so.
      if (error instanceof AerostatError) return;
      throw error;
    }
    const name = cleanedName(domain.name);
    // Two names that differ only in what a name may not have: the second goes by its UUID.
    const known = this.names.includes(name) ? domain.uuid : name;
    const machine = new LibvirtDomain(this.#host, { ...domain, name: known }, xml);
    this.#domains.set(known, machine);
    this.admit(known, machine);
  }
}
