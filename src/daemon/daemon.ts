/**
 * The daemon's main thread: how many threads it has, the guests that it is started with, and their sockets. Hosting them is
 * `hosting/`'s, which others steer by its {@link Control}.
 */
import { unlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { openGuestSocket } from '../hosting/guest-socket.ts';
import { GuestThreads, type GuestThreadsOptions } from '../hosting/guest-threads.ts';
import { offeredFeatures } from '../hosting/offered-features.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { handOverError } from '../keeping/hand-over.ts';
import { AerostatError } from '../sys/error.ts';
import { closeAll, OwnedFd } from '../sys/fd.ts';
import { readVersion } from '../sys/version.ts';
import { inheritKeeping, type Keeping, type KeptNumbers, openKeeping, queueForKeeper } from './keeping.ts';
import type { Daemon, DaemonOptions, Standby } from './options.ts';
import type { HandedGuest, HandedKeeper, Predecessor } from './predecessor.ts';
import { type KeptSteering, SteeringFiles } from './steering-files.ts';
import type { Successor } from './successor.ts';

/**
 * More data-plane threads than cores gain nothing, and each costs some 10 MiB; a core is left to the guests.
 */
const dataThreadCount = (guests: number): number =>
  Math.max(1, Math.min(guests, Math.ceil(availableParallelism() / 2)));

/**
 * Guests that are kept run before there are threads that discard, and so does the API, which takes less than this: threads
 * that start want a processor.
 */
const DISCARDS_AFTER_MS = 300;

/** A guest that is served, as this thread knows it. */
interface ServedGuest {
  readonly options: GuestOptions;
  /** Where its front-ends come, in place of the descriptor that its thread has; undefined for one that is connected already. */
  readonly listener: OwnedFd | undefined;
  /** The socket's name, which goes with the guest. */
  readonly path: string | undefined;
}

/** What a guest was left with: descriptors by their numbers. */
type OwnedKept = readonly (readonly [number: number, fd: OwnedFd])[];

class RunningDaemon implements Daemon {
  readonly version: string = readVersion();
  servedMs = 0;
  readonly #threads: GuestThreads;
  readonly #guests = new Map<string, ServedGuest>();
  readonly #keeping: Keeping | undefined;
  readonly #steering: SteeringFiles | undefined;
  readonly control: Control<DeviceGuestStatus>;
  #closing: Promise<void> | undefined;

  constructor(
    options: GuestThreadsOptions,
    keeping: Keeping | undefined,
    steering: SteeringFiles | undefined,
  ) {
    this.#keeping = keeping;
    this.#steering = steering;
    const discardsAfterMs = keeping === undefined ? 0 : DISCARDS_AFTER_MS;
    this.#threads = new GuestThreads({ ...options, keeper: keeping?.place, discardsAfterMs });
    const { control } = this.#threads;
    const kept = keeping !== undefined;
    const own = { ...control, daemon: async () => ({ ...(await control.daemon()), kept }) };
    this.control = steering === undefined ? own : writingDown(own, steering);
  }

  get failed(): Promise<Error> {
    return this.#threads.failed;
  }

  /** Resolves when all threads run, and have compiled what taking guests over needs. */
  async warm(): Promise<void> {
    await Promise.all([this.ready, this.control.guests()]);
    await this.#threads.rehearse();
  }

  /** Resolves when all threads run. */
  get ready(): Promise<void> {
    return this.#threads.ready;
  }

  /** All or nothing: when it throws, the name and the path are free again. */
  async open(asked: GuestOptions): Promise<void> {
    const { name, socketPath } = asked;
    checkOptions([...this.#threads.names, name], [asked]);
    const saved = this.#steering?.read(asked);
    const given = saved === undefined ? asked : steeredAs(asked, saved);
    const socket = openGuestSocket(given);
    const owned = new OwnedFd(socket.fd);
    const listener = socket.listening ? owned.duplicate() : undefined;
    owned.release();
    this.#guests.set(name, { options: given, listener, path: socketPath });
    try {
      const kept = this.#keeping?.give(name) ?? [];
      await this.#threads.open(given, { ...socket, kept });
      if (saved !== undefined) await this.#goOnSteering(name, saved, kept.length > 0);
    } catch (error) {
      this.#forget(name);
      // What was inherited is its giver's.
      if (socketPath !== undefined) new OwnedFd(socket.fd).close();
      throw error;
    }
  }

  /** What its options cannot say: a wish for what is left to the guest, and whose its target is. */
  async #goOnSteering(name: string, saved: KeptSteering, isKept: boolean): Promise<void> {
    const { targetBytes, memoryBytes, lease } = saved;
    if (targetBytes === null && memoryBytes === null) return;
    // What is kept of a guest itself is newer than what is in a file; whose its target is, is in the file alone.
    if (isKept && (lease === null || !(await this.#aimsAt(name, saved)))) return;
    const target = memoryBytes === null ? { targetBytes: targetBytes ?? 0 } : { memoryBytes };
    // One that has run out meanwhile runs out at once.
    const lasts = lease && {
      lease: { forMs: Math.max(1, lease.untilMs - Date.now()), onSilence: lease.onSilence },
    };
    await this.#threads.control.change(name, { ...target, ...lasts, force: true });
  }

  async #aimsAt(name: string, { targetBytes, memoryBytes }: KeptSteering): Promise<boolean> {
    const guest = await this.#threads.control.guest(name);
    return guest.targetBytes === (targetBytes ?? (guest.memoryBytes ?? 0) - (memoryBytes ?? 0));
  }

  /** Goes on with a guest of the daemon before. @throws what the guest's thread throws; the guest is as it was then */
  async takeOver(given: GuestOptions, { listener: fd, kept: numbers }: HandedGuest): Promise<void> {
    const listener = new OwnedFd(fd);
    const saved = this.#steering?.read(given);
    await this.#reopen(given, listener, numbers, true);
    if (saved !== undefined) await this.#goOnSteering(given.name, saved, true);
    this.#guests.set(given.name, { options: given, listener, path: given.socketPath });
  }

  /** `listener` stays the caller's. */
  async #reopen(
    options: GuestOptions,
    listener: OwnedFd,
    kept: KeptNumbers,
    handedOver: boolean,
  ): Promise<void> {
    const fd = listener.duplicate().release();
    await this.#threads.open(options, { fd, listening: true, kept, handedOver });
  }

  get keeper(): HandedKeeper {
    const { place, descriptor } = this.#kept();
    return { kind: place.kind, descriptor };
  }

  #kept(): Keeping {
    if (this.#keeping === undefined) {
      throw handOverError(
        'guests of this daemon are not kept, so that no other one can go on with them; start it with --keep',
      );
    }
    return this.#keeping;
  }

  get toHandOver(): readonly string[] {
    this.#kept();
    for (const [name, { listener }] of this.#guests) {
      if (listener === undefined) {
        throw handOverError(`${name} came as a connection (--fd), which cannot be handed over`);
      }
    }
    return [...this.#guests.keys()];
  }

  async handOver(successor: Successor): Promise<void> {
    const left = new Map<string, OwnedKept>();
    try {
      // One by one: no guest waits for many others. While the other one takes a guest up, the next is on its way.
      let underWay = 0;
      for (const name of this.toHandOver) {
        const kept = await this.#threads.leave(name);
        // The other one reads it, and nothing more is ordered of the guest here.
        await this.#steering?.settled();
        const owned = kept.map(([number, fd]) => [number, new OwnedFd(fd)] as const);
        left.set(name, owned);
        await successor.giveGuest(name, this.#guests.get(name)!.listener!, owned);
        if (underWay > 0) await successor.heardTaken();
        else underWay++;
      }
      if (underWay > 0) await successor.heardTaken();
      await successor.finish();
    } catch (error) {
      await successor.kill();
      await this.#takeBack(left);
      throw error;
    } finally {
      for (const kept of left.values()) closeAll(kept.map(([, fd]) => fd));
    }
    // Their sockets are the other one's.
    for (const { listener } of this.#guests.values()) listener?.close();
    this.#guests.clear();
  }

  /** Goes on with guests that were left to a process that is gone: it may have served them for a while. */
  async #takeBack(left: ReadonlyMap<string, OwnedKept>): Promise<void> {
    if (left.size === 0) return;
    const keeping = this.#keeping!;
    // A keeper that is gone has nothing; what was left is here still.
    const kept = await keeping.takeBack().then(
      () => (name: string) => keeping.give(name),
      () => (name: string) =>
        left.get(name)!.map(([number, fd]) => [number, fd.duplicate().release()] as const),
    );
    for (const name of left.keys()) {
      const { options, listener } = this.#guests.get(name)!;
      await this.#reopen(options, listener!, kept(name), false);
    }
    keeping.dropRest();
  }

  async dismiss(name: string): Promise<void> {
    await this.#threads.dismiss(name);
    this.#steering?.forget(name);
    // Now, and not when the daemon ends: by then another process may listen there.
    this.#forget(name);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#threads.close();
    await this.#steering?.settled();
    for (const name of [...this.#guests.keys()]) this.#forget(name);
  }

  #forget(name: string): void {
    const guest = this.#guests.get(name);
    if (guest === undefined) return;
    this.#guests.delete(name);
    guest.listener?.close();
    if (guest.path === undefined) return;
    try {
      unlinkSync(guest.path);
    } catch {
      // Another process removed it; all that matters is that it is gone.
    }
  }
}

/** The control, of which what is ordered of guests is written down for the next daemon. */
const writingDown = (
  control: Control<DeviceGuestStatus>,
  steering: SteeringFiles,
): Control<DeviceGuestStatus> => ({
  ...control,
  change: async (name, changes) => {
    const answer = await control.change(name, changes);
    await steering.ordered(name, changes ?? {});
    return answer;
  },
  renewLeases: async args => {
    const answer = await control.renewLeases(args);
    steering.renewed(args.forMs);
    return answer;
  },
});

/** What was ordered of a guest before wins over what it is started with. */
const steeredAs = (
  options: GuestOptions,
  { targetBytes, memoryBytes, discard, pollIntervalMs }: KeptSteering,
): GuestOptions => ({
  ...options,
  // What it is to keep becomes a target when its memory is known.
  targetBytes: memoryBytes === null ? (targetBytes ?? options.targetBytes) : 0,
  discard: discard ?? options.discard,
  pollIntervalMs: pollIntervalMs ?? options.pollIntervalMs,
});

const steeringFiles = ({ stateDirectory, log }: DaemonOptions): SteeringFiles | undefined =>
  stateDirectory === undefined ? undefined : new SteeringFiles(stateDirectory, log);

/** @throws AerostatError AEROSTAT_OPTIONS when two of `names` are one, or a guest's profile and features do not fit */
function checkOptions(names: readonly string[], guests: readonly GuestOptions[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw optionError(`two guests are called ${name}; give them different --name`);
    seen.add(name);
  }
  for (const { profile, without } of guests) offeredFeatures(profile, without);
}

const optionError = (message: string): AerostatError => new AerostatError('AEROSTAT_OPTIONS', message);

/** Starts the daemon; resolves when every guest's socket listens. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { guests, log, keep, predecessor, meanwhile } = options;
  checkOptions(
    guests.map(({ name }) => name),
    guests,
  );
  if (predecessor !== undefined) return replace(predecessor, options);
  const steering = steeringFiles(options);
  const { standby } = options;
  const keeping =
    standby === undefined || keep === undefined ? await openKeeping(keep, log) : queueForKeeper(keep, log);
  const daemon = new RunningDaemon({ threads: dataThreadCount(guests.length), log }, keeping, steering);
  try {
    const served =
      standby === undefined || keeping === undefined
        ? guests
        : await takeTurn(daemon, keeping, standby, meanwhile);
    // All at once: each thread takes one after the other, as soon as it runs.
    const opened = Promise.all(served.map(guest => daemon.open(guest)));
    // Guests that are kept may wait, and threads need the processor for them.
    if (keeping === undefined) meanwhile?.();
    await opened;
    daemon.servedMs = performance.now();
    if (keeping !== undefined) meanwhile?.();
    keeping?.forgetRest();
    if (keeping === undefined) await daemon.ready;
    return daemon;
  } catch (error) {
    await daemon.close();
    throw error;
  }
}

/** Stands by, with all loaded and every thread there, until the daemon before has ended; returns which guests to serve. */
async function takeTurn(
  daemon: RunningDaemon,
  keeping: Keeping,
  { interrupt, waits, guests }: Standby,
  meanwhile: (() => void) | undefined,
): Promise<readonly GuestOptions[]> {
  meanwhile?.();
  await daemon.warm();
  waits();
  await keeping.takeInTurn(interrupt);
  return guests();
}

/** Takes the place of a daemon that serves still. What fails here is undone by its end: that daemon takes its guests back. */
async function replace(predecessor: Predecessor, options: DaemonOptions): Promise<Daemon> {
  const { guests, log, meanwhile } = options;
  // Its guests are served all the time.
  meanwhile?.();
  const steering = steeringFiles(options);
  const { kind, descriptor } = await predecessor.begin();
  const keeping = inheritKeeping(kind, descriptor, log);
  const daemon = new RunningDaemon({ threads: dataThreadCount(guests.length), log }, keeping, steering);
  // All threads have loaded what they need when they answer: rings stand still only while they change hands.
  await daemon.warm();
  await predecessor.ready(
    readVersion(),
    guests.map(({ name }) => name),
  );
  await predecessor.takeGuests(async handed => {
    const options = guests.find(({ name }) => name === handed.name);
    if (options === undefined) throw handOverError(`${handed.name} is no guest of this daemon`);
    await daemon.takeOver(options, handed);
  });
  daemon.servedMs = performance.now();
  return daemon;
}
