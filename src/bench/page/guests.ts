/**
 * The guests of `bench page`, in a process of their own: kernel, driver and front-end of each, and all of them on one
 * reactor, because a hundred machines of their own would cost more than the daemon that is measured.
 */
import { profile } from '../../balloon/profiles.ts';
import { BalloonDriver } from '../../driver/balloon-driver.ts';
import { schedulerOf } from '../../driver/scheduler.ts';
import { Guest } from '../../guest/guest.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../../memory/page.ts';
import { PageSet } from '../../memory/page-set.ts';
import { monotonicMs, Reactor } from '../../sys/poll.ts';
import { VhostUserFrontend } from '../../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../../vhost-user/shared-memory.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';

export type ToPageGuests =
  /** A guest on each socket, with so much memory. */
  | { readonly kind: 'boot'; readonly socketPaths: readonly string[]; readonly memoryBytes: number }
  /** From now on each uses a little memory every second. */
  | { readonly kind: 'live' }
  /** Breaks free memory up, and lets the host back some pages of it here and there. */
  | { readonly kind: 'scatter' }
  /** Lets the host back all free memory. */
  | { readonly kind: 'touch' };

export type FromPageGuests =
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly message: string };

interface Machine {
  readonly guest: Guest;
  readonly memory: GuestMemory;
  readonly transport: VhostUserFrontend;
  readonly driver: BalloonDriver;
}

/** Messages of the bench wait until the reactor's thread, which blocks in poll(2), looks at Node's own loop. */
const LOOK_MS = 20;
/** Pages that a living guest uses in a second, and the share of its memory that it works on. */
const PAGES_PER_SECOND = 64;
const WORKING_SHARE = 1 / 4;
/** Of scattered memory: how broken up it is, and how many of its free pages the host backs. */
const SCATTERED_DEGREE = 0.6;
const BACKED_SHARE = 1 / 8;

const tell = (message: FromPageGuests): void => tellBench(message);

const reactor = new Reactor();
const machines: Machine[] = [];
let living = false;
/** Which guest lives next. */
let turn = 0;

async function boot(socketPaths: readonly string[], memoryBytes: number): Promise<void> {
  for (const [index, socketPath] of socketPaths.entries()) {
    const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: memoryBytes }] });
    const transport = await VhostUserFrontend.connect(socketPath, { reactor, memory });
    const guest = Guest.boot({ memory, clock: { now: monotonicMs }, seed: index + 1 });
    const driver = new BalloonDriver({
      kernel: guest.kernel,
      transport,
      scheduler: schedulerOf(reactor, monotonicMs),
      profile: profile('virtio'),
    });
    await driver.probe();
    machines.push({ guest, memory, transport, driver });
  }
}

/** Every guest lives once a second, one after the other. */
function live(): void {
  reactor.schedule(LOOK_MS, live);
  if (!living) return;
  const share = Math.ceil((machines.length * LOOK_MS) / 1000);
  for (let count = 0; count < share; count++) machines[turn++ % machines.length].guest.step(PAGES_PER_SECOND);
}

/** Writes to one word of some of the free pages; the host backs them from then on. */
function touchFree({ guest, memory }: Machine, wanted: (pfn: number) => boolean): void {
  const free = new PageSet(Number.MAX_SAFE_INTEGER);
  guest.kernel.allocator.listFree(free, 0);
  free.forEachRun((pfn, count) => {
    for (let page = pfn; page < pfn + count; page++) if (wanted(page)) memory.setU32(gpaOf(page), 1);
  });
}

/** The same pages in every run: bits that are as good as chance (Knuth's multiplicative hash). */
const chosen = (pfn: number): boolean => Math.imul(pfn, 0x9e3779b1) >>> 0 < BACKED_SHARE * 2 ** 32;

async function obey(message: ToPageGuests): Promise<void> {
  switch (message.kind) {
    case 'boot':
      return boot(message.socketPaths, message.memoryBytes);
    case 'live':
      for (const { guest, memory } of machines) {
        guest.start({ kind: 'churn', pages: Math.floor((memory.size * WORKING_SHARE) / PAGE_SIZE) });
      }
      living = true;
      return;
    case 'scatter':
      for (const machine of machines) {
        machine.guest.age({ degree: SCATTERED_DEGREE });
        touchFree(machine, chosen);
      }
      return;
    case 'touch':
      for (const machine of machines) touchFree(machine, () => true);
  }
}

process.on('message', (message: ToPageGuests) => {
  obey(message).then(
    () => tell({ kind: 'done' }),
    (error: Error) => tell({ kind: 'failed', message: error.message }),
  );
});
whenLetGo(() => reactor.stop());
// Ctrl-C reaches the bench as well, which is the one to answer.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
live();
await reactor.run();
for (const { transport, memory } of machines) {
  transport.close();
  memory.close();
}
process.exit();
