/** `aerostat config`: what a configuration says, whether it is right, and what it may say. */
import { Command } from 'commander';
import type { Configuration } from '../configuration/read.ts';
import type { Setting } from '../configuration/settings.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { withVerbose } from '../options.ts';
import { styleOf } from '../style.ts';
import { wrap } from '../table.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat config check                        the file that commands would take
  aerostat config check ./aerostat.toml && systemctl reload aerostat
  aerostat config show --json                  every setting, with its value and where it comes from
  aerostat config explain policy.reserve       what a setting means, and what may stand there
  aerostat config explain                      all settings

A file is named, or AEROSTAT_CONFIG says it, or it is ~/.config/aerostat/aerostat.toml (XDG_CONFIG_HOME), or
/etc/aerostat/aerostat.toml. docs/configuration.md lists all settings.`;

interface ConfigChoice {
  readonly json?: boolean;
}

export function configCommand(context: CliContext): Command {
  const json = (command: Command) => withVerbose(command.option('--json', 'print JSON'));
  const command = new Command('config')
    .description('check, show and explain the configuration')
    .addHelpText('after', EXAMPLES);
  command.addCommand(
    json(new Command('check').description('say whether a file is right'))
      .argument('[file]', 'the file (default: the one that commands would take)')
      .action((file: string | undefined, choice: ConfigChoice) => check(context, file, choice)),
  );
  command.addCommand(
    json(new Command('show').description('print every setting in force, and where it comes from'))
      .argument('[file]', 'the file (default: the one that commands would take)')
      .action((file: string | undefined, choice: ConfigChoice) => show(context, file, choice)),
  );
  command.addCommand(
    json(new Command('explain').description('say what a setting means'))
      .argument('[key...]', 'settings, as policy.reserve or guests.web.min (default: all)')
      .action((keys: readonly string[], choice: ConfigChoice) => explain(context, keys, choice)),
  );
  return command;
}

async function read({ env }: CliContext, file: string | undefined): Promise<Configuration> {
  const [{ configurationPath, configurationPlaces }, { readConfiguration }] = await Promise.all([
    import('../configuration/place.ts'),
    import('../configuration/read.ts'),
  ]);
  const path = configurationPath(file, env);
  if (path !== undefined) return readConfiguration(path);
  throw new UsageError(
    `there is no configuration; name a file, or write one to ${configurationPlaces(env).join(' or ')}`,
  );
}

async function check(context: CliContext, file: string | undefined, { json }: ConfigChoice): Promise<void> {
  const configuration = await read(context, file);
  const { path, daemons, qmpDirectories, libvirt, guests, served } = configuration;
  const counts = {
    served: served.length,
    guests: guests.length,
    daemons: daemons.length,
    qmpDirectories: qmpDirectories.length,
    libvirt: libvirt.length,
  };
  if (json) return void printJson(context.stdout, { path, ...counts });
  const words = [
    counted(counts.served, 'guest to serve', 'guests to serve'),
    counted(counts.guests, 'guest elsewhere', 'guests elsewhere'),
    counted(counts.daemons, 'daemon'),
    counted(counts.qmpDirectories, 'folder of monitors', 'folders of monitors'),
    counted(counts.libvirt, 'libvirt'),
  ].flat();
  printLine(
    context.stdout,
    `${path} is right: ${words.length === 0 ? 'it names no guests' : words.join(', ')}`,
  );
}

const counted = (count: number, one: string, many = `${one}s`): string[] =>
  count === 0 ? [] : [`${count} ${count === 1 ? one : many}`];

/** One setting as it is in force. */
interface Shown {
  readonly key: string;
  readonly value: string;
  /** Where the file says it; null where it does not. */
  readonly line: number | null;
}

async function show(context: CliContext, file: string | undefined, { json }: ConfigChoice): Promise<void> {
  const [configuration, { settings, tomlOf }] = await Promise.all([
    read(context, file),
    import('../configuration/settings.ts'),
  ]);
  const names = Object.keys(configuration.text.guests ?? {});
  const shown = settings()
    .filter(({ isTable }) => !isTable)
    .flatMap(({ key, fallback }): Shown[] =>
      keysOf(key, names).flatMap(keys => {
        const value = valueAt(configuration.text, keys);
        const line = configuration.placeOf(keys)?.line ?? null;
        if (value !== undefined) return [{ key: keys.join('.'), value: tomlOf(value), line }];
        const isOfGuest = keys[0] === 'guests';
        return fallback === undefined || isOfGuest
          ? []
          : [{ key: keys.join('.'), value: tomlOf(fallback), line: null }];
      }),
    );
  if (json) return void printJson(context.stdout, { path: configuration.path, settings: shown });
  const { stdout, env } = context;
  const style = styleOf(stdout, env);
  printLine(stdout, `# ${configuration.path}`);
  for (const { key, value, line } of shown) {
    const origin = line === null ? 'default' : `line ${line}`;
    printLine(stdout, `${key} = ${value}  ${style.dim(`# ${origin}`)}`);
  }
}

/** `guests.NAME.min` is a setting of each guest. */
const keysOf = (key: string, names: readonly string[]): string[][] => {
  const keys = key.split('.');
  if (!keys.includes('NAME')) return [keys];
  return names.map(name => keys.map(part => (part === 'NAME' ? name : part)));
};

function valueAt(text: unknown, keys: readonly string[]): unknown {
  return keys.reduce<unknown>((table, key) => (table as Record<string, unknown> | undefined)?.[key], text);
}

async function explain(context: CliContext, keys: readonly string[], { json }: ConfigChoice): Promise<void> {
  const { settings } = await import('../configuration/settings.ts');
  const all = settings();
  const chosen = keys.length === 0 ? all : keys.flatMap(key => fitting(all, key));
  if (json) return void printJson(context.stdout, { settings: chosen });
  const { stdout, env } = context;
  const style = styleOf(stdout, env);
  const width = Math.min(stdout.columns || 100, 100);
  for (const { key, type, description, example, isTable } of chosen) {
    printLine(
      stdout,
      `${style.bold(isTable ? `[${key}]` : key)}  ${style.dim(isTable ? '' : type)}`.trimEnd(),
    );
    for (const line of wrap(description, width - 4)) printLine(stdout, `    ${line}`);
    if (example !== undefined) printLine(stdout, `    ${key.split('.').at(-1)} = ${example}`);
  }
}

/** The setting that is meant, and what is below it. @throws UsageError */
function fitting(all: readonly Setting[], key: string): readonly Setting[] {
  const wished = key.replaceAll(/[[\]]/g, '').replace(/^guests\.[^.]+/, 'guests.NAME');
  const found = all.filter(setting => setting.key === wished || setting.key.startsWith(`${wished}.`));
  if (found.length > 0) return found;
  const last = key.split('.').at(-1) as string;
  const near = all.filter(setting => setting.key.endsWith(`.${last}`)).map(setting => setting.key);
  const hint = near.length > 0 ? `; ${near.join(' and ')} are` : '; "aerostat config explain" lists all';
  throw new UsageError(`there is no setting ${key}${hint}`);
}
