/** What TCP can do and Node does not ask of it: to notice a peer that has fallen silent, whatever is under way. */
import type { Descriptor } from './fd.ts';
import { check, libc } from './libc.ts';
import { Arena } from './mapping.ts';

const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_USER_TIMEOUT = 18;

/** Probes of an idle connection within the time that a peer may be silent. */
const PROBES = 4;

const scratch = new Arena(64);

function setOption(fd: Descriptor, level: number, name: number, value: number): void {
  scratch.view.setInt32(0, value, true);
  check('setsockopt', libc.setsockopt(fd.number, level, name, scratch.address, 4), `option ${name}`);
}

/**
 * The connection fails with ETIMEDOUT when the peer's host acknowledges nothing for about so long: neither data under
 * way, nor data that it has no room for, nor a probe where there is no data. (With TCP_USER_TIMEOUT set, it is that and
 * not a number of probes which ends an idle connection.)
 */
export function limitSilence(fd: Descriptor, silenceMsMax: number): void {
  const probeSeconds = Math.max(1, Math.round(silenceMsMax / 1e3 / PROBES));
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, probeSeconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, probeSeconds);
  setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silenceMsMax);
}
