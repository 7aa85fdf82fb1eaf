/**
 * The threads in which a machine lives, before it is known which and after it has left: a daemon for its device, and a
 * thread for its guest. A place for machines from elsewhere has its stage ready, and has rehearsed there, so that a
 * guest that stands still does not wait for threads to start and for code to be compiled.
 */

import { startDaemon } from '../daemon/daemon.ts';
import type { Daemon, LogRecord } from '../hosting/options.ts';
import { AskedThread } from '../threads/asked-thread.ts';
import { workerUrl } from '../threads/worker-url.ts';
import type { GuestNews, GuestThreadRequests } from './guest-protocol.ts';

export interface StageListener {
  news(news: GuestNews): void;
  /** A thread died. */
  failed(error: Error): void;
}

export class Stage {
  readonly daemon: Daemon;
  readonly guest: AskedThread<GuestThreadRequests, GuestNews>;
  /** Whoever is on the stage. */
  listener: StageListener | undefined;
  /** What the device says is not worth a line: nobody is there but a rehearsal. */
  muted = false;

  private constructor(daemon: Daemon, guestProgram: URL) {
    this.daemon = daemon;
    this.guest = new AskedThread({
      program: guestProgram,
      data: {},
      news: news => this.listener?.news(news),
      died: error => this.listener?.failed(error),
      ended: 'the guest is switched off',
    });
    void daemon.failed.then(error => this.listener?.failed(error));
  }

  /** `guestProgram` is what the guest's thread runs; a test may have one of its own, whose guest does not behave. */
  static async open(
    log: (record: LogRecord) => void = () => {},
    guestProgram: URL = workerUrl('./guest-worker', import.meta.url),
  ): Promise<Stage> {
    let stage: Stage | undefined;
    const daemon = await startDaemon({
      guests: [],
      log: record => {
        if (stage?.muted !== true) log(record);
      },
    });
    stage = new Stage(daemon, guestProgram);
    return stage;
  }

  /** Takes the machine off the stage, which is empty then. */
  async clear(name: string): Promise<void> {
    this.listener = undefined;
    await this.guest.ask('end', null);
    await this.daemon.dismiss(name);
  }

  async close(): Promise<void> {
    await this.guest.close(() => this.guest.ask('close', null));
    await this.daemon.close();
  }
}
