/**
 * The hostile guest of `bench neighbour`, in a process of its own: plays one input of the table again and again until it
 * is told to rest. What an input does is the table's (inputs.ts). It can also work for itself: then it takes as much of
 * the processors as it did while it played, which on a machine with few of them is felt by the neighbour as well.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { InvariantError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import { HOSTILE_INPUTS } from './inputs.ts';
import { type HostilePlay, LostDaemonError, UnplayableError } from './play.ts';
import type { FromHostile, HostileData, ToHostile } from './protocol.ts';

const tell = (message: FromHostile): void => tellBench(message);

const data = JSON.parse(process.argv[2]) as HostileData;
/** Working is spread over spans of this length. */
const SPAN_MS = 20;

let playing = false;
/** The part of one processor that playing took. */
let busyShare = 0;

async function play(round: HostilePlay): Promise<void> {
  let rounds = 0;
  const startedMs = monotonicMs();
  const before = process.cpuUsage();
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
  const { user, system } = process.cpuUsage(before);
  busyShare = Math.min(1, (user + system) / 1000 / (monotonicMs() - startedMs));
  tell({ kind: 'rested', rounds, refused });
}

/** Takes the processor time that playing took, without the daemon. */
async function work(): Promise<void> {
  while (playing) {
    const startedMs = monotonicMs();
    while (monotonicMs() - startedMs < SPAN_MS * busyShare);
    const restMs = SPAN_MS - (monotonicMs() - startedMs);
    // The word to rest comes between spans.
    if (restMs >= 1) await delay(restMs);
    else await new Promise(resolve => setImmediate(resolve));
  }
  tell({ kind: 'rested', rounds: 0, refused: null });
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
    playing = word !== 'rest';
    if (word === 'play') play(round).catch(fail);
    if (word === 'work') void work();
  });
  tell({ kind: 'ready' });
} catch (error) {
  if (error instanceof UnplayableError) tell({ kind: 'unplayable', message: error.message });
  else fail(error);
}
