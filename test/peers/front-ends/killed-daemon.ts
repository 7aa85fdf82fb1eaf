/**
 * A guest whose daemon is killed with -9, or replaced by another process, at work: while it gives memory, takes it back, uses it
 * and checks it, and while it hints, reports and answers over the free page channels of its devices. Where the guest is from is
 * its caller's.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, vi } from 'vitest';
import { type ProfileName, profile } from '../../../src/balloon/profiles.ts';
import type { DeviceGuestStatus } from '../../../src/control/contract.ts';
import { Random } from '../../../src/guest/random.ts';
import type { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import { freeMemory, useMemory } from '../../../src/peers/linux/workloads.ts';
import type { KeptDaemon } from '../../support/kept-daemon.ts';
import { RingStalls, type Stall } from '../../support/ring-stalls.ts';
import { checksummedFiles, verifyFiles } from '../linux/checked-workloads.ts';

const MIB = 2 ** 20;
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
/** How often each guest's daemon is killed and upgraded, where it is asked for. */
const { AEROSTAT_KILLS, AEROSTAT_UPGRADES, AEROSTAT_MINUTES } = process.env;
export const ENDS_ASKED =
  AEROSTAT_KILLS === undefined && AEROSTAT_UPGRADES === undefined
    ? undefined
    : { kills: Number(AEROSTAT_KILLS ?? 0), upgrades: Number(AEROSTAT_UPGRADES ?? 0) };
/** A guest that has not had them all after so long has had enough; its figures say how many there were. */
const ENDS_MS_MAX = Number(AEROSTAT_MINUTES ?? Number.POSITIVE_INFINITY) * 60_000;
/** Of random content, under checksums. */
const KEPT_BYTES = 16 * MIB;
/** Checksums are looked at after so many. */
const CHECK_EVERY = 25;
const USED_BYTES = 16 * MIB;
/** What a guest's kernel does on the side while it is looked at. */
const SLACK_BYTES = 48 * MIB;
const PATIENCE_MS = 60_000;

/** A device of the guest, and what its driver does on it. */
export interface KilledDevice {
  readonly name: string;
  readonly profile: ProfileName;
  /** The kernel reports free pages to one device. */
  readonly reports: boolean;
}

/** How often a daemon is killed with -9, and how often another process takes its place. */
interface Ends {
  readonly kills: number;
  readonly upgrades: number;
}

/** What a guest does beside its balloon. */
interface WorkingGuest {
  /** It has so much of random content from now on, which `verify` looks at. */
  keep(bytes: number): Promise<void>;
  verify(): Promise<void>;
  /** It uses so much, and needs it no more. */
  use(bytes: number): Promise<void>;
  freeBytes(): Promise<number>;
  /** What it has said against its devices and its memory since it was first asked. */
  complaints(): Promise<string[]>;
}

interface KilledWorld {
  readonly kept: KeptDaemon;
  readonly guest: WorkingGuest;
  readonly devices: readonly KilledDevice[];
}

export async function workingLinux(guest: LinuxGuest): Promise<WorkingGuest> {
  const booted = (await guest.kernelLog()).length;
  return {
    keep: bytes => checksummedFiles(guest, bytes),
    verify: () => verifyFiles(guest),
    async use(bytes) {
      await useMemory(guest, bytes);
      await freeMemory(guest);
    },
    freeBytes: async () => (await guest.meminfo()).MemFree,
    async complaints() {
      const log = (await guest.kernelLog()).slice(booted);
      return log.match(/.*(BUG|WARNING|Oops|segfault|Bad page|virtio.*(error|broken)).*/g) ?? [];
    },
  };
}

/** What the guest is in the middle of when its daemon ends. */
type Moment = 'any' | 'hinting' | 'reporting' | 'answering';

const kindOf = ({ profile: name }: KilledDevice) => profile(name).freePages.kind;

/** Each with the device that it is about; all of them come, in turns. */
function momentsOf(devices: readonly KilledDevice[]): readonly (readonly [Moment, KilledDevice])[] {
  const own = devices.flatMap((device): (readonly [Moment, KilledDevice])[] => [
    ...(kindOf(device) === 'session' ? [['hinting', device] as const] : []),
    ...(kindOf(device) === 'request' ? [['answering', device] as const] : []),
    ...(device.reports ? [['reporting', device] as const] : []),
  ]);
  return [...own, ...own.map(() => ['any', devices[0]] as const)];
}

class Killing {
  readonly #world: KilledWorld;
  readonly #random = new Random(SEED);
  readonly met = new Map<Moment, number>();

  constructor(world: KilledWorld) {
    this.#world = world;
  }

  get #control() {
    return this.#world.kept.daemon.control;
  }

  async until(
    name: string,
    what: string,
    met: (status: DeviceGuestStatus) => boolean,
  ): Promise<DeviceGuestStatus> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const status = await this.#control.guest(name);
      if (met(status)) return status;
      if (performance.now() > deadline) {
        throw new Error(`${what} never came: ${JSON.stringify(status)}\n${this.#world.kept.daemon.log}`);
      }
      await delay(5);
    }
  }

  /** Targets come and go, and so does memory that the guest uses, until it is told to stop. */
  async live(seed: number, goesOn: () => boolean): Promise<void> {
    const { guest, devices } = this.#world;
    const random = new Random(seed);
    while (goesOn()) {
      const { name } = devices[random.below(devices.length)];
      const targetBytes = random.below(Math.floor(24 / devices.length)) * 8 * MIB;
      // The daemon may be gone just now.
      await this.#control.change(name, { targetBytes, force: true }).catch(() => {});
      if (random.chance(0.3)) await guest.use(USED_BYTES);
      else await delay(random.below(100));
    }
  }

  /** Resolves in the middle of it. */
  async comeTo(moment: Moment, { name }: KilledDevice): Promise<void> {
    await delay(this.#random.below(250));
    if (moment === 'hinting') {
      await this.#hinted(name);
    } else if (moment === 'answering') {
      this.#control.request(name, { request: 'unused-pages' }).catch(() => {});
      await delay(this.#random.below(20));
    } else if (moment === 'reporting') {
      // Of this daemon: the figure begins with each anew.
      await this.until(name, 'a report', ({ reportedBytes }) => (reportedBytes ?? 0) > 0);
    }
    this.met.set(moment, (this.met.get(moment) ?? 0) + 1);
  }

  /** A guest whose balloon has all that is free in large blocks ends its session at once, and is asked again. */
  async #hinted(name: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    for (let hinted = 0; hinted === 0; ) {
      if (performance.now() > deadline) throw new Error(`${name} hints nothing, however often it is asked`);
      await this.#control.hint(name, { action: 'start' });
      const { hint } = await this.until(
        name,
        'a hint',
        ({ hint }) => (hint?.hintedBytes ?? 0) > 0 || hint?.state === 'stopped',
      );
      hinted = hint?.hintedBytes ?? 0;
    }
  }

  /** With the last daemon, each device does what it can. */
  async channelsWork(): Promise<void> {
    const { guest, devices } = this.#world;
    for (const device of devices) {
      const { name } = device;
      if (kindOf(device) === 'request') {
        const { unusedBytes } = await this.#control.request(name, { request: 'unused-pages' });
        expect(unusedBytes).toBeGreaterThan(0);
      }
      if (kindOf(device) === 'session') {
        await this.#control.hint(name, { action: 'start' });
        const { hint } = await this.until(name, 'the end of hints', ({ hint }) => hint?.state === 'stopped');
        expect(hint.hintedBytes).toBeGreaterThan(0);
        await this.#control.hint(name, { action: 'done' });
      }
      if (device.reports) {
        const { reportedBytes } = await this.#control.guest(name);
        await guest.use(2 * USED_BYTES);
        await this.until(name, 'a report', status => status.reportedBytes! > reportedBytes!);
      }
    }
  }
}

/** Whether each end in a row is an upgrade: they are spread over all. */
const isUpgrade = ({ kills, upgrades }: Ends, at: number): boolean =>
  Math.floor(((at + 1) * upgrades) / (kills + upgrades)) > Math.floor((at * upgrades) / (kills + upgrades));

/**
 * Ends the daemon as often as `ends` says, in turns while a device hints, answers, reports, and at any moment; each moment is
 * met by kills and by upgrades. The guest must not notice: its checksums hold, it complains of nothing, all targets are reached
 * in the end, and it has its memory back.
 */
export async function survivesEnds(title: string, world: KilledWorld, ends: Ends): Promise<void> {
  const { kept, guest, devices } = world;
  const random = new Random(SEED);
  const killing = new Killing(world);
  const moments = momentsOf(devices);
  const beganMs = performance.now();
  await guest.keep(KEPT_BYTES);
  // What a daemon told its keeper may wait in the socket still.
  const watched = await vi.waitFor(() => RingStalls.ofKeeper(kept.keeperPid, devices), PATIENCE_MS);
  const stalls: Stall[] = [];
  const freeBytes = await guest.freeBytes();
  const met = { kill: 0, upgrade: 0 };
  const all = ends.kills + ends.upgrades;
  const isLate = () => performance.now() - beganMs > ENDS_MS_MAX;
  for (let done = 0; done < all && !isLate(); ) {
    let running = true;
    const life = killing.live(random.below(2 ** 31), () => running);
    life.catch(() => {});
    const round = Math.min(all, done + CHECK_EVERY);
    try {
      for (; done < round; done++) {
        const way = isUpgrade(ends, done) ? 'upgrade' : 'kill';
        await killing.comeTo(...moments[met[way]++ % moments.length]);
        if (way === 'upgrade') await kept.upgrade();
        else await kept.restart('SIGKILL');
        // What a ring waits for this one is looked at with the next.
        stalls.push(watched.takeLongest());
      }
    } finally {
      running = false;
    }
    await life;
    await guest.verify();
    if (done % (4 * CHECK_EVERY) === 0) console.info(`${title}: ${done} of ${all}`);
  }
  if (!isLate()) expect(met).toEqual({ kill: ends.kills, upgrade: ends.upgrades });
  for (const { name } of devices) {
    for (const target of [Math.floor(160 / devices.length) * MIB, 0]) {
      const { balloonedBytes } = await kept.daemon.reach(name, target);
      expect(balloonedBytes).toBe(target);
    }
  }
  await killing.channelsWork();
  await guest.verify();
  stalls.push(watched.takeLongest());
  watched.stop();
  // Rings that never move are others than the guest's.
  for (const { name } of devices) {
    for (const ring of ['inflate', 'deflate'])
      expect(watched.moves.get(`${name}'s ${ring}`)).toBeGreaterThan(0);
  }
  await expect
    .poll(() => guest.freeBytes(), { timeout: PATIENCE_MS })
    .toBeGreaterThan(freeBytes - SLACK_BYTES);
  expect(await guest.complaints()).toEqual([]);
  const asked = new Set(moments.slice(0, Math.max(ends.kills, ends.upgrades)).map(([moment]) => moment));
  expect(new Set(killing.met.keys())).toEqual(asked);
  if (ENDS_ASKED !== undefined) {
    const when = [...killing.met].map(([moment, times]) => `${moment} ${times}`).join(', ');
    const tookS = Math.round((performance.now() - beganMs) / 1000);
    const [down, handedOver] = [kept.downMsMax, kept.handOverMsMax].map(Math.round);
    console.info(
      `${title}: ${met.kill} kills, ${met.upgrade} upgrades in ${tookS} s (${when}), no daemon for ${down} ms at most, a hand-over took ${handedOver} ms at most; ${stallsOf(stalls)} (looks ${Math.round(watched.apartMsMax)} ms apart at most)`,
    );
  }
}

/** The longest stall of a ring, and what parts of the ends had no longer one. */
function stallsOf(stalls: readonly Stall[]): string {
  const rising = stalls.toSorted((a, b) => a.ms - b.ms);
  const within = (part: number) => Math.round(rising[Math.ceil(part * rising.length) - 1].ms);
  const { ms, ring } = rising[rising.length - 1];
  return `a ring stood still for ${Math.round(ms)} ms at most (${ring}; ${within(0.99)} ms in 99 %, ${within(0.5)} ms in half of all)`;
}
