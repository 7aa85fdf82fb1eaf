/**
 * The thread that feeds targets. It shows every input in shared memory before the target gets it, so that the main
 * thread has it in hand when a target never comes back.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Random } from '../../src/guest/random.ts';
import { runCampaign, SlowInputError } from './campaign.ts';
import { readCorpus } from './corpus.ts';
import { TARGETS } from './targets.ts';
import { type CampaignOrder, type CampaignReport, type FuzzThreadData, ShownInput } from './thread.ts';
import { threadCpuMs } from './thread-time.ts';

const shown = new ShownInput((workerData as FuzzThreadData).shown);

/** Where something broke, which says nothing of an input that is slow. */
const describe = (reason: Error): string =>
  reason instanceof SlowInputError ? reason.message : (reason.stack ?? reason.message);

parentPort?.on('message', ({ name, seed, timeMs }: CampaignOrder) => {
  const target = TARGETS.get(name);
  if (target === undefined) throw new Error(`no target is called ${name}`);
  const { executions, slowestMs, finding } = runCampaign({
    target,
    corpus: readCorpus(name),
    random: new Random(seed).split(name),
    timeMs,
    watch: input => shown.show(input),
    spentMs: threadCpuMs,
  });
  const report: CampaignReport = {
    executions,
    slowestMs,
    finding: finding && { input: finding.input, reason: describe(finding.reason) },
  };
  parentPort?.postMessage(report);
});
