/**
 * The thread that hears of faults in memory of which pages have yet to come. It blocks in poll(2), touches no guest memory,
 * answers with zeros what does not come, and tells the main thread of the rest.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { ArrivingMemory } from '../memory/arriving-memory.ts';
import { InvariantError, wireError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { readFaults } from '../sys/missing-pages.ts';
import { Reactor } from '../sys/poll.ts';
import type { FaultThreadRequests, FromFaultThread } from './fault-protocol.ts';

if (parentPort === null) throw new InvariantError('faults without a main thread');
const port = parentPort;
const tell = (message: FromFaultThread): void => port.postMessage(message);
const reactor = new Reactor(new OwnedFd((workerData as { readonly wakeFd: number }).wakeFd));
let userfault: OwnedFd | undefined;

function listen(shared: FaultThreadRequests['listen']['args']): void {
  const owned = new OwnedFd(shared.userfault);
  userfault = owned;
  const memory = new ArrivingMemory(shared);
  reactor.watch(owned, () => {
    const pages: number[] = [];
    readFaults(owned, address => {
      const page = memory.answer(address);
      if (page !== undefined) pages.push(page);
    });
    if (pages.length > 0) tell({ kind: 'faults', pages });
  });
}

port.on('message', ({ id, name, args }: { id: number; name: string; args: never }) => {
  try {
    if (name === 'listen') listen(args);
    else reactor.stop();
    tell({ kind: 'answer', id, result: null });
  } catch (error) {
    tell({ kind: 'failure', id, ...wireError(error) });
  }
});
void reactor.run().then(() => {
  userfault?.release();
  reactor.close();
  port.close();
});
