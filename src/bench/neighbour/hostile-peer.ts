/**
 * The hostile guest of `bench neighbour`, in a process of its own: plays one input of the table again and again until it
 * is told to rest. What an input does is the table's (inputs.ts).
 */
import { InvariantError } from '../../sys/error.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import { HOSTILE_INPUTS } from './inputs.ts';
import { type HostilePlay, LostDaemonError, UnplayableError } from './play.ts';
import type { FromHostile, HostileData, ToHostile } from './protocol.ts';

const tell = (message: FromHostile): void => tellBench(message);

const data = JSON.parse(process.argv[2]) as HostileData;
let playing = false;

async function play(round: HostilePlay): Promise<void> {
  let rounds = 0;
  let refused: string | null = null;
  while (playing && refused === null) {
    try {
      await round();
      rounds++;
    } catch (error) {
      if (!(error instanceof LostDaemonError)) throw error;
      // A daemon that hangs up on a guest like this is within its rights.
      refused = error.message;
    }
    // The word to rest comes between rounds.
    await new Promise(resolve => setImmediate(resolve));
  }
  tell({ kind: 'rested', rounds, refused });
}

const fail = (error: unknown): void =>
  tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });

whenLetGo(() => process.exit());
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
try {
  const input = HOSTILE_INPUTS.find(({ name }) => name === data.input);
  if (input === undefined) throw new InvariantError(`no input is called ${data.input}`);
  const round = await input.prepare(data);
  process.on('message', (word: ToHostile) => {
    playing = word === 'play';
    if (playing) play(round).catch(fail);
  });
  tell({ kind: 'ready' });
} catch (error) {
  if (error instanceof UnplayableError) tell({ kind: 'unplayable', message: error.message });
  else fail(error);
}
