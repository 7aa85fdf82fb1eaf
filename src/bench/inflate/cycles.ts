/** Inflations of `bench inflate` and their deflations, which lead up to the one that counts. */
import { BENCH_GUEST, type BenchDaemon } from '../bench-daemon.ts';
import type { GuestThread } from '../guest-thread.ts';
import { drained, progressOf } from '../reach.ts';
import type { FromInflateGuest, ToInflateGuest } from './guest.ts';

export type InflateGuest = GuestThread<ToInflateGuest, FromInflateGuest>;

/** Inflations and their deflations; milliseconds of each from the wish until the host had all of the memory. */
export async function cycles(
  count: number,
  guest: InflateGuest,
  control: BenchDaemon['control'],
  balloonBytes: number,
  signal: AbortSignal,
): Promise<number[]> {
  const times: number[] = [];
  while (times.length < count) times.push(await cycle(guest, control, balloonBytes, signal));
  return times;
}

async function cycle(
  guest: InflateGuest,
  control: BenchDaemon['control'],
  balloonBytes: number,
  signal: AbortSignal,
): Promise<number> {
  await guest.next('ready');
  await control.change(BENCH_GUEST, { targetBytes: balloonBytes, force: true });
  await guest.next('settled');
  const full = await drained(() => control.guest(BENCH_GUEST), signal);
  guest.tell('drained');
  await guest.next('written');
  await control.change(BENCH_GUEST, { targetBytes: 0 });
  await guest.next('settled');
  return progressOf(full).drainedMs;
}
