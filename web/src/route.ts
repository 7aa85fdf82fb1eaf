/** Where on the page one is: all guests, one, the memory policy, or the fleet. Kept in the address's fragment. */
import { Store } from './store.ts';

interface Route {
  /** The guest to show in depth; all at a glance when undefined. */
  readonly guest: string | undefined;
  /** The memory policy of the host. */
  readonly policy: boolean;
  /** Hosts and guests of a fleet. */
  readonly fleet: boolean;
}

/** What a part of an address stands for; undefined where it was cut, or never was one. */
export function decode(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

export const OVERVIEW_LINK = '#/';
export const POLICY_LINK = '#/policy';
export const FLEET_LINK = '#/fleet';

function read(): Route {
  const match = /^#\/guest\/([^/]+)$/.exec(location.hash);
  const policy = location.hash === POLICY_LINK;
  const fleet = location.hash === FLEET_LINK;
  return { guest: match === null ? undefined : decode(match[1]), policy, fleet };
}

export const route = new Store<Route>(read());

/** The address was changed without a word from the browser. */
export const readRoute = (): void => route.set(read());

export const guestLink = (name: string): string => `#/guest/${encodeURIComponent(name)}`;

export function startRoute(): void {
  window.addEventListener('hashchange', () => {
    readRoute();
    window.scrollTo(0, 0);
  });
}
