/** Inputs of `bench neighbour` that are descriptors which make the process that uses them wait. */
import { writeSync } from 'node:fs';
import { MIB } from '../../../policy/units.ts';
import { createEventFd } from '../../../sys/fd.ts';
import { U64 } from '../../../vhost-user/protocol.ts';
import { HandFrontEnd } from '../front-end.ts';
import type { HostilePlay } from '../play.ts';
import type { HostileData } from '../protocol.ts';
import { HOME } from './rings.ts';

/** A buffer that is not announced is looked for as often. */
const LOOK_MS = 1;
/** What an eventfd can hold: to add anything waits. */
const FULL = 2n ** 64n - 2n;

export function blockingDoorbell({ socketPath }: HostileData): HostilePlay {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME]);
  const ring = frontEnd.startRing(0, 64, 0);
  // A list of no pages.
  ring.write(0, { address: MIB, length: 0, flags: 0, next: 0 });
  const bell = createEventFd({ blocking: true });
  writeSync(bell.number, U64.encode({ value: FULL }));
  frontEnd.say('SET_VRING_CALL', U64.encode({ value: 0n }), [bell]);
  return () => {
    ring.offer(0);
    frontEnd.waitUntil(() => ring.outstanding === 0, LOOK_MS);
  };
}
