/** Where on the page one is: all guests, or one. Kept in the address's fragment. */
import { Store } from './store.ts';

interface Route {
  /** The guest to show in depth; all at a glance when undefined. */
  readonly guest: string | undefined;
}

/** What a part of an address stands for; undefined where it was cut, or never was one. */
export function decode(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

function read(): Route {
  const match = /^#\/guest\/([^/]+)$/.exec(location.hash);
  return { guest: match === null ? undefined : decode(match[1]) };
}

export const route = new Store<Route>(read());

export const guestLink = (name: string): string => `#/guest/${encodeURIComponent(name)}`;
export const OVERVIEW_LINK = '#/';

export function startRoute(): void {
  window.addEventListener('hashchange', () => {
    route.set(read());
    window.scrollTo(0, 0);
  });
}
