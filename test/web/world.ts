/**
 * What the dashboard's tests look at: the real daemon in a process of its own, its API on a TCP port of this process as
 * `aerostat dashboard` puts it there, and guests.
 */

import { startGuestProcess } from '../../src/cli/processes.ts';
import type { Control } from '../../src/control/operations.ts';
import type { GuestProcess } from '../../src/embedded/guest-process.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { fullToken } from '../../src/server/token.ts';
import { DaemonProcess, type DaemonSurroundings } from '../support/daemon.ts';

export const MIB = 2 ** 20;
export const TOKEN = 'a-token-for-the-tests-of-the-page';

export class PageWorld {
  readonly daemon: DaemonProcess;
  #server: ApiServer;
  readonly #guests: { close(): Promise<void> }[] = [];

  private constructor(daemon: DaemonProcess, server: ApiServer) {
    this.daemon = daemon;
    this.#server = server;
  }

  static async start(
    guests: readonly string[],
    words: readonly string[] = [],
    surroundings: DaemonSurroundings = {},
  ): Promise<PageWorld> {
    const daemon = await DaemonProcess.start(guests, ['--poll-interval', '500ms', ...words], surroundings);
    return new PageWorld(daemon, await servePageOf(daemon.control));
  }

  get origin(): string {
    return entranceTo(this.#server).origin;
  }

  /** The address with the token, as a person is given it. */
  get entrance(): string {
    return entranceTo(this.#server).href;
  }

  async embeddedGuest(
    name: string,
    memoryBytes: number,
    words: readonly string[] = [],
  ): Promise<GuestProcess> {
    const guest = await startGuestProcess({ socketPath: this.daemon.socketOf(name), memoryBytes, words });
    this.#guests.push(guest);
    return guest;
  }

  /** Closes `guest` with the rest. */
  keep(guest: { close(): Promise<void> }): void {
    this.#guests.push(guest);
  }

  /** The daemon does not answer on its port any more. */
  async goAway(): Promise<void> {
    await this.#server.close();
  }

  async comeBack(): Promise<void> {
    this.#server = await servePageOf(this.daemon.control, Number(new URL(this.origin).port));
  }

  async close(): Promise<void> {
    await this.#server.close();
    for (const guest of this.#guests) await guest.close();
    await this.daemon.stop();
  }
}

/** The page of `control` on a TCP port of this process. */
export function servePageOf(control: Control, port = 0): Promise<ApiServer> {
  return serveApi(control, {
    version: '0',
    address: { kind: 'tcp', host: '127.0.0.1', port },
    tokens: fullToken(TOKEN),
  });
}

/** The address of a page with its token, as a person is given it. */
export function entranceTo({ address }: ApiServer): URL {
  if (address.kind !== 'tcp') throw new Error('the page is not on TCP');
  return new URL(`http://127.0.0.1:${address.port}/#token=${TOKEN}`);
}
