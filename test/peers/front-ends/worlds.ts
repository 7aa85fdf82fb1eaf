/**
 * Daemons with their guests, for tests that say what they need. The next test that needs the same goes on with what the
 * last one left, once that is put in order.
 */
import type { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import { WORK_DIRECTORY } from '../../../src/peers/linux/init.ts';
import { DaemonProcess } from '../../support/daemon.ts';
import type { FrontEnd } from './front-ends.ts';

export interface Wanted {
  /** Features that the device leaves out, beside the front-end's own. */
  readonly without?: readonly string[];
  /** Further words for the daemon. */
  readonly words?: readonly string[];
  /** A second guest, `h`, beside `g`. */
  readonly pair?: boolean;
}

export class World {
  readonly daemon: DaemonProcess;
  readonly #frontEnd: FrontEnd;
  readonly #guests = new Map<string, LinuxGuest>();

  constructor(frontEnd: FrontEnd, daemon: DaemonProcess) {
    this.#frontEnd = frontEnd;
    this.daemon = daemon;
  }

  get control() {
    return this.daemon.control;
  }

  has(name: string): boolean {
    return this.#guests.has(name);
  }

  guest(name = 'g'): LinuxGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new Error(`no guest ${name}`);
    return guest;
  }

  readonly reach = (bytes: number, name = 'g') => this.daemon.reach(name, bytes);

  readonly untilGuest: DaemonProcess['untilGuest'] = (name, met) => this.daemon.untilGuest(name, met);

  /** Boots the guest that has this name; it has the socket to itself. */
  async boot(name = 'g'): Promise<LinuxGuest> {
    const guest = await this.#frontEnd.boot(this.daemon.socketOf(name));
    this.#guests.set(name, guest);
    return guest;
  }

  /** Ends a guest as SIGKILL does, and waits until it is gone. */
  async kill(name = 'g'): Promise<void> {
    const guest = this.guest(name);
    this.#guests.delete(name);
    await guest.kill();
    await guest.exited;
  }

  /** As a guest is that has just booted: no balloon, no hints, no files, its driver loaded. */
  async tidy(): Promise<void> {
    for (const [name, guest] of this.#guests) {
      if ((await guest.balloonDevices()) === 0) await guest.loadBalloonDriver(1);
      await this.reach(0, name);
      const { hint } = await this.control.guest(name);
      if (hint.state === 'stopped' || hint.state === 'running')
        await this.control.hint(name, { action: 'done' });
      await guest.check(`rm -rf ${WORK_DIRECTORY}/* && echo 3 >/proc/sys/vm/drop_caches`);
    }
  }

  async end(): Promise<void> {
    await Promise.all([...this.#guests.values()].map(guest => guest.shutdown()));
    await this.daemon.stop();
  }
}

interface Kept extends Omit<Required<Wanted>, 'pair'> {
  readonly world: World;
}

const sameWords = (a: readonly string[], b: readonly string[]) => a.join('\n') === b.join('\n');

const serves = (kept: Kept, { without, words, pair }: Required<Wanted>): boolean =>
  sameWords(kept.without, without) && sameWords(kept.words, words) && (!pair || kept.world.has('h'));

export class Worlds {
  readonly #frontEnd: FrontEnd;
  #kept: Kept | undefined;

  constructor(frontEnd: FrontEnd) {
    this.#frontEnd = frontEnd;
  }

  /** A daemon and its guests, as if they had just started. */
  async lease({ without = [], words = [], pair = false }: Wanted = {}): Promise<World> {
    const wanted = { without, words, pair };
    if (this.#kept !== undefined && serves(this.#kept, wanted)) {
      try {
        await this.#kept.world.tidy();
        return this.#kept.world;
      } catch {
        // The last test left it in no order at all, and has failed for it; this one shall not.
      }
    }
    await this.end();
    const world = await this.#start(wanted);
    this.#kept = { without, words, world };
    return world;
  }

  async end(): Promise<void> {
    const kept = this.#kept;
    this.#kept = undefined;
    await kept?.world.end();
  }

  async #start({ without, words, pair }: Required<Wanted>): Promise<World> {
    const left = [...this.#frontEnd.without, ...without];
    const names = pair ? ['g', 'h'] : ['g'];
    const daemon = await DaemonProcess.start(names, [
      ...(left.length > 0 ? ['--without', left.join(',')] : []),
      ...words,
    ]);
    const world = new World(this.#frontEnd, daemon);
    const boots = await Promise.allSettled(names.map(name => world.boot(name)));
    const failed = boots.find(boot => boot.status === 'rejected');
    if (failed === undefined) return world;
    await world.end();
    throw failed.reason;
  }
}
