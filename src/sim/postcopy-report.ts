/** Many simulated migrations in post-copy, each cut after every one of its messages, and what is to be said of them. */
import { isLoss } from './migration-run.ts';
import type { PostcopyMistake } from './postcopy-guest.ts';
import { runPostcopy } from './postcopy-run.ts';

const FAILURES_MAX = 5;

interface PostcopyChoice {
  readonly seed: number;
  readonly seeds: number;
  readonly mistake?: PostcopyMistake;
}

interface PostcopyReport {
  readonly migrations: number;
  readonly ends: Readonly<Record<'source' | 'destination' | 'nowhere', number>>;
  readonly recoveries: number;
  readonly failures: readonly {
    readonly seed: number;
    readonly cutAfter: number | undefined;
    readonly loss: boolean;
    readonly message: string;
  }[];
}

export async function reportPostcopy(
  { seed: first, seeds, ...planted }: PostcopyChoice,
  print: (line: string) => void,
): Promise<PostcopyReport> {
  const ends = { source: 0, destination: 0, nowhere: 0 };
  const failures: PostcopyReport['failures'][number][] = [];
  let [migrations, recoveries] = [0, 0];
  for (let seed = first; seed < first + seeds && failures.length < FAILURES_MAX; seed++) {
    let cuts = 0;
    for (let cutAfter: number | undefined; cutAfter === undefined || cutAfter <= cuts; ) {
      migrations++;
      try {
        const result = await runPostcopy({
          seed,
          ...planted,
          ...(cutAfter === undefined ? {} : { cutAfter }),
        });
        if (cutAfter === undefined) cuts = result.messages;
        ends[result.runsAt]++;
        recoveries += result.recoveries;
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        failures.push({ seed, cutAfter, loss: isLoss(error), message });
        print(
          `seed ${seed}, ${cutAfter === undefined ? 'not cut' : `cut after message ${cutAfter}`}: ${message}`,
        );
        break;
      }
      cutAfter = (cutAfter ?? 0) + 1;
    }
  }
  const outcome =
    failures.length === 0 ? 'nothing was lost, and no guest ran twice' : `${failures.length} failed`;
  print(
    `${migrations} migrations: ${ends.destination} guests ended at the destination, ${ends.source} at the source, ${ends.nowhere} nowhere; connections were made again ${recoveries} times: ${outcome}`,
  );
  return { migrations, ends, recoveries, failures };
}
