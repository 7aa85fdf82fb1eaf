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

/** Enough pages for loops over them to be compiled as well. */
const MEMORY_BYTES = 64 * 2 ** 20;
const USED_BYTES = MEMORY_BYTES / 2;
const TARGET_BYTES = MEMORY_BYTES / 8;
/** After so many the compiler has nothing left to do that one would see. */
const ARRIVALS = 10;
/** Those of them that are measured: by then most of it is compiled. */
const MEASURED = 4;

/**
 * A guest leaves minutes or days after the warm-up. V8 forgets code that some collections have found unused, and collects
 * more than once in a thread that has come to rest: a third of what was compiled was lost after seven seconds.
 * Both are for threads that start from now on.
 */
const LASTING_MEMORY = ['--no-flush-bytecode', '--no-memory-reducer'];

/** Threads for a machine; takes half a second. */
export async function openWarmThreads(log: VmOptions['log']): Promise<VmThreads> {
  for (const flag of LASTING_MEMORY) setFlagsFromString(flag);
  const threads = await VmThreads.open(log);
  try {
    await Promise.all([warmUp(threads), warmUpMigration()]);
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

async function warmUp(threads: VmThreads): Promise<void> {
  const name = 'warm-up';
  threads.muted = true;
  let vm = await Vm.start({ name, threads, memoryBytes: MEMORY_BYTES, targetBytes: TARGET_BYTES });
  const { memory } = vm.ram;
  await vm.command({ do: 'use', bytes: USED_BYTES });
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
  for (let arrival = 0; arrival < ARRIVALS; arrival++) {
    const states = await leave();
    vm = Vm.on(threads, { name, memory, adviseHugePages: false });
    await vm.load(states);
    const startMs = monotonicMs();
    await vm.resumeLoaded();
    seen.push({ stopMs, runMs: monotonicMs() - startMs });
    await vm.command({ do: 'settle' });
  }
  await threads.pace.warmed(name, seen.slice(-MEASURED));
  await vm.leave();
  memory.close();
  threads.muted = false;
}
