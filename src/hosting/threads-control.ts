/** The control of hosted guests, from the main thread of their process: each operation is asked of the guest's own thread. */
import type { DaemonStatus, DeviceGuestStatus, GuestEvent } from '../control/contract.ts';
import { readDescriptors, readHost } from '../control/host.ts';
import { noFleet } from '../control/no-fleet.ts';
import { noMigrations } from '../control/no-migrations.ts';
import { noPolicy } from '../control/no-policy.ts';
import { noUpgrade } from '../control/no-upgrade.ts';
import { type Control, handlersOf, THREAD_OPERATIONS, type ThreadOperation } from '../control/operations.ts';
import { monotonicMs } from '../sys/poll.ts';
import { readVersion } from '../sys/version.ts';
import type { DataThread } from './data-thread.ts';
import type { MapSurvey } from './map-survey.ts';

/** What is asked of the threads that serve guests. */
interface ServingThreads {
  readonly all: readonly DataThread[];
  /** Of the guests, in the order in which they came. */
  readonly names: readonly string[];
  /** @throws UnknownGuestError */
  threadOf(name: string): DataThread;
  surveyOf(name: string): MapSurvey;
  subscribe(listener: (event: GuestEvent) => void): () => void;
}

export function threadsControl(threads: ServingThreads): Control<DeviceGuestStatus> {
  const status = statusSince(monotonicMs(), Date.now());
  return {
    ...handlersOf<ThreadOperation, DeviceGuestStatus>(
      THREAD_OPERATIONS,
      // The table of operations says which arguments belong to which.
      operation => async (name, args) => threads.threadOf(name).ask(operation, { name, args: args as never }),
    ),
    ...noMigrations(name => void threads.threadOf(name)),
    ...noPolicy(name => void threads.threadOf(name)),
    ...noUpgrade,
    ...noFleet,
    daemon: () => status(threads.all),
    host: () => readHost(),
    guests: async () => {
      const lists = await Promise.all(threads.all.map(thread => thread.ask('guests', null)));
      const byName = new Map(lists.flat().map(guest => [guest.name, guest]));
      // In the order in which they came, whichever thread serves them.
      return threads.names.flatMap(name => byName.get(name) ?? []);
    },
    samples: async () => {
      const samples = await Promise.all(threads.all.map(thread => thread.ask('samples', null)));
      return Object.assign({}, ...samples);
    },
    renewLeases: async args => {
      const counts = await Promise.all(threads.all.map(thread => thread.ask('renewLeases', args)));
      return { renewed: counts.reduce((sum, count) => sum + count, 0) };
    },
    map: async (name, options = {}) => {
      const sources = await threads.threadOf(name).ask('mapSources', { name });
      return threads.surveyOf(name).draw(name, sources, options);
    },
    subscribe: listener => threads.subscribe(listener),
  };
}

/** What is to be known of this process, which began to host guests at these moments. */
function statusSince(startedMs: number, startedAtMs: number) {
  const version = readVersion();
  return async (threads: readonly DataThread[]): Promise<DaemonStatus> => {
    const [answers, descriptors] = await Promise.all([
      Promise.all(threads.map(thread => thread.ask('thread', null))),
      readDescriptors(),
    ]);
    const cpu = process.cpuUsage();
    return {
      version,
      pid: process.pid,
      startedAtMs,
      uptimeMs: monotonicMs() - startedMs,
      residentBytes: process.memoryUsage.rss(),
      cpuUserMs: cpu.user / 1e3,
      cpuSystemMs: cpu.system / 1e3,
      gcPauseMaxMs: Math.max(0, ...answers.map(({ gcPauseMaxMs }) => gcPauseMaxMs)),
      descriptors,
      // Whether they are kept, the process knows that serves them.
      kept: null,
    };
  };
}
