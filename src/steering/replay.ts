/**
 * What the policy would have done over recorded samples. Guests are taken to use what they used, and to give and take at once
 * what they are told; the host has what they gave beyond what they had given. What a guest would have done with other
 * memory is not known, and not told.
 */
import { decide } from '../policy/decide.ts';
import { explainGuest } from '../policy/explain.ts';
import { newDecision } from '../policy/records.ts';
import type { GuestSample, Sample, Settings } from '../policy/types.ts';
import { formatSize } from '../sys/size.ts';
import type { RecordedSample } from './recording.ts';
import { type SteeringSettings, settingsInForce } from './settings.ts';

export interface ReplayedMove {
  readonly timeMs: number;
  readonly guest: string;
  readonly keepBytes: number;
  readonly formerKeepBytes: number;
  readonly sentence: string;
}

export interface Replayed {
  readonly samples: number;
  readonly fromMs: number;
  readonly toMs: number;
  readonly moves: readonly ReplayedMove[];
  /** Least that was available at the host: as recorded, and with the policy. */
  readonly recordedAvailableMinBytes: number;
  readonly availableMinBytes: number;
  /** Samples in which the guests needed more than there was. */
  readonly overcommitted: number;
  /** Samples in which a guest used more than the policy would have left it, by guest. */
  readonly short: Readonly<Record<string, number>>;
}

/** @throws TypeError never for samples that readRecording accepted */
export function replay(recorded: readonly RecordedSample[], steering: SteeringSettings): Replayed {
  const targets = new Map<string, number>();
  const moves: ReplayedMove[] = [];
  const short: Record<string, number> = {};
  let last = newDecision();
  let spare = newDecision();
  let recordedMin = Number.POSITIVE_INFINITY;
  let availableMin = Number.POSITIVE_INFINITY;
  let overcommitted = 0;
  for (const [index, { sample, wallMs }] of recorded.entries()) {
    const seen = withTargets(sample, targets);
    const next = decide(seen, settingsFor(steering, recorded, index), last.memory, spare);
    spare = last;
    last = next;
    recordedMin = Math.min(recordedMin, sample.host.availableBytes);
    availableMin = Math.min(availableMin, seen.host.availableBytes);
    if (next.host.overcommitted) overcommitted++;
    for (const [at, guest] of next.guests.entries()) {
      const { actualBytes, memoryBytes } = seen.guests[at];
      if (guest.usedBytes > memoryBytes - actualBytes) short[guest.name] = (short[guest.name] ?? 0) + 1;
      const before = targets.get(guest.name) ?? seen.guests[at].targetBytes;
      if (guest.targetBytes < 0 || guest.targetBytes === before) continue;
      targets.set(guest.name, guest.targetBytes);
      moves.push({
        timeMs: wallMs,
        guest: guest.name,
        keepBytes: Math.round(guest.keepBytes),
        formerKeepBytes: Math.round(memoryBytes - before),
        sentence: explainGuest(guest, next.host, formatSize),
      });
    }
  }
  return {
    samples: recorded.length,
    fromMs: recorded[0].wallMs,
    toMs: recorded[recorded.length - 1].wallMs,
    moves,
    recordedAvailableMinBytes: recordedMin,
    availableMinBytes: availableMin,
    overcommitted,
    short,
  };
}

/** Samples of another interval have statistics as often as they have samples. */
function settingsFor(
  steering: SteeringSettings,
  recorded: readonly RecordedSample[],
  index: number,
): Settings {
  const { sample } = recorded[index];
  const apartMs = index === 0 ? steering.periodMs : sample.atMs - recorded[index - 1].sample.atMs;
  const names = sample.guests.map(({ name }) => name);
  const settings = settingsInForce(steering, {}, [], names);
  return { ...settings, statisticsPeriodMs: Math.max(settings.statisticsPeriodMs ?? 0, apartMs) };
}

/** The sample as it would have been, had guests followed the policy's targets. */
function withTargets(sample: Sample, targets: ReadonlyMap<string, number>): Sample {
  let given = 0;
  const guests = sample.guests.map((guest): GuestSample => {
    const target = targets.get(guest.name);
    if (target === undefined) return guest;
    const { memoryBytes, statistics, residentBytes } = guest;
    const actualBytes = Math.min(memoryBytes, target);
    const moved = actualBytes - guest.actualBytes;
    given += moved;
    const available = statistics?.availableBytes ?? null;
    return {
      ...guest,
      targetBytes: target,
      actualBytes,
      givenBytes: actualBytes,
      residentBytes:
        residentBytes === null ? null : Math.max(0, Math.min(residentBytes - moved, memoryBytes)),
      statistics:
        statistics === null
          ? null
          : {
              ...statistics,
              availableBytes: available === null ? null : Math.max(0, available - moved),
              balloonedBytes: statistics.balloonedBytes === null ? null : statistics.balloonedBytes + moved,
            },
    };
  });
  const { host } = sample;
  const availableBytes = Math.max(0, Math.min(host.totalBytes, host.availableBytes + given));
  return { ...sample, host: { ...host, availableBytes, freeBytes: availableBytes }, guests };
}
