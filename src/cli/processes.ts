/**
 * Processes of this very program: the command line that starts an embedded guest in a process of its own. Rooms that run such
 * processes take the command line as an argument, for they know no commands and no options.
 */
import { fileURLToPath } from 'node:url';
import { type GuestCommandLine, GuestProcess } from '../embedded/guest-process.ts';
import { bound } from '../peers/lifeline.ts';
import { ownCommandLine } from '../sys/own-program.ts';

/** Starts the process that talks to libvirt; its argument is the URI. It is the compiled one also where this file is not. */
export const LIBVIRT_COMMAND_LINE: readonly [string, string] = [
  process.execPath,
  fileURLToPath(new URL('../../dist/libvirt/child.js', import.meta.url)),
];

export interface GuestProcessOptions {
  /** Where the device's back-end listens. */
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly seed?: number;
  /** Further options of `aerostat guest`. */
  readonly words?: readonly string[];
}

export function guestCommandLine({
  socketPath,
  memoryBytes,
  seed,
  words = [],
}: GuestProcessOptions): GuestCommandLine {
  const seeded = seed === undefined ? [] : ['--seed', String(seed)];
  const options = ['--connect', socketPath, '--memory', String(memoryBytes), ...seeded, ...words];
  return ownCommandLine('guest', ...options);
}

/**
 * Starts an embedded guest that is steered by its console, and ends with this process.
 * @throws AerostatError AEROSTAT_GUEST_ENDED
 */
export function startGuestProcess(options: GuestProcessOptions): Promise<GuestProcess> {
  const [program, ...args] = guestCommandLine(options);
  // It looks for its device for ever, and hears of no end of its console meanwhile.
  const [guard, words] = bound(program, [...args, '--json']);
  return GuestProcess.start([guard, ...words]);
}
