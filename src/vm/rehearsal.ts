/** The arrival of a machine, rehearsed with a small one: afterwards the code for it is compiled in every thread. */
import type { SavedState } from '../migration/machine.ts';
import type { Stage } from './stage.ts';
import { Vm } from './vm.ts';

/** Enough pages for loops over them to be compiled as well. */
const MEMORY_BYTES = 64 * 2 ** 20;
const USED_BYTES = MEMORY_BYTES / 2;
const TARGET_BYTES = MEMORY_BYTES / 8;
/** After so many the compiler has nothing left to do that one would see. */
const ARRIVALS = 10;

export async function rehearse(stage: Stage): Promise<void> {
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
