/** Many histories in a row, and what is to be said of them: a failure with all that it takes to see it again. */
import type { ProfileName } from '../balloon/profiles.ts';
import { liveHistory } from './sim-history.ts';

/** Histories between two lines that tell how far it is. */
const PROGRESS_INTERVAL = 100;
/** More failures tell nothing more. */
const FAILURES_MAX = 5;

interface HistoriesChoice {
  /** Of the first history; the next one has the next. */
  readonly seed: number;
  readonly seeds: number;
  readonly steps: number;
  readonly profile?: ProfileName;
  /** See {@link liveHistory}. */
  readonly handsOver?: boolean;
}

interface HistoryFailure {
  readonly seed: number;
  /** The step that failed; as many as there are when the end did. */
  readonly step: number;
  readonly message: string;
  /** Makes it happen again. */
  readonly command: string;
}

interface HistoriesReport {
  readonly histories: number;
  readonly steps: number;
  readonly failures: readonly HistoryFailure[];
}

export async function reportHistories(
  { seed, seeds, steps, profile, handsOver = false }: HistoriesChoice,
  print: (line: string) => void,
): Promise<HistoriesReport> {
  const failures: HistoryFailure[] = [];
  let [histories, made] = [0, 0];
  for (; histories < seeds && failures.length < FAILURES_MAX; histories++) {
    const only = profile === undefined ? {} : { profile };
    const options = { seed: seed + histories, steps, handsOver, ...only };
    const history = await liveHistory(options);
    made += history.steps;
    if (history.failure !== undefined) {
      const further = `${profile === undefined ? '' : ` --profile ${profile}`}${handsOver ? ' --hands-over' : ''}`;
      const command = `npm run sim -- --seed ${options.seed} --steps ${steps}${further}`;
      const { message } = history.failure;
      failures.push({ seed: options.seed, step: history.steps, message, command });
      print(`seed ${options.seed} fails at step ${history.steps} (profile ${history.plan.profile}):`);
      for (const line of history.trace) print(`  ${line}`);
      print(history.failure.stack ?? message);
      print(`Again: ${command}`);
    }
    if ((histories + 1) % PROGRESS_INTERVAL === 0) print(`${histories + 1} of ${seeds}`);
  }
  const outcome = failures.length === 0 ? 'nothing was lost' : `${failures.length} failed`;
  print(
    `${histories} ${histories === 1 ? 'history' : 'histories'} of ${steps} steps from seed ${seed} on: ${outcome}`,
  );
  return { histories, steps: made, failures };
}
