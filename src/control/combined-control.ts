/**
 * Guests of several hosts under one contract: each is reached through the control of its own host, under a name of this
 * side's choosing. A host is asked once for all of its guests, and its events come over one subscription. A host that
 * cannot be reached costs its own guests, and no others.
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

export interface GuestRoute {
  /** What the guest is called here. */
  readonly name: string;
  /** The control of its host; guests of one host share it. */
  readonly control: GuestSource;
  /** What that control calls it. */
  readonly remoteName: string;
  /** Where that control's daemon is, for people; absent where it is no daemon. */
  readonly address?: string;
}

/** Guests of several hosts. */
export interface CombinedControl extends GuestControl {
  /** In the order in which they were named. */
  readonly routes: readonly GuestRoute[];
  /** Why nothing is known of some guests, as of the last time that `guests` was asked. */
  failures(): ReadonlyMap<string, AerostatError>;
}

/** Names are unique. The controls stay the caller's. */
export function combinedControl(guests: readonly GuestRoute[]): CombinedControl {
  const routes = new Map(guests.map(route => [route.name, route]));
  const hosts = groupedBy(guests, ({ control }) => control);
  let failures: ReadonlyMap<string, AerostatError> = new Map();
  const routeOf = (name: string): GuestRoute => {
    const route = routes.get(name);
    if (route === undefined) throw new UnknownGuestError(name, [...routes.keys()]);
    return route;
  };
  return {
    routes: guests,
    failures: () => failures,
    ...handlersOf<GuestOperation, GuestStatus>(GUEST_OPERATIONS, operation => async (name, args) => {
      const { control, remoteName } = routeOf(name);
      const answer = await handlerOf(control, operation)(remoteName, args);
      return operation === 'guest' || operation === 'change' ? { ...(answer as GuestStatus), name } : answer;
    }),
    guests: async () => {
      const failed = new Map<string, AerostatError>();
      const known = await Promise.all(
        [...hosts].map(([control, there]) => statusesOf(control, there, failed)),
      );
      failures = failed;
      const byName = new Map(known.flat().map(status => [status.name, status]));
      return guests.flatMap(({ name }) => byName.get(name) ?? []);
    },
    samples: async () => {
      const known = await Promise.all([...hosts].map(([control, there]) => samplesOf(control, there)));
      return Object.assign({}, ...known);
    },
    renewLeases: async args => {
      const answers = await Promise.allSettled([...hosts.keys()].map(control => control.renewLeases(args)));
      return {
        renewed: answers.reduce(
          (sum, answer) => sum + (answer.status === 'fulfilled' ? answer.value.renewed : 0),
          0,
        ),
      };
    },
    subscribe: listener => {
      const leave = [...hosts].map(([control, there]) => {
        const names = groupedBy(there, ({ remoteName }) => remoteName);
        return control.subscribe(event => {
          for (const { name } of names.get(event.guest) ?? []) listener({ ...event, guest: name });
        });
      });
      return () => {
        for (const one of leave) one();
      };
    },
  };
}

/** Guests whose host cannot be reached, or does not know them, are listed with the reason, which goes into `failed`. */
async function statusesOf(
  control: GuestSource,
  there: readonly GuestRoute[],
  failed: Map<string, AerostatError>,
): Promise<GuestStatus[]> {
  const unreached = (name: string, error: unknown): GuestStatus => {
    if (!(error instanceof AerostatError)) throw error;
    failed.set(name, error);
    return statusOf(name, { lastError: error.message });
  };
  try {
    if (there.length === 1) return [{ ...(await control.guest(there[0].remoteName)), name: there[0].name }];
    const byName = new Map((await control.guests()).map(status => [status.name, status]));
    return there.map(({ name, remoteName }) => {
      const status = byName.get(remoteName);
      if (status !== undefined) return { ...status, name };
      return unreached(name, new UnknownGuestError(remoteName, [...byName.keys()]));
    });
  } catch (error) {
    return there.map(({ name }) => unreached(name, error));
  }
}

/** Of the guests that can be reached and have one. */
async function samplesOf(
  control: GuestSource,
  there: readonly GuestRoute[],
): Promise<Readonly<Record<string, StatisticsSample>>> {
  const [first] = there;
  const asked =
    there.length === 1
      ? control.statistics(first.remoteName).then(sample => ({ [first.remoteName]: sample }))
      : control.samples();
  const samples = await asked.catch((error: unknown): Readonly<Record<string, StatisticsSample>> => {
    if (!(error instanceof AerostatError)) throw error;
    return {};
  });
  return Object.fromEntries(
    there.flatMap(({ name, remoteName }) => (remoteName in samples ? [[name, samples[remoteName]]] : [])),
  );
}

function groupedBy<Key, Value>(values: readonly Value[], keyOf: (value: Value) => Key): Map<Key, Value[]> {
  const groups = new Map<Key, Value[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group === undefined) groups.set(keyOf(value), [value]);
    else group.push(value);
  }
  return groups;
}
