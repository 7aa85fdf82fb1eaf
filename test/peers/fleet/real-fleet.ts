/**
 * A fleet as it is: agents and machines as processes, a cluster of three servers of NATS with three copies, on one machine.
 * Everything is waited for as a condition; how long servers take to choose leaders is theirs to say.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { busTo } from '../../../src/cli/fleet-options.ts';
import type { Bus } from '../../../src/fleet/bus.ts';
import type { AgentStatus } from '../../../src/fleet/status.ts';
import { build } from '../../cli/built.ts';
import { run } from '../../cli/terminal.ts';
import { Hosts } from './hosts.ts';
import { NatsServers } from './nats-servers.ts';

const MIB = 1024 ** 2;
/** What each guest has written, of the memory that it has. */
export const USED = 24 * MIB;
const MEMORY = '64M';
const PERIOD_MS = 500;
const SETTINGS = [`period = "${PERIOD_MS}ms"`, 'replicas = 3', 'settle = "2s"', 'cool-down = "0"'];
const SERVERS = 3;
/** Strangers may send more than a message of ours may have. */
const CONFIGURATION = 'max_payload: 16MB';
/** Only what hangs takes so long: three elections of five streams, one after the other, on a busy machine. */
const PATIENCE_MS = 180_000;

export const NAMES = ['a', 'b', 'c'] as const;
export type Name = (typeof NAMES)[number];

export class RealFleet {
  readonly hosts: Hosts;
  readonly servers: NatsServers;
  readonly bus: Bus;
  readonly #guests = new Set<string>();

  private constructor(hosts: Hosts, servers: NatsServers, bus: Bus) {
    this.hosts = hosts;
    this.servers = servers;
    this.bus = bus;
  }

  static async start(): Promise<RealFleet> {
    build();
    const hosts = new Hosts();
    let servers: NatsServers | undefined;
    try {
      servers = await NatsServers.start(hosts.directory, SERVERS, CONFIGURATION);
      hosts.configure(servers.urls, SETTINGS);
      hosts.joinAll(NAMES);
      await settled(hosts, NAMES);
      const place = { servers: servers.urls, fleet: 'default', credentials: {}, text: {} };
      const bus = await busTo({ ...place, periodMs: PERIOD_MS, replicas: SERVERS }, 'test', false);
      return new RealFleet(hosts, servers, bus);
    } catch (error) {
      await hosts.close();
      await servers?.close();
      throw error;
    }
  }

  get log(): string {
    return `${this.hosts.log}\n${this.servers.log}`;
  }

  statuses(): Promise<(AgentStatus | null)[]> {
    return Promise.all(NAMES.map(host => this.hosts.status(host)));
  }

  async status(host: Name): Promise<AgentStatus> {
    return this.until(`${host} answers`, () => this.hosts.status(host));
  }

  until<Found>(what: string, look: () => Promise<Found | null | undefined | false>): Promise<Found> {
    return until(this.hosts, what, look);
  }

  /** One of `among` leads, and each of them says so, and says that all is well. */
  leader(among: readonly Name[] = NAMES): Promise<Name> {
    return settled(this.hosts, among);
  }

  /** A leader that has looked on for long enough to order something. */
  async orders(among: readonly Name[] = NAMES): Promise<Name> {
    await this.until('a leader that orders', async () => {
      const { code, out, err } = await this.command('plan');
      if (code !== 0 || /has just begun|silent/.test(out)) throw new Error(`plan: ${code}: ${out}${err}`);
      return true;
    });
    return this.leader(among);
  }

  command(...words: string[]) {
    return run(['fleet', ...words, '--config', this.hosts.config]);
  }

  async guest(host: Name, name: string): Promise<void> {
    this.#guests.add(name);
    await this.hosts.guest(host, name, USED, ['--memory', MEMORY]);
    await this.until(`${name} reported`, async () => (await this.hosts.status(host))?.guests);
  }

  /** Where the guest runs, by the machines themselves; more than one host would be a fault. */
  async placesOf(guest: string): Promise<Name[]> {
    const found = await Promise.all(
      NAMES.map(async host => {
        const known = await this.hosts
          .control(host, guest)
          .guests()
          .catch(() => []);
        return known.some(({ connected }) => connected) ? [host] : [];
      }),
    );
    return found.flat();
  }

  /** The one host where it runs; a guest on its way is waited for. */
  async placeOf(guest: string): Promise<Name> {
    const [place] = await this.until(`${guest} in one place`, async () => {
      const places = await this.placesOf(guest);
      return places.length === 1 && places;
    });
    return place;
  }

  /** The machine that a guest left is gone from a host as well: it would be in the way of one that comes back. */
  async isGone(guest: string, host: Name): Promise<void> {
    await this.until(`no ${guest} at ${host}`, async () => !(await this.hosts.has(host, guest)));
  }

  /** Everything that was killed or stopped runs again, all streams have caught up, no host is to be empty. */
  async restore(): Promise<void> {
    this.servers.startAll();
    this.hosts.joinAll(NAMES);
    await this.servers.caughtUp();
    await this.orders();
    for (const host of NAMES) await this.command('undrain', host);
    for (const guest of this.#guests) await this.placeOf(guest);
  }

  async close(): Promise<void> {
    await this.bus.close();
    await this.hosts.close();
    await this.servers.close();
  }
}

const settled = (hosts: Hosts, among: readonly Name[]): Promise<Name> =>
  until(hosts, `a leader among ${among}`, async () => {
    const found = await Promise.all(among.map(host => hosts.status(host)));
    const leaders = found.filter(status => status?.role === 'leader');
    const [leader] = leaders;
    const agreed = found.every(status => status?.leader === leader?.host && status?.nats.error === null);
    return leaders.length === 1 && agreed ? (leader?.host as Name) : null;
  });

async function until<Found>(
  hosts: Hosts,
  what: string,
  look: () => Promise<Found | null | undefined | false>,
): Promise<Found> {
  const deadline = Date.now() + PATIENCE_MS;
  for (let why = ''; ; ) {
    const found = await look().catch((error: Error) => {
      why = error.message;
      return undefined;
    });
    if (found) return found;
    if (Date.now() > deadline) {
      const statuses = await Promise.all(NAMES.map(host => hosts.status(host)));
      throw new Error(`not seen: ${what}\n${why}\n${JSON.stringify(statuses, null, 1)}`);
    }
    await delay(50);
  }
}
