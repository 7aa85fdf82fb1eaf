/** The arrival of a machine, rehearsed with a small one: afterwards the code for it is compiled in every thread. */
import type { Stage } from './stage.ts';
import { Vm } from './vm.ts';

/** Enough pages for loops over them to be compiled as well. */
const MEMORY_BYTES = 64 * 2 ** 20;
const USED_BYTES = MEMORY_BYTES / 2;
const TARGET_BYTES = MEMORY_BYTES / 8;

export async function rehearse(stage: Stage): Promise<void> {
  const name = 'rehearsal';
  stage.muted = true;
  const here = await Vm.start({ name, stage, memoryBytes: MEMORY_BYTES, targetBytes: TARGET_BYTES });
  const memory = here.ram.memory;
  await here.command({ do: 'use', bytes: USED_BYTES });
  await here.command({ do: 'settle' });
  await here.stop();
  const states = await here.save();
  await here.leave();
  const there = Vm.on(stage, { name, memory, adviseHugePages: false });
  await there.load(states);
  await there.goOn();
  await there.command({ do: 'settle' });
  await there.leave();
  memory.close();
  stage.muted = false;
}
