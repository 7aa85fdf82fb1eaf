/**
 * Warming the threads of a machine up: a small machine leaves and arrives in them, so that the code for it is compiled in every
 * thread, and a guest that stands still does not wait for the compiler.
 */
import { setFlagsFromString } from 'node:v8';
import type { SavedState } from '../migration/machine.ts';
import { monotonicMs } from '../sys/poll.ts';
import { warmUpMigration } from './migration-warm-up.ts';
import type { VmOptions } from './options.ts';
import { Vm } from './vm.ts';
import { VmThreads } from './vm-threads.ts';

interface Extent {
  readonly memoryBytes: number;
  /** How often the small machine leaves and arrives. */
  readonly arrivals: number;
  /** The last of them, which are measured: by then most of it is compiled. */
  readonly measured: number;
  /** Of the main thread, within it. */
  readonly migrations: number;
}

/**
 * `thorough`: the compiler has nothing left to do that one would see, and loops over pages are compiled as well. `brief`: all of
 * it has run once, which is most of what a guest would wait for.
 */
const EXTENTS = {
  thorough: { memoryBytes: 64 * 2 ** 20, arrivals: 10, measured: 4, migrations: 3 },
  brief: { memoryBytes: 16 * 2 ** 20, arrivals: 2, measured: 1, migrations: 1 },
} as const satisfies Record<string, Extent>;

export type WarmUp = keyof typeof EXTENTS;

/**
 * A guest leaves minutes or days after the warm-up. V8 forgets code that some collections have found unused, and collects
 * more than once in a thread that has come to rest: a third of what was compiled was lost after seven seconds.
 * Both are for threads that start from now on.
 */
const LASTING_MEMORY = ['--no-flush-bytecode', '--no-memory-reducer'];

/** Threads for a machine; takes half a second, or a fifth of one. */
export async function openWarmThreads(log: VmOptions['log'], how: WarmUp = 'thorough'): Promise<VmThreads> {
  const extent = EXTENTS[how];
  for (const flag of LASTING_MEMORY) setFlagsFromString(flag);
  const threads = await VmThreads.open(log);
  try {
    await Promise.all([warmUp(threads, extent), warmUpMigration(extent.migrations)]);
    return threads;
  } catch (error) {
    await threads.close();
    throw error;
  }
}

/** Starts a machine that will leave; takes half a second more than {@link Vm.start}, and throws what that throws. */
export async function startWarm(options: Omit<VmOptions, 'threads'>): Promise<Vm> {
  const threads = await openWarmThreads(options.log);
  try {
    return await Vm.start({ ...options, threads });
  } catch (error) {
    await threads.close();
    throw error;
  }
}

async function warmUp(threads: VmThreads, { memoryBytes, arrivals, measured }: Extent): Promise<void> {
  const name = 'warm-up';
  threads.muted = true;
  let vm = await Vm.start({ name, threads, memoryBytes, targetBytes: memoryBytes / 8 });
  const { memory } = vm.ram;
  await vm.command({ do: 'use', bytes: memoryBytes / 2 });
  await vm.command({ do: 'settle' });
  let stopMs = 0;
  const leave = async (): Promise<readonly SavedState[]> => {
    const startMs = monotonicMs();
    await vm.stop();
    stopMs = monotonicMs() - startMs;
    const states = await vm.save();
    await vm.leave();
    return states;
  };
  const seen: { readonly stopMs: number; readonly runMs: number }[] = [];
  for (let arrival = 0; arrival < arrivals; arrival++) {
    const states = await leave();
    vm = Vm.on(threads, { name, memory, adviseHugePages: false });
    await vm.load(states);
    const startMs = monotonicMs();
    await vm.resumeLoaded();
    seen.push({ stopMs, runMs: monotonicMs() - startMs });
    await vm.command({ do: 'settle' });
  }
  await threads.pace.warmed(name, seen.slice(-measured));
  await vm.leave();
  memory.close();
  threads.muted = false;
}
