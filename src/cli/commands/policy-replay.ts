/** `aerostat policy replay`: what the policy would have done over samples that were recorded. */
import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';

interface ReplayChoice {
  readonly config?: string;
  readonly json?: boolean;
}

export function policyReplayCommand(context: CliContext): Command {
  return new Command('replay')
    .description('what the policy would have done')
    .argument('<file>', 'from "aerostat policy record", or answers of Prometheus’ /api/v1/query_range')
    .option('--config <file>', 'settings, of this aerostat.toml')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  aerostat policy replay night.jsonl
  curl -s 'http://prometheus:9090/api/v1/query_range?query={__name__=~"aerostat_(guest|host)_.*"}&start=…&end=…&step=15' > night.json
  aerostat policy replay night.json --config aerostat.toml
Guests are taken to use what they used. What they would have done with other memory is not known.`,
    )
    .action((file: string, choice: ReplayChoice) => runReplay(context, file, choice));
}

async function runReplay(
  { stdout }: CliContext,
  path: string,
  { config, json }: ReplayChoice,
): Promise<void> {
  const [{ readRecording }, { replay }, { DEFAULT_SETTINGS }] = await Promise.all([
    import('../../steering/recording.ts'),
    import('../../steering/replay.ts'),
    import('../../steering/settings.ts'),
  ]);
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw new UsageError(`${path} cannot be read: ${error.message}`);
  });
  const settings =
    config === undefined
      ? DEFAULT_SETTINGS
      : (await import('../configuration/read.ts')).readConfiguration(config).policy;
  const replayed = replay(readRecording(path, text), settings);
  if (json) {
    printJson(stdout, replayed);
    return;
  }
  const moment = (ms: number) => new Date(ms).toISOString().replace('T', ' ').slice(0, 19);
  for (const { timeMs, formerKeepBytes, keepBytes, sentence, guest } of replayed.moves) {
    const change = `${guest} ${formatSize(formerKeepBytes)} -> ${formatSize(keepBytes)}`;
    printLine(stdout, `${moment(timeMs)}  ${change}  ${sentence}`);
  }
  const { samples, fromMs, toMs, moves, overcommitted } = replayed;
  printLine(stdout, `${samples} samples of ${formatDuration(toMs - fromMs)}: ${moves.length} targets`);
  const [was, would] = [replayed.recordedAvailableMinBytes, replayed.availableMinBytes].map(formatSize);
  printLine(stdout, `least available at the host: ${was} as it was, ${would} with the policy`);
  if (overcommitted > 0) printLine(stdout, `overcommitted in ${overcommitted} samples`);
  for (const [guest, count] of Object.entries(replayed.short)) {
    printLine(stdout, `${guest} used more than it would have had in ${count} samples`);
  }
}
