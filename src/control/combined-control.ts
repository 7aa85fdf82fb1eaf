/**
 * Guests of several hosts under one contract: each is reached through the control of its own host, under a name of its
 * own choosing. A host that cannot be reached costs its own guests, and nobody else's.
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
}

export class CombinedControl implements GuestControl {
  readonly #homes: ReadonlyMap<string, GuestHome>;
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
  }

  /** Where a guest is. @throws UnknownGuestError */
  homeOf(name: string): GuestHome {
    const home = this.#homes.get(name);
    if (home === undefined) throw new UnknownGuestError(name, [...this.#homes.keys()]);
    return home;
  }

  /** Guests whose host cannot be reached, or does not know them, are listed with the reason. */
  guests(): Promise<readonly GuestStatus[]> {
    return Promise.all(
      [...this.#homes.keys()].map(async name => {
        try {
          return await this.guest(name);
        } catch (error) {
          if (!(error instanceof AerostatError)) throw error;
          return statusOf(name, { lastError: error.message });
        }
      }),
    );
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
    const homes = [...this.#homes.values()];
    const answers = await Promise.allSettled(
      homes.map(({ control, nameThere }) => control.statistics(nameThere)),
    );
    const known: Record<string, StatisticsSample> = {};
    for (const [index, answer] of answers.entries()) {
      if (answer.status === 'fulfilled') known[homes[index].name] = answer.value;
    }
    return known;
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
    const leave = [...this.#homes.values()].map(({ name, control, nameThere }) =>
      control.subscribe(event => {
        if (event.guest === nameThere) listener({ ...event, guest: name });
      }),
    );
    return () => {
      for (const one of leave) one();
    };
  }

  #migrations<Answer>(name: string, ask: (there: Migrations, nameThere: string) => Answer): Answer {
    const { control, nameThere } = this.homeOf(name);
    return ask(migrationsOf(control), nameThere);
  }
}
