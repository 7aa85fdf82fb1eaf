/** A decision as it is shown: sizes that are not known are null, and the reasons are also a sentence. */
import type { GuestPolicyDecision, PolicyBudget } from '../control/policy.ts';
import { explainGuest, explainHost } from '../policy/explain.ts';
import type { GuestDecision, HostDecision } from '../policy/types.ts';
import { formatSize } from '../sys/size.ts';

const orNull = (bytes: number): number | null => (bytes < 0 ? null : Math.round(bytes));

export function decisionOf(
  decision: GuestDecision,
  host: HostDecision,
  about: Pick<GuestPolicyDecision, 'timeMs' | 'actualBytes' | 'moved'>,
): GuestPolicyDecision {
  return {
    timeMs: about.timeMs,
    memoryBytes: orNull(decision.memoryBytes),
    usedBytes: orNull(decision.usedBytes),
    nowBytes: Math.round(decision.nowBytes),
    needBytes: Math.round(decision.needBytes),
    learnedBytes: Math.round(decision.learnedBytes),
    floorBytes: Math.round(decision.floorBytes),
    maxBytes: Math.round(decision.maxBytes),
    shares: decision.shares,
    wantBytes: orNull(decision.wantBytes),
    keepBytes: orNull(decision.keepBytes),
    targetBytes: orNull(decision.targetBytes),
    actualBytes: about.actualBytes,
    statisticsAgeMs: decision.statisticsAgeMs < 0 ? null : decision.statisticsAgeMs,
    bound: decision.bound,
    held: decision.held,
    distress: decision.distress,
    stuck: decision.stuck,
    contradiction: decision.contradiction,
    moved: about.moved,
    sentence: explainGuest(decision, host, formatSize),
  };
}

export function budgetShown(host: HostDecision): PolicyBudget {
  const { budgetBytes, fixedBytes, needBytes } = host;
  return {
    totalBytes: Math.round(host.totalBytes),
    availableBytes: Math.round(host.availableBytes),
    reserveBytes: Math.round(host.reserveBytes),
    othersBytes: Math.round(host.othersBytes),
    reservedBytes: Math.round(host.reservedBytes),
    budgetBytes: Math.round(budgetBytes),
    fixedBytes: Math.round(fixedBytes),
    floorsBytes: Math.round(host.floorsBytes),
    needBytes: Math.round(needBytes),
    surplusBytes: Math.round(Math.max(0, budgetBytes - fixedBytes - needBytes)),
    maxBytes: Math.round(host.maxBytes),
    waitingBytes: Math.round(host.waitingBytes),
    overcommitted: host.overcommitted,
    floorsAbove: host.floorsAbove,
    sentence: explainHost(host, formatSize),
  };
}
