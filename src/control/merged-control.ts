/**
 * Guests of several sources that come and go under one contract: daemons with all their guests, folders of monitors,
 * libvirts, and guests that were named one by one. A guest is called as its source calls it; of guests with one name in
 * several sources each is called SOURCE/NAME. A source that does not answer costs its own guests, and no others.
 */
import { AerostatError } from '../sys/error.ts';
import { type GuestStatus, type StatisticsSample, statusOf } from './contract.ts';
import { UnknownGuestError } from './errors.ts';
import { handlerOf } from './handlers.ts';
import {
  GUEST_OPERATIONS,
  type GuestControl,
  type GuestOperation,
  type GuestSource,
  handlersOf,
} from './operations.ts';
import { PatientQuestion } from './patient-question.ts';

/** A list of all guests is not held up by one source for longer. Monitors say within half of it who holds them. */
const PATIENCE_MS = 4000;

export interface MergedSource {
  /** What it is called: in front of names that are not unique, and in its own row while it does not answer. */
  readonly label: string;
  readonly control: GuestSource & {
    /** Why nothing is known of some of its guests, as of the last time that all were asked for. */
    failures?(): ReadonlyMap<string, AerostatError>;
  };
  /** Its guests, where these names are the user's own: they are always listed, and never called anything else. */
  readonly names?: readonly string[];
}

export interface MergedControl extends GuestControl {
  /** Why nothing is known of some guests, as of the last time that `guests` was asked. */
  failures(): ReadonlyMap<string, AerostatError>;
}

interface Place {
  readonly source: MergedSource;
  readonly remoteName: string;
}

/** What a source said last. */
interface Listed {
  readonly source: MergedSource;
  readonly guestsAsked: PatientQuestion<readonly GuestStatus[]>;
  readonly samplesAsked: PatientQuestion<Readonly<Record<string, StatisticsSample>>>;
  guests: readonly GuestStatus[];
  failure: AerostatError | undefined;
}

/** Labels are unique, and so are all `names`. The controls stay the caller's. */
export function mergedControl(
  sources: readonly MergedSource[],
  { patienceMs = PATIENCE_MS } = {},
): MergedControl {
  const directory = new Directory(sources, patienceMs);
  return {
    failures: () => directory.failures,
    ...handlersOf<GuestOperation, GuestStatus>(GUEST_OPERATIONS, operation => async (name, args) => {
      const { source, remoteName } = await directory.placeOf(name);
      const answer = await handlerOf(source.control, operation)(remoteName, args);
      return operation === 'guest' || operation === 'change' ? { ...(answer as GuestStatus), name } : answer;
    }),
    guests: () => directory.list(),
    samples: () => directory.samples(),
    renewLeases: async args => {
      const answers = await Promise.allSettled(sources.map(({ control }) => control.renewLeases(args)));
      const renewed = answers.map(answer => (answer.status === 'fulfilled' ? answer.value.renewed : 0));
      return { renewed: renewed.reduce((sum, count) => sum + count, 0) };
    },
    subscribe: listener => {
      const leave = sources.map(source =>
        source.control.subscribe(event =>
          listener({ ...event, guest: directory.nameOf(source, event.guest) }),
        ),
      );
      return () => {
        for (const one of leave) one();
      };
    },
  };
}

/** Which guest is where, as of the last list. */
class Directory {
  readonly #listed: readonly Listed[];
  readonly #patienceMs: number;
  #places: ReadonlyMap<string, Place> = new Map();
  failures: ReadonlyMap<string, AerostatError> = new Map();

  constructor(sources: readonly MergedSource[], patienceMs: number) {
    this.#patienceMs = patienceMs;
    this.#listed = sources.map(source => ({
      source,
      guestsAsked: new PatientQuestion(() => source.control.guests()),
      samplesAsked: new PatientQuestion(() => source.control.samples()),
      guests: (source.names ?? []).map(name => statusOf(name, {})),
      failure: undefined,
    }));
    this.#places = this.#placed();
  }

  async list(): Promise<readonly GuestStatus[]> {
    await Promise.all(this.#listed.map(listed => this.#ask(listed)));
    this.#places = this.#placed();
    const failures = new Map<string, AerostatError>();
    const rows = this.#listed.flatMap(({ source, guests, failure }) => {
      if (failure !== undefined && guests.length === 0) {
        failures.set(source.label, failure);
        return [statusOf(source.label, { lastError: failure.message })];
      }
      const inside = source.control.failures?.() ?? new Map<string, AerostatError>();
      return guests.map(status => {
        const name = this.nameOf(source, status.name);
        const why = failure ?? inside.get(status.name);
        if (why !== undefined) failures.set(name, why);
        return failure === undefined ? { ...status, name } : statusOf(name, { lastError: failure.message });
      });
    });
    this.failures = failures;
    return rows;
  }

  /** Of the sources that answer in time. */
  async samples(): Promise<Readonly<Record<string, StatisticsSample>>> {
    const known = await Promise.all(
      this.#listed.map(async ({ source, samplesAsked }) => {
        const samples = await samplesAsked.within(this.#patienceMs, tooLate(source, this.#patienceMs));
        if (samples instanceof AerostatError) return [];
        return Object.entries(samples).map(([name, sample]) => [this.nameOf(source, name), sample] as const);
      }),
    );
    return Object.fromEntries(known.flat());
  }

  /** A guest that is not in the last list may have come since. @throws UnknownGuestError */
  async placeOf(name: string): Promise<Place> {
    if (!this.#places.has(name)) await this.list();
    const place = this.#places.get(name);
    if (place === undefined) throw new UnknownGuestError(name, [...this.#places.keys()]);
    return place;
  }

  nameOf(source: MergedSource, remoteName: string): string {
    if (source.names !== undefined) return remoteName;
    const others = this.#listed.some(
      other => other.source !== source && other.guests.some(guest => guest.name === remoteName),
    );
    return others ? `${source.label}/${remoteName}` : remoteName;
  }

  async #ask(listed: Listed): Promise<void> {
    const late = tooLate(listed.source, this.#patienceMs);
    const answer = await listed.guestsAsked.within(this.#patienceMs, late);
    if (answer instanceof AerostatError) {
      listed.failure = answer;
      return;
    }
    listed.failure = undefined;
    listed.guests = answer;
  }

  #placed(): ReadonlyMap<string, Place> {
    return new Map(
      this.#listed.flatMap(({ source, guests }) =>
        guests.map(({ name }) => [this.nameOf(source, name), { source, remoteName: name }] as const),
      ),
    );
  }
}

const tooLate = ({ label }: MergedSource, patienceMs: number) =>
  new AerostatError('AEROSTAT_UNREACHABLE', `${label} did not answer within ${patienceMs / 1000}s`);
