/**
 * Hosts that may receive, by the memory that they have left, the one with most first. A guest that does not fit there fits
 * nowhere, so a search looks at a few hosts, however large the fleet is.
 */
import { type Cost, costOf } from './cost.ts';
import type { Settled } from './settings.ts';
import { reserveFor, type Site, type Sites } from './sites.ts';
import type { FleetGuest, LeftHost, Stay } from './types.ts';

/** So many hosts with the most memory left are compared for a guest. */
const COMPARED_MAX = 8;

export interface Destination {
  readonly site: Site;
  readonly cost: Cost;
}

export class Receivers {
  readonly #sites: Sites;
  readonly #settings: Settled;
  readonly #sorted: Site[];

  constructor(sites: Sites, settings: Settled) {
    this.#sites = sites;
    this.#settings = settings;
    this.#sorted = sites.all.filter(site => site.receives && site.arriving < settings.arrivesMax);
    this.#sorted.sort((a, b) => this.#compare(a, b));
  }

  #compare(a: Site, b: Site): number {
    const { headroom } = this.#settings;
    return b.slackBytes(headroom) - a.slackBytes(headroom) || (a.name < b.name ? -1 : 1);
  }

  /** Of the hosts with the most memory left, the one to which `guest` moves at the least cost; or why there is none. */
  placeFor(guest: FleetGuest, source: Site, left: readonly LeftHost[]): Destination | Stay {
    const bytes = reserveFor(guest);
    let best: Destination | undefined;
    let why: Stay = 'room';
    let compared = 0;
    for (const site of this.#sorted) {
      this.#sites.looks++;
      if (site.slackBytes(this.#settings.headroom) < bytes) break;
      if (site === source) continue;
      if (left.some(({ host }) => host === site.name)) {
        if (why === 'room') why = 'cool-down';
        continue;
      }
      const cost = costBetween(guest, source, site);
      if (cost === undefined) why = 'link';
      // Of equal ones the first: it has more memory left.
      else if (best === undefined || cost.sendMs < best.cost.sendMs) best = { site, cost };
      if (++compared === COMPARED_MAX) break;
    }
    return best ?? why;
  }

  /** As `placeFor`, where people want the guest on `site`. */
  judge(guest: FleetGuest, source: Site, site: Site, left: readonly LeftHost[]): Destination | Stay {
    if (!site.receives) return 'receiver';
    if (site.arriving >= this.#settings.arrivesMax) return 'bound';
    if (site.slackBytes(this.#settings.headroom) < reserveFor(guest)) return 'room';
    if (left.some(({ host }) => host === site.name)) return 'cool-down';
    const cost = costBetween(guest, source, site);
    return cost === undefined ? 'link' : { site, cost };
  }

  /** `site` has less left than before. */
  changed(site: Site): void {
    const from = this.#sorted.indexOf(site);
    if (from < 0) return;
    this.#sorted.splice(from, 1);
    if (site.arriving >= this.#settings.arrivesMax) return;
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(this.#sorted[middle], site) < 0) low = middle + 1;
      else high = middle;
    }
    this.#sorted.splice(low, 0, site);
  }
}

const costBetween = (guest: FleetGuest, source: Site, site: Site): Cost | undefined =>
  costOf(guest, Math.min(source.linkShare, site.linkShare));
