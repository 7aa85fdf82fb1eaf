/**
 * A machine's leaving and arriving, rehearsed with a small one: afterwards the code for it is compiled in every thread,
 * and a guest that stands still does not wait for it.
 */
import { setFlagsFromString } from 'node:v8';
import type { SavedState } from '../migration/machine.ts';
import { Stage } from './stage.ts';
import { Vm, type VmOptions } from './vm.ts';

/** Enough pages for loops over them to be compiled as well. */
const MEMORY_BYTES = 64 * 2 ** 20;
const USED_BYTES = MEMORY_BYTES / 2;
const TARGET_BYTES = MEMORY_BYTES / 8;
/** After so many the compiler has nothing left to do that one would see. */
const ARRIVALS = 10;

/**
 * A guest leaves minutes or days after the rehearsal. V8 forgets code that some collections have found unused, and
 * collects more than once in a thread that has come to rest: a third of what was rehearsed was lost after seven seconds.
 * Both are for threads that start from now on.
 */
const LASTING_MEMORY = ['--no-flush-bytecode', '--no-memory-reducer'];

/** Threads for a machine; takes half a second. */
export async function openRehearsedStage(log: VmOptions['log']): Promise<Stage> {
  for (const flag of LASTING_MEMORY) setFlagsFromString(flag);
  const stage = await Stage.open(log);
  try {
    await rehearse(stage);
    return stage;
  } catch (error) {
    await stage.close();
    throw error;
  }
}

/** Starts a machine that will leave; takes half a second more than {@link Vm.start}, and throws what that throws. */
export async function startRehearsed(options: Omit<VmOptions, 'stage'>): Promise<Vm> {
  const stage = await openRehearsedStage(options.log);
  try {
    return await Vm.start({ ...options, stage });
  } catch (error) {
    await stage.close();
    throw error;
  }
}

async function rehearse(stage: Stage): Promise<void> {
  const name = 'rehearsal';
  stage.muted = true;
  let vm = await Vm.start({ name, stage, memoryBytes: MEMORY_BYTES, targetBytes: TARGET_BYTES });
  const { memory } = vm.ram;
  await vm.command({ do: 'use', bytes: USED_BYTES });
  await vm.command({ do: 'settle' });
  const leave = async (): Promise<readonly SavedState[]> => {
    await vm.stop();
    const states = await vm.save();
    await vm.leave();
    return states;
  };
  for (let arrival = 0; arrival < ARRIVALS; arrival++) {
    const states = await leave();
    vm = Vm.on(stage, { name, memory, adviseHugePages: false });
    await vm.load(states);
    await vm.goOn();
    await vm.command({ do: 'settle' });
  }
  await vm.leave();
  memory.close();
  stage.muted = false;
}
