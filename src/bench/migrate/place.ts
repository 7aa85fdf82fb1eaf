/** The process where guests arrive in `bench migrate`: a place for one, its connections, and a look at what came. */
import { MigrationDestination } from '../../migration/destination.ts';
import { InvariantError } from '../../sys/error.ts';
import { systemClock } from '../../transfer/clock.ts';
import { TransferListener } from '../../transfer/listener.ts';
import { IncomingVm } from '../../vm/incoming-vm.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';

/** `open` makes room for a guest of so many bytes; `look` is for a guest that is here. */
export type ToPlace = { readonly kind: 'open'; readonly memoryBytes: number } | { readonly kind: 'look' };

export type FromPlace =
  | { readonly kind: 'listening'; readonly port: number }
  /** The guest has checked all that it ever wrote, and runs. */
  | { readonly kind: 'seen'; readonly checkedBytes: number; readonly residentBytes: number }
  | { readonly kind: 'failed'; readonly message: string };

const tell = (message: FromPlace): void => tellBench(message);

let place: IncomingVm | undefined;

async function open(memoryBytes: number): Promise<void> {
  const opened = await IncomingVm.open();
  place = opened;
  const destination = new MigrationDestination({
    machine: opened,
    ramOf: () => opened.ram,
    memoryBytesMax: memoryBytes,
    clock: systemClock,
  });
  const { address } = await TransferListener.open({
    address: { host: '127.0.0.1', port: 0 },
    accept: inlet => destination.accept(inlet),
  });
  tell({ kind: 'listening', port: address.port });
}

async function look(): Promise<void> {
  if (place === undefined) throw new InvariantError('no machine is here');
  const { vm } = place;
  const { checkedBytes } = await vm.command({ do: 'verify' });
  const [{ backing }] = vm.ram.memory.regions;
  tell({ kind: 'seen', checkedBytes, residentBytes: backing.residentBytes() });
}

process.on('message', (message: ToPlace) => {
  const act = message.kind === 'open' ? open(message.memoryBytes) : look();
  act.catch((error: Error) => tell({ kind: 'failed', message: error.message }));
});
// Threads that block in poll(2) have to be told before a process ends.
whenLetGo(() => {
  void Promise.resolve(place?.close()).finally(() => process.exit());
});
