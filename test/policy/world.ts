/** Samples for tests of policies, and a small host whose guests do at once what they are told. */
import { decide } from '../../src/policy/decide.ts';
import { newDecision } from '../../src/policy/records.ts';
import type { Decision, GuestSample, Sample, Settings, StatisticsRead } from '../../src/policy/types.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

export const statisticsOf = (
  availableBytes: number | null,
  balloonedBytes: number,
  more: Partial<StatisticsRead> = {},
): StatisticsRead => ({
  availableBytes,
  freeBytes: availableBytes,
  cacheBytes: 0,
  swapInBytes: 0,
  swapOutBytes: 0,
  majorFaults: 0,
  minorFaults: 0,
  oomKills: 0,
  allocationStalls: 0,
  balloonedBytes,
  ...more,
});

export interface TestGuest {
  readonly name: string;
  readonly memoryBytes: number;
  usedBytes: number;
  targetBytes: number;
  actualBytes: number;
  residentBytes: number | null;
  epoch: number;
  /** What it says; undefined: the truth. */
  statistics?: Partial<StatisticsRead> | null;
  /** Gives and takes nothing. */
  stuck?: boolean;
  /** Its statistics do not change. */
  frozen?: boolean;
}

export const guestOf = (name: string, memoryBytes: number, usedBytes: number): TestGuest => ({
  name,
  memoryBytes,
  usedBytes,
  targetBytes: 0,
  actualBytes: 0,
  residentBytes: null,
  epoch: 1,
});

/** Guests on a host that decide steps of two seconds; the host has what its guests have given. */
export class TestHost {
  readonly guests: TestGuest[];
  readonly totalBytes: number;
  readonly settings: Settings;
  othersBytes = 0;
  reservedBytes = 0;
  atMs = 1_000_000;
  tick = 0;
  last: Decision = newDecision();
  #spare: Decision = newDecision();

  constructor(totalBytes: number, guests: TestGuest[], settings: Partial<Settings> = {}) {
    this.totalBytes = totalBytes;
    this.guests = guests;
    this.settings = { guests: {}, statisticsPeriodMs: 2000, ...settings };
  }

  sample(): Sample {
    const held = this.guests.reduce(
      (sum, { memoryBytes, actualBytes }) => sum + memoryBytes - actualBytes,
      0,
    );
    const availableBytes = Math.max(0, this.totalBytes - this.othersBytes - held);
    const host = {
      totalBytes: this.totalBytes,
      availableBytes,
      freeBytes: availableBytes,
      reservedBytes: this.reservedBytes,
    };
    return { atMs: this.atMs, host, guests: this.guests.map(guest => this.#sampleOf(guest)) };
  }

  #sampleOf(guest: TestGuest): GuestSample {
    const { name, memoryBytes, usedBytes, targetBytes, actualBytes, residentBytes, epoch } = guest;
    const told = guest.statistics;
    const available = Math.max(0, memoryBytes - actualBytes - usedBytes);
    const more = { minorFaults: guest.frozen === true ? 1 : this.tick, ...told };
    const statistics = told === null ? null : { ...statisticsOf(available, actualBytes), ...more };
    return {
      name,
      memoryBytes,
      targetBytes,
      actualBytes,
      givenBytes: actualBytes,
      residentBytes,
      epoch,
      statistics,
    };
  }

  /** Decides, and lets every guest do what it is told. */
  step(elapsedMs = 2000): Decision {
    const into = this.#spare;
    this.#spare = this.last;
    this.last = decide(this.sample(), this.settings, this.#spare.memory, into);
    for (const [index, guest] of this.guests.entries()) {
      const { targetBytes } = this.last.guests[index];
      if (targetBytes >= 0) guest.targetBytes = targetBytes;
      if (guest.stuck !== true || guest.targetBytes < guest.actualBytes)
        guest.actualBytes = guest.targetBytes;
    }
    this.atMs += elapsedMs;
    this.tick++;
    return this.last;
  }

  run(seconds: number, each: (decision: Decision) => void = () => {}): Decision {
    for (let at = 0; at < seconds; at += 2) each(this.step());
    return this.last;
  }

  keep(name: string): number {
    const guest = this.guests.find(one => one.name === name);
    if (guest === undefined) throw new Error(`no guest ${name}`);
    return guest.memoryBytes - guest.targetBytes;
  }
}
