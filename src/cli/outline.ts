/** What the command line consists of, read off the commands themselves: completion scripts and manual pages are made from it. */
import type { EventEmitter } from 'node:events';
import type { Command } from 'commander';

export interface OutlineOption {
  readonly long: string;
  readonly short: string | undefined;
  readonly description: string;
  /** What its value is called; undefined for one that takes none. */
  readonly value: string | undefined;
  readonly choices: readonly string[];
}

interface OutlineArgument {
  readonly name: string;
  readonly required: boolean;
  /** The last one may be given again and again. */
  readonly variadic: boolean;
  readonly choices: readonly string[];
}

export interface OutlineCommand {
  /** From the program on: `aerostat bench linux`. */
  readonly path: string;
  readonly name: string;
  readonly description: string;
  readonly options: readonly OutlineOption[];
  readonly args: readonly OutlineArgument[];
  /** What `--help` says after the options: examples, keys, and what else there is to know. */
  readonly notes: string;
  readonly commands: readonly OutlineCommand[];
}

export function outlineOf(command: Command, above = ''): OutlineCommand {
  const path = `${above} ${command.name()}`.trim();
  const help = command.createHelp();
  return {
    path,
    name: command.name(),
    description: command.description(),
    // commander knows which are hidden, and adds --help.
    options: help.visibleOptions(command).flatMap(option => {
      if (option.long == null) return [];
      return [
        {
          long: option.long,
          short: option.short ?? undefined,
          description: help.optionDescription(option),
          value: /[<[]([\w:[\]-]+?)(?:\.\.\.)?[>\]]$/.exec(option.flags)?.[1],
          choices: option.argChoices ?? [],
        },
      ];
    }),
    args: command.registeredArguments.map(argument => ({
      name: argument.name(),
      required: argument.required,
      variadic: argument.variadic,
      choices: argument.argChoices ?? [],
    })),
    notes: notesOf(command),
    commands: help
      .visibleCommands(command)
      // commander's own, where --help does the same.
      .filter(below => below.name() !== 'help')
      .map(below => outlineOf(below, path)),
  };
}

/** What the command was given with addHelpText('after', …), which commander keeps as listeners. */
function notesOf(command: Command): string {
  let notes = '';
  const write = (text: string): void => {
    notes += text;
  };
  // Its types leave out that it is an emitter, as its documentation says.
  (command as unknown as EventEmitter).emit('afterHelp', { error: false, command, write });
  return notes.trim();
}

/** The command and all below it, the outer before the inner. */
export const everyCommand = (command: OutlineCommand): readonly OutlineCommand[] => [
  command,
  ...command.commands.flatMap(everyCommand),
];

/** What values are that name a file or a socket. */
const FILES = new Set(['path', 'file', 'socket', 'address']);

export const isFile = (value: string | undefined): boolean => value !== undefined && FILES.has(value);

/** Prints the names of the guests of the daemon that runs, a line each, and nothing when none does. */
export const GUEST_NAMES_COMMAND = `aerostat status --json 2>/dev/null | grep -o '"name":"[^"]*"' | cut -d '"' -f 4 | sort -u`;
