/** `aerostat help [COMMAND...]`: how a command is used, however deep it lies; commander's own knows one word only. */
import { Command } from 'commander';
import { UsageError } from '../usage.ts';

export function helpCommand(): Command {
  return new Command('help')
    .description('say how a command is used')
    .argument('[command...]', 'for example: set, or bench page')
    .action((words: readonly string[], _choice: unknown, command: Command) => {
      commandOf(command.parent as Command, words).help();
    });
}

/** @throws UsageError that lists what there is */
function commandOf(root: Command, words: readonly string[]): Command {
  let command = root;
  const path = [root.name()];
  for (const word of words) {
    const below = command.commands.find(candidate => candidate.name() === word);
    if (below === undefined) {
      const visible = command.createHelp().visibleCommands(command);
      const names = visible.map(one => one.name()).filter(name => name !== 'help');
      const choices = names.length === 0 ? 'it has none below it' : `there are ${names.join(', ')}`;
      throw new UsageError(`${path.join(' ')} has no command ${word}; ${choices}`);
    }
    command = below;
    path.push(word);
  }
  return command;
}
