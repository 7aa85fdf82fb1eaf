/** Every policy that can be compared, by name, ready to run on a trace. */
import type { Policy } from '../../policy/anchors/anchor.ts';
import { concierge } from '../../policy/anchors/concierge.ts';
import { hyperV } from '../../policy/anchors/hyper-v.ts';
import { mom } from '../../policy/anchors/mom.ts';
import { ours } from '../../policy/anchors/ours.ts';
import { piController } from '../../policy/anchors/pi-controller.ts';
import { type FutureUse, fixed, oracle, reportingOnly } from '../../policy/anchors/plain.ts';
import { proxmox } from '../../policy/anchors/proxmox.ts';
import { qmemman } from '../../policy/anchors/qmemman.ts';
import { senpai } from '../../policy/anchors/senpai.ts';
import { squeezed } from '../../policy/anchors/squeezed.ts';
import { vmware } from '../../policy/anchors/vmware.ts';
import { type Outcome, type PlayOptions, runPolicy, START_MS } from './run.ts';
import { type Demand, type Trace, watermarkOf } from './trace.ts';

export interface Contender {
  readonly name: string;
  readonly source: string;
  readonly periodMs: number;
  readonly run: (trace: Trace, options?: PlayOptions) => Outcome;
}

const contender = <Memory>(policy: Policy<Memory>): Contender => ({
  name: policy.name,
  source: policy.source,
  periodMs: policy.periodMs,
  run: (trace, options) => runPolicy(trace, policy, options),
});

const LOOK_STEP_S = 1;
/** What an oracle leaves beside what is needed, for the kernel's rounding. */
const MARGIN = 1.01;

/** The moment of a trace that its policy's clock calls `atMs`. */
function momentOf(trace: Trace, atMs: number): number {
  let stepped = 0;
  let fromS = Number.NEGATIVE_INFINITY;
  const steps = [...(trace.clockSteps ?? []), { atS: Number.POSITIVE_INFINITY, byMs: 0 }];
  for (const { atS, byMs } of steps) {
    const moment = (atMs - START_MS - stepped) / 1000;
    if (moment >= fromS && moment <= atS) return moment;
    stepped += byMs;
    fromS = atS;
  }
  return 0;
}

/** Looks into the trace. */
function futureOf(trace: Trace): (guest: number, fromMs: number, toMs: number) => FutureUse {
  const demand: Demand = { programsBytes: 0, cacheBytes: 0, accesses: 0, committedBytes: 0 };
  return (guest, fromMs, toMs) => {
    const fromS = momentOf(trace, fromMs);
    const wish = { programsBytes: 0, cacheBytes: 0, accesses: 0 };
    for (let atS = fromS; atS <= fromS + (toMs - fromMs) / 1000; atS += LOOK_STEP_S) {
      trace.guests[guest].demand(atS, demand);
      const needed = demand.programsBytes * MARGIN + watermarkOf(trace.guests[guest].memoryBytes);
      wish.programsBytes = Math.max(wish.programsBytes, needed);
      wish.cacheBytes = Math.max(wish.cacheBytes, demand.cacheBytes);
      wish.accesses = Math.max(wish.accesses, demand.accesses);
    }
    return wish;
  };
}

const ORACLE = oracle(() => ({ programsBytes: 0, cacheBytes: 0, accesses: 0 }));

/** Ours first, then those that do not react, then ports, the oracle last. */
export const CONTENDERS: readonly Contender[] = [
  contender(ours),
  contender(reportingOnly),
  contender(fixed),
  contender(proxmox),
  contender(mom),
  contender(squeezed),
  contender(qmemman),
  contender(hyperV),
  contender(vmware),
  contender(concierge),
  contender(senpai),
  contender(piController),
  {
    ...contender(ORACLE),
    run: (trace, options) => runPolicy(trace, oracle(futureOf(trace)), options),
  },
];

export const ORACLE_NAME = ORACLE.name;
