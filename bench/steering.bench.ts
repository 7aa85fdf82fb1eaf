/**
 * What a running policy costs its process: periods of `PolicyRunner` over 1,000 guests of a fake control, with an event
 * for the statistics of each of them, on a clock that does not wait. Processor time of all of it, less what the fake
 * itself takes to answer; what a daemon takes to answer, and what a link adds, is not in it. Prints a table.
 */
import type { BenchRow, Measured } from '../src/bench/report.ts';
import { spreadOf } from '../src/bench/report.ts';
import { SteeredHost, UsedGuests } from '../test/steering/world.ts';
import { NO_PEER, runAsProgram } from './micro.ts';

const COUNT = 1000;
const GIB = 2 ** 30;
const PERIOD_MS = 2000;
const WARM_PERIODS = 100;
const PERIODS = 100;

const cpuMs = (): number => process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000;

async function measure(): Promise<Measured> {
  const guests = new UsedGuests(
    Object.fromEntries(Array.from({ length: COUNT }, (_, at) => [`vm${at}`, 4 * GIB])),
  );
  const host = new SteeredHost(COUNT * 3 * GIB, [guests], { periodMs: PERIOD_MS });
  // The fake notes what it was asked, for tests.
  const period = async (): Promise<void> => {
    for (const name of guests.known.keys())
      guests.emit({ guest: name, type: 'statistics', detail: { availableBytes: 2 * GIB } });
    await host.clock.pass(PERIOD_MS);
    guests.calls.length = 0;
  };
  for (let at = 0; at < WARM_PERIODS; at++) await period();
  const spent: number[] = [];
  const answering: number[] = [];
  for (let at = 0; at < PERIODS; at++) {
    let before = cpuMs();
    await period();
    spent.push(cpuMs() - before);
    before = cpuMs();
    await Promise.all([guests.guests(), guests.samples()]);
    answering.push(cpuMs() - before);
  }
  const decided = host.runner.decisions;
  await host.runner.close();
  if (host.errors.length > 0) throw host.errors[0];
  if (decided < WARM_PERIODS + PERIODS)
    throw new Error(`${decided} decisions in ${WARM_PERIODS + PERIODS} periods`);
  const rows = [
    { case: 'a period', elapsedMs: spreadOf(spent) },
    { case: 'the fake alone', elapsedMs: spreadOf(answering) },
  ].map((row): BenchRow => ({ ...row, scenario: `${COUNT} guests`, peer: NO_PEER }));
  const perPeriodMs = spreadOf(spent).median - spreadOf(answering).median;
  console.log(
    `Processor time of a policy over ${COUNT} guests, in milliseconds a period of ${PERIOD_MS / 1000} s.`,
  );
  console.table(
    rows.map(({ case: name, elapsedMs }) => {
      const { min, median, max } = elapsedMs as { min: number; median: number; max: number };
      return { case: name, min: min.toFixed(2), median: median.toFixed(2), max: max.toFixed(2) };
    }),
  );
  const ratio = perPeriodMs / PERIOD_MS;
  console.log(`The policy takes ${(100 * ratio).toFixed(2)} % of a core.`);
  return { rows, ratios: { 'policy.coreShare': ratio } };
}

await runAsProgram(import.meta.url, 'steering', measure);
