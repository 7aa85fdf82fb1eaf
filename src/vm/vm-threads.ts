/**
 * The threads in which a machine lives, before it is known which and after it has left: threads that host its device, and a
 * thread for its guest. A machine that waits for a migration has its threads ready, and has warmed them up, so that a guest
 * that stands still does not wait for threads to start and for code to be compiled.
 */
import { GuestThreads } from '../hosting/guest-threads.ts';
import type { LogRecord } from '../hosting/options.ts';
import { WorkerClient } from '../threads/worker-client.ts';
import { workerUrl } from '../threads/worker-url.ts';
import type { GuestThreadEvent, GuestThreadRequests } from './guest-protocol.ts';
import { ThreadPace } from './thread-pace.ts';

interface VmThreadsListener {
  news(news: GuestThreadEvent): void;
  /** A thread died. */
  failed(error: Error): void;
}

export class VmThreads {
  /** Host the machine's device. */
  readonly hosting: GuestThreads;
  readonly guest: WorkerClient<GuestThreadRequests, GuestThreadEvent>;
  readonly pace = new ThreadPace(async name => {
    await this.guest.ask('turn', null);
    await this.hosting.deviceMigration.balloon(name);
  });
  /** The machine that has the threads. */
  listener: VmThreadsListener | undefined;
  /** Drops what the device logs, while the machine is only there to warm the threads up. */
  muted = false;

  private constructor(log: (record: LogRecord) => void, guestProgram: URL) {
    this.hosting = new GuestThreads({
      threads: 1,
      oneGuest: true,
      log: record => {
        if (!this.muted) log(record);
      },
    });
    this.guest = new WorkerClient({
      program: guestProgram,
      data: {},
      news: news => this.listener?.news(news),
      died: error => this.listener?.failed(error),
      ended: 'the guest is switched off',
    });
    void this.hosting.failed.then(error => this.listener?.failed(error));
  }

  /** `guestProgram` is what the guest's thread runs; a test may have one of its own, whose guest does not behave. */
  static async open(
    log: (record: LogRecord) => void = () => {},
    guestProgram: URL = workerUrl('../vm/guest-worker', import.meta.url),
  ): Promise<VmThreads> {
    const threads = new VmThreads(log, guestProgram);
    await threads.hosting.ready;
    return threads;
  }

  /** Switches the machine off; the threads are free for another one then. */
  async clear(name: string): Promise<void> {
    this.listener = undefined;
    await this.guest.ask('end', null);
    await this.hosting.dismiss(name);
  }

  async close(): Promise<void> {
    await this.guest.close();
    await this.hosting.close();
  }
}
