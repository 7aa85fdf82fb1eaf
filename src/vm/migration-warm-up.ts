/**
 * The main thread of a machine that leaves or arrives, warmed up: small migrations in post-copy within it, between two memories
 * of a few pages, so that what a guest waits for while it stands still has been compiled and run before. Nothing of it is kept.
 */
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { HeapBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { ByteChannel, ByteTaker } from '../migration/byte-channel.ts';
import { Convergence } from '../migration/convergence.ts';
import { MigrationDestination } from '../migration/destination.ts';
import { DestinationLink, type DestinationMessage } from '../migration/destination-link.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { Clock, DestinationMachine, SourceMachine } from '../migration/machine.ts';
import { PageSender } from '../migration/page-sender.ts';
import { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { MigrationSource } from '../migration/source.ts';
import { SourceLink } from '../migration/source-link.ts';
import { TokenBucket } from '../migration/token-bucket.ts';
import { monotonicMs } from '../sys/poll.ts';

const SLOTS = 128;
const VITAL_SLOTS = 8;
/** Written to before the stop: most of them come later. */
const WRITTEN_SLOTS = 64;
const CONNECTIONS = 2;
const STATE_BYTES = 2 ** 16;

const clock: Clock = {
  nowMs: monotonicMs,
  sleep: (ms, signal) => delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {}),
};

/** Each takes this thread some milliseconds, between which others have their turn. */
export async function warmUpMigration(migrations: number): Promise<void> {
  for (let migration = 0; migration < migrations; migration++) await migrate();
}

async function migrate(): Promise<void> {
  const ram = new Ram(memoryOf(SLOTS));
  const log = new SoftwareDirtyLog(SLOTS);
  const dirty = new SlotBitmap(SLOTS);
  const sent = new SlotBitmap(SLOTS);
  const bucket = new TokenBucket(Number.POSITIVE_INFINITY);
  const page = new Uint8Array(PAGE_SIZE).fill(1);
  for (let slot = 0; slot < SLOTS; slot += 2) ram.write(slot, 1, page, 0);
  const place = placeFor();
  const destination = new MigrationDestination({
    machine: place,
    ramOf: () => place.ram,
    memoryBytesMax: SLOTS * PAGE_SIZE,
    clock,
  });
  const source = new MigrationSource({
    id: new Uint8Array(16),
    ram,
    machine: machineOf(log),
    log,
    dirty,
    sent,
    connector: {
      open: async (index, of) => {
        const [here, there] = pipe();
        let take: (message: DestinationMessage) => void = () => {};
        take = destination.accept(new DestinationLink(there, message => take(message)));
        const sender = new PageSender({ ram, dirty, sent, share: { index, of } });
        return new SourceLink({ channel: here, sender, bucket, clock });
      },
      inquire: async () => 'absent',
    },
    connections: CONNECTIONS,
    convergence: new Convergence({ downtimeMsMax: 0, roundsMax: 2, autoConverge: false }),
    postcopy: { afterRound: 0 },
    clock,
  });
  await source.run();
  await destination.outcome;
}

const memoryOf = (slots: number): GuestMemory =>
  new GuestMemory([
    new MemoryRegion(
      { guestAddress: 0, size: slots * PAGE_SIZE, userAddress: 0 },
      new HeapBacking(slots * PAGE_SIZE),
    ),
  ]);

function machineOf(log: SoftwareDirtyLog): SourceMachine {
  const bytes = new Uint8Array(STATE_BYTES);
  const states = async () => {
    // A patch has something to say then.
    bytes[STATE_BYTES / 2]++;
    return [{ name: 'guest', bytes: bytes.slice() }];
  };
  return {
    stop: async () => log.add(0, WRITTEN_SLOTS),
    resume: async () => {},
    throttle: async () => {},
    save: states,
    saveAhead: states,
    forEachVitalPage: visit => visit(0, VITAL_SLOTS),
    handOver: async () => {},
  };
}

function placeFor(): DestinationMachine & { readonly ram: Ram } {
  const ram = new Ram(memoryOf(SLOTS));
  const missing = new SlotBitmap(SLOTS);
  const latePages = {
    missing: missing.words,
    forget: (_: Ram, start: number, count: number) => ram.clear(start, count),
    place: (start: number, count: number, from: Uint8Array | undefined, at: number) => {
      if (from !== undefined) ram.write(start, count, from, at);
      missing.clear(start, count);
    },
    onFaults: (_: readonly number[]) => {},
    close: async () => {},
  };
  return {
    ram,
    latePages,
    createMemory: async () => {},
    prepare: async () => {},
    load: async () => {},
    // The guest waits for a page at once.
    run: async () => void turn().then(() => latePages.onFaults([SLOTS - 2])),
    abandon: async () => {},
  };
}

/** Two ends of a connection within this thread. */
function pipe(): [ByteChannel, ByteChannel] {
  const takers: (ByteTaker | undefined)[] = [undefined, undefined];
  const end = (own: number): ByteChannel => {
    const close = (): void => {
      for (const index of [0, 1]) {
        const taker = takers[index];
        takers[index] = undefined;
        void turn().then(() => taker?.closed());
      }
    };
    return {
      write: async bytes => {
        // Later, as over a network: who hears it is at nothing else then.
        await turn();
        fill(takers[1 - own], bytes);
      },
      listen: taker => {
        takers[own] = taker;
      },
      close,
      destroy: close,
    };
  };
  return [end(0), end(1)];
}

/** As a socket does that reads into its taker's memory. */
function fill(taker: ByteTaker | undefined, bytes: Uint8Array): void {
  if (taker?.direct === undefined) {
    taker?.data(bytes);
    return;
  }
  for (let at = 0; at < bytes.length; ) {
    const { space } = taker.direct;
    const part = bytes.subarray(at, at + space.length);
    if (part.length === 0) return;
    space.set(part);
    taker.direct.filled(part.length);
    at += part.length;
  }
}
