/** Inputs of `bench neighbour` that make giving memory back costly: single pages that were used, far from each other. */
import { PAGE_SIZE } from '../../../memory/page.ts';
import { GIB, MIB } from '../../../policy/units.ts';
import { U64, VRING_STATE } from '../../../vhost-user/protocol.ts';
import { HandFrontEnd, type HandRing } from '../front-end.ts';
import type { HostilePlay } from '../play.ts';
import type { HostileData } from '../protocol.ts';
import { inflateAndDeflate } from './lists.ts';
import { HOME, LIST_AT } from './rings.ts';

interface SinglePages {
  readonly frontEnd: HandFrontEnd;
  readonly inflate: HandRing;
  readonly deflate: HandRing;
  /** Uses all of the pages. */
  touch(): void;
}

/** Every other page, so many of them, in one list. */
function singlePages({ socketPath }: HostileData, pages: number): SinglePages {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, { guestAddress: GIB, size: 2 * pages * PAGE_SIZE }]);
  const pfnOf = (index: number): number => GIB / PAGE_SIZE + 2 * index;
  for (let index = 0; index < pages; index++) frontEnd.memory.setU32(LIST_AT + index * 4, pfnOf(index));
  const [inflate, deflate] = inflateAndDeflate(frontEnd, pages * 4);
  return {
    frontEnd,
    inflate,
    deflate,
    touch: () => {
      for (let index = 0; index < pages; index++) frontEnd.memory.setU32(pfnOf(index) * PAGE_SIZE, 1);
    },
  };
}

export function singlePagesInAndOut(data: HostileData): HostilePlay {
  const { frontEnd, inflate, deflate, touch } = singlePages(data, (64 * MIB) / PAGE_SIZE);
  return () => {
    touch();
    for (const ring of [inflate, deflate]) {
      ring.offer(0);
      frontEnd.waitWorkedOff(ring);
    }
  };
}

export function pauseWithSinglePages(data: HostileData): HostilePlay {
  const { frontEnd, inflate, deflate, touch } = singlePages(data, GIB / PAGE_SIZE);
  const { index, kickFd } = inflate;
  return () => {
    touch();
    inflate.offer(0);
    frontEnd.waitWorkedOff(inflate);
    const base = VRING_STATE.read(frontEnd.ask('GET_VRING_BASE', VRING_STATE.encode({ index, num: 0 })));
    frontEnd.say('SET_VRING_BASE', VRING_STATE.encode({ index, num: base.num }));
    frontEnd.say('SET_VRING_KICK', U64.encode({ value: BigInt(index) }), [kickFd]);
    frontEnd.ask('GET_QUEUE_NUM');
    deflate.offer(0);
    frontEnd.waitWorkedOff(deflate);
  };
}
