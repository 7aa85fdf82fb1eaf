/** The process where guests arrive in `bench migrate`: a place for one, its connections, and a look at what came. */
import { setTimeout as delay } from 'node:timers/promises';
import { MigrationDestination } from '../../migration/destination.ts';
import { InvariantError } from '../../sys/error.ts';
import { systemClock } from '../../transfer/clock.ts';
import { TransferListener } from '../../transfer/listener.ts';
import { IncomingVm } from '../../vm/incoming-vm.ts';
import type { Vm } from '../../vm/vm.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';

/** `open` makes room for a guest of so many bytes; `look` is for a guest that is here. */
export type ToPlace = { readonly kind: 'open'; readonly memoryBytes: number } | { readonly kind: 'look' };

export type FromPlace =
  | { readonly kind: 'listening'; readonly port: number }
  /** The guest has checked all that it ever wrote, and runs. */
  | {
      readonly kind: 'seen';
      readonly checkedBytes: number;
      readonly residentBytes: number;
      /** The guest's work in a millisecond while its memory came; null where it did not come late, or soon. */
      readonly arrivingWorkPerMs: number | null;
    }
  | { readonly kind: 'failed'; readonly message: string };

const tell = (message: FromPlace): void => tellBench(message);

let place: IncomingVm | undefined;
let arriving: Promise<number | null> = Promise.resolve(null);

/** Between two looks at whether all of the memory has come. */
const LOOK_MS = 10;
/** Shorter than this, a count of work says nothing. */
const WORK_MS_MIN = 100;

async function open(memoryBytes: number): Promise<void> {
  const opened = await IncomingVm.open();
  place = opened;
  const destination = new MigrationDestination({
    machine: opened,
    ramOf: () => opened.ram,
    memoryBytesMax: memoryBytes,
    clock: systemClock,
    observer: phase => {
      if (phase === 'running') arriving = workWhileArriving(opened.vm, destination);
    },
  });
  const { address } = await TransferListener.open({
    address: { host: '127.0.0.1', port: 0 },
    accept: inlet => destination.accept(inlet),
  });
  tell({ kind: 'listening', port: address.port });
}

async function workWhileArriving(vm: Vm, destination: MigrationDestination): Promise<number | null> {
  // What follows is after the machine knows that it runs.
  await delay(0);
  const work = async () => (await vm.command({ do: 'status' })).vmstat.minorFaults;
  const startMs = systemClock.nowMs();
  const start = await work();
  while ((destination.arrival?.missingPages ?? 0) > 0) await delay(LOOK_MS);
  const elapsedMs = systemClock.nowMs() - startMs;
  return elapsedMs < WORK_MS_MIN ? null : ((await work()) - start) / elapsedMs;
}

async function look(): Promise<void> {
  if (place === undefined) throw new InvariantError('no machine is here');
  const { vm } = place;
  const arrivingWorkPerMs = await arriving;
  const { checkedBytes } = await vm.command({ do: 'verify' });
  const [{ backing }] = vm.ram.memory.regions;
  tell({ kind: 'seen', checkedBytes, residentBytes: backing.residentBytes(), arrivingWorkPerMs });
}

process.on('message', (message: ToPlace) => {
  const act = message.kind === 'open' ? open(message.memoryBytes) : look();
  act.catch((error: Error) => tell({ kind: 'failed', message: error.message }));
});
// Threads that block in poll(2) have to be told before a process ends.
whenLetGo(() => {
  void Promise.resolve(place?.close()).finally(() => process.exit());
});
