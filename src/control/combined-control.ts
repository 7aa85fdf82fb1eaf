/**
 * Guests of several hosts under one contract: each is reached through the control of its own host, under the name that the
 * host knows it by. However many guests of a host there are, the host is asked once for all of them and has one stream of
 * events. A host that cannot be reached costs its own guests alone.
 */
import { AerostatError } from '../sys/error.ts';
import {
  type GuestChanges,
  type GuestControl,
  type GuestEvent,
  type GuestRequest,
  type GuestStatus,
  type HintAction,
  type HintStatus,
  type RequestAnswer,
  type StatisticsSample,
  statusOf,
  UnknownGuestError,
} from './contract.ts';
import type { MapOptions, MemoryMap } from './memory-map.ts';
import { type Migrations, migrationsOf } from './migrations.ts';

export interface GuestHome {
  /** What the guest is called here. */
  readonly name: string;
  readonly control: GuestControl;
  /** What that control calls it. */
  readonly nameThere: string;
  /**
   * The control reaches each of its guests by a way of its own (a monitor of QEMU's, say): one that does not answer says
   * nothing of the others, so each is asked apart.
   */
  readonly apart?: boolean;
  /** Where that control's daemon is, for people; absent where it is no daemon. */
  readonly address?: string;
}

/** The guests that are reached through one control. */
interface Host {
  readonly control: GuestControl;
  readonly homes: GuestHome[];
}

export class CombinedControl implements GuestControl {
  readonly #homes: ReadonlyMap<string, GuestHome>;
  readonly #hosts: readonly Host[];
  #failures: ReadonlyMap<string, AerostatError> = new Map();
  /** A guest is moved by its own host, where that can. */
  readonly migrations: Migrations = {
    obstacle: async name => this.#migrations(name, (there, nameThere) => there.obstacle(nameThere)),
    start: async (name, order) => this.#migrations(name, (there, nameThere) => there.start(nameThere, order)),
    status: async name => this.#migrations(name, (there, nameThere) => there.status(nameThere)),
    cancel: async name => this.#migrations(name, (there, nameThere) => there.cancel(nameThere)),
  };

  /** Names are unique. The controls stay the caller's. */
  constructor(guests: readonly GuestHome[]) {
    this.#homes = new Map(guests.map(home => [home.name, home]));
    const hosts = new Map<GuestControl, Host>();
    for (const home of guests) {
      const host = hosts.get(home.control) ?? { control: home.control, homes: [] };
      host.homes.push(home);
      hosts.set(home.control, host);
    }
    this.#hosts = [...hosts.values()];
  }

  /** In the order in which they were named. */
  get homes(): readonly GuestHome[] {
    return [...this.#homes.values()];
  }

  /** Where a guest is. @throws UnknownGuestError */
  homeOf(name: string): GuestHome {
    const home = this.#homes.get(name);
    if (home === undefined) throw new UnknownGuestError(name, [...this.#homes.keys()]);
    return home;
  }

  /** In the order in which they were named. Guests whose host cannot be reached, or does not know them, come with the reason. */
  async guests(): Promise<readonly GuestStatus[]> {
    const failures = new Map<string, AerostatError>();
    const lists = await Promise.all(this.#hosts.map(host => this.#guestsOf(host, failures)));
    this.#failures = failures;
    const byName = new Map(lists.flat().map(guest => [guest.name, guest]));
    return [...this.#homes.keys()].flatMap(name => byName.get(name) ?? []);
  }

  /** Why nothing is known of some guests, as of the last time that {@link guests} was asked. */
  get failures(): ReadonlyMap<string, AerostatError> {
    return this.#failures;
  }

  async #guestsOf(
    { control, homes }: Host,
    failures: Map<string, AerostatError>,
  ): Promise<readonly GuestStatus[]> {
    // What is known of a guest that could not be asked.
    const unreached = (name: string, error: unknown): GuestStatus => {
      if (!(error instanceof AerostatError)) throw error;
      failures.set(name, error);
      return statusOf(name, { lastError: error.message });
    };
    if (homes.length === 1 || homes.some(({ apart }) => apart)) {
      return Promise.all(homes.map(({ name }) => this.guest(name).catch(error => unreached(name, error))));
    }
    try {
      const known = new Map((await control.guests()).map(guest => [guest.name, guest]));
      return homes.map(({ name, nameThere }) => {
        const guest = known.get(nameThere);
        if (guest !== undefined) return { ...guest, name };
        return unreached(name, new UnknownGuestError(nameThere, [...known.keys()]));
      });
    } catch (error) {
      return homes.map(({ name }) => unreached(name, error));
    }
  }

  async guest(name: string): Promise<GuestStatus> {
    const { control, nameThere } = this.homeOf(name);
    return { ...(await control.guest(nameThere)), name };
  }

  async change(name: string, changes: GuestChanges): Promise<GuestStatus> {
    const { control, nameThere } = this.homeOf(name);
    return { ...(await control.change(nameThere, changes)), name };
  }

  async statistics(
    name: string,
    options?: { freshMs?: number; timeoutMs?: number },
  ): Promise<StatisticsSample> {
    const { control, nameThere } = this.homeOf(name);
    return control.statistics(nameThere, options);
  }

  /** Of the guests that can be reached and have one. */
  async samples(): Promise<Readonly<Record<string, StatisticsSample>>> {
    const lists = await Promise.all(this.#hosts.map(host => samplesOf(host)));
    return Object.assign({}, ...lists);
  }

  async map(name: string, options?: MapOptions): Promise<MemoryMap> {
    const { control, nameThere } = this.homeOf(name);
    return control.map(nameThere, options);
  }

  async hint(name: string, action: HintAction): Promise<HintStatus> {
    const { control, nameThere } = this.homeOf(name);
    return control.hint(nameThere, action);
  }

  async request(
    name: string,
    request: GuestRequest,
    options?: { timeoutMs?: number },
  ): Promise<RequestAnswer> {
    const { control, nameThere } = this.homeOf(name);
    return control.request(nameThere, request, options);
  }

  subscribe(listener: (event: GuestEvent) => void): () => void {
    const leave = this.#hosts.map(({ control, homes }) => {
      const names = new Map<string, string[]>();
      for (const { name, nameThere } of homes) names.set(nameThere, [...(names.get(nameThere) ?? []), name]);
      return control.subscribe(event => {
        for (const guest of names.get(event.guest) ?? []) listener({ ...event, guest });
      });
    });
    return () => {
      for (const one of leave) one();
    };
  }

  #migrations<Answer>(name: string, ask: (there: Migrations, nameThere: string) => Answer): Answer {
    const { control, nameThere } = this.homeOf(name);
    return ask(migrationsOf(control), nameThere);
  }
}

async function samplesOf({ control, homes }: Host): Promise<Record<string, StatisticsSample>> {
  const known: Record<string, StatisticsSample> = {};
  if (homes.length === 1 || homes.some(({ apart }) => apart)) {
    const answers = await Promise.allSettled(homes.map(({ nameThere }) => control.statistics(nameThere)));
    for (const [index, answer] of answers.entries()) {
      if (answer.status === 'fulfilled') known[homes[index].name] = answer.value;
    }
    return known;
  }
  const samples = await control.samples().catch((): Record<string, StatisticsSample> => ({}));
  for (const { name, nameThere } of homes) {
    const sample = samples[nameThere];
    if (sample !== undefined) known[name] = sample;
  }
  return known;
}
