/** Inputs of `bench neighbour` that are messages: of a front-end to its device, and of a client to the API. */

import type { FileBacking } from '../../../memory/file-backing.ts';
import { PAGE_SIZE } from '../../../memory/page.ts';
import { SystemError } from '../../../sys/error.ts';
import { HandFrontEnd, regionMessage } from '../front-end.ts';
import type { HostilePlay } from '../play.ts';
import type { HostileData } from '../protocol.ts';
import { SPARSE_REGIONS } from './lists.ts';
import { HOME, tinyRegions } from './rings.ts';

/** The name that the daemon gives the hostile guest. */
export const HOSTILE = 'hostile';
/** Front-ends that come and go in one round. */
const CALLERS = 20;

export function mapsOfSparseMemory({ socketPath, api, token }: HostileData): HostilePlay {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, ...SPARSE_REGIONS]);
  return async () => {
    const response = await fetch(`${api}/v1/guests/${HOSTILE}/map`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    await response.text();
  };
}

export function regionsComeAndGo({ socketPath }: HostileData): HostilePlay {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME]);
  const { fd } = frontEnd.memory.regions[0].backing as FileBacking;
  const regions = tinyRegions(PAGE_SIZE);
  return () => {
    for (const region of regions) frontEnd.accepts('ADD_MEM_REG', regionMessage(region, 0), [fd]);
    for (const region of regions) frontEnd.accepts('REM_MEM_REG', regionMessage(region, 0));
  };
}

export function callers({ socketPath }: HostileData): HostilePlay {
  return () => {
    for (let caller = 0; caller < CALLERS; caller++) {
      try {
        new HandFrontEnd(socketPath).close();
      } catch (error) {
        // More callers than the socket keeps waiting: there is nothing to be said to one more.
        if (!(error instanceof SystemError)) throw error;
      }
    }
  };
}
