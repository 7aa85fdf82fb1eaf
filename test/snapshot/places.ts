/** A snapshot of a small memory without a machine, and a place where it is restored and every step is seen. */
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { DestinationMachine, SavedState } from '../../src/migration/machine.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import type { SourceMessage } from '../../src/migration/source-link.ts';
import { FileConnector } from '../../src/snapshot/file-connector.ts';
import { encodeHeader, type SnapshotHeader } from '../../src/snapshot/header.ts';
import { OpenSnapshot, restoreSnapshot } from '../../src/snapshot/restore.ts';
import { SnapshotFile } from '../../src/snapshot/snapshot-file.ts';
import { systemClock } from '../../src/transfer/clock.ts';

export const PAGES = 24;
export const HEADER: SnapshotHeader = {
  name: 'vm1',
  createdMs: Date.UTC(2026, 1, 3),
  id: Uint8Array.from({ length: 16 }, (_, at) => at + 1),
};
export const STATES: readonly SavedState[] = [
  { name: 'guest', bytes: new TextEncoder().encode('books of the guest') },
  { name: 'device', bytes: new Uint8Array(300).fill(9) },
];

const memoryOf = (bytes: number): Ram =>
  new Ram(
    new GuestMemory([
      new MemoryRegion({ guestAddress: 0, size: bytes, userAddress: 0 }, new HeapBacking(bytes)),
    ]),
  );

/** Every third page holds something. */
export function usedMemory(): Ram {
  const ram = memoryOf(PAGES * PAGE_SIZE);
  for (let page = 0; page < PAGES; page += 3) {
    ram.write(page, 1, new Uint8Array(PAGE_SIZE).fill(page + 1), 0);
  }
  return ram;
}

interface Writing {
  readonly compress?: boolean;
  readonly header?: SnapshotHeader;
  /** What is said in place of what should be. */
  readonly messages?: (honest: readonly Said[]) => readonly Said[];
}

type Said = SourceMessage | 'pages';

/** Writes a snapshot as a migration's source does, and does not finish it. */
export async function written(
  path: string,
  { compress = false, header = HEADER, messages = said => said }: Writing = {},
): Promise<SnapshotFile> {
  const file = await SnapshotFile.create(path, encodeHeader(header));
  const ram = usedMemory();
  const dirty = new SlotBitmap(ram.slots);
  dirty.setAll();
  const sent = new SlotBitmap(ram.slots);
  const link = await new FileConnector({ file, ram, dirty, sent, clock: systemClock }).open();
  const features = compress ? 1 : 0;
  const said = messages([
    { kind: 'hello', id: header.id, purpose: 'migrate', connection: 0, connections: 1, features },
    { kind: 'memory', regions: [{ guestAddress: 0, size: PAGES * PAGE_SIZE, pageSize: PAGE_SIZE }] },
    'pages',
    ...STATES.map(state => ({ kind: 'state', ...state }) as const),
    { kind: 'end' },
    { kind: 'go' },
  ]);
  for (const message of said) {
    if (message === 'pages') await link.sendPages();
    else await link.send(message);
    if (message !== 'pages' && message.kind === 'memory') link.useFeatures(features);
  }
  return file;
}

export class Place implements DestinationMachine {
  ram = memoryOf(PAGE_SIZE);
  loaded: readonly SavedState[] = [];
  runs = false;
  abandoned = false;

  async createMemory(regions: readonly { readonly size: number }[]): Promise<void> {
    this.ram = memoryOf(regions.reduce((sum, { size }) => sum + size, 0));
  }

  async load(states: readonly SavedState[]): Promise<void> {
    this.loaded = states;
  }

  async run(): Promise<void> {
    this.runs = true;
  }

  async abandon(): Promise<void> {
    this.abandoned = true;
  }
}

/** Restores it; throws what that throws. */
export async function restored(path: string, memoryBytesMax = PAGES * PAGE_SIZE): Promise<Place> {
  const place = new Place();
  await restoreInto(place, path, memoryBytesMax);
  return place;
}

export async function restoreInto(
  place: Place,
  path: string,
  memoryBytesMax = PAGES * PAGE_SIZE,
  signal?: AbortSignal,
): Promise<void> {
  const snapshot = await OpenSnapshot.open(path);
  try {
    await restoreSnapshot(snapshot.header, snapshot, {
      path,
      machine: place,
      ramOf: () => place.ram,
      memoryBytesMax,
      clock: systemClock,
      ...(signal === undefined ? {} : { signal }),
    });
  } finally {
    await snapshot.close();
  }
}
