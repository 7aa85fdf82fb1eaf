/** `aerostat completion`: what a shell needs to complete our words; and `aerostat manual`, the manual page. */
import { Argument, Command } from 'commander';
import { readVersion } from '../../sys/version.ts';
import { bashCompletion } from '../completion/bash.ts';
import { fishCompletion } from '../completion/fish.ts';
import { zshCompletion } from '../completion/zsh.ts';
import type { CliContext } from '../context.ts';
import { manualPage } from '../manual.ts';
import { type OutlineCommand, outlineOf } from '../outline.ts';
import { EXIT_MEANINGS } from '../usage.ts';

const EXAMPLES = `
Examples:
  source <(aerostat completion bash)
  aerostat completion zsh > ~/.zfunc/_aerostat
  aerostat completion fish > ~/.config/fish/completions/aerostat.fish`;

const SHELLS: Readonly<Record<string, (program: OutlineCommand) => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

export function completionCommand({ stdout }: CliContext): Command {
  return new Command('completion')
    .description('print a script that lets a shell complete commands, options and guests')
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SHELLS)))
    .addHelpText('after', EXAMPLES)
    .action((shell: string, _choice: unknown, command: Command) => {
      stdout.write(SHELLS[shell](outlineOf(root(command))));
    });
}

export function manualCommand({ stdout }: CliContext): Command {
  return new Command('manual')
    .description('print the manual page: aerostat manual | man -l -')
    .action((_choice: unknown, command: Command) => {
      stdout.write(
        manualPage(outlineOf(root(command)), { version: readVersion(), exitCodes: EXIT_MEANINGS }),
      );
    });
}

const root = (command: Command): Command => (command.parent === null ? command : root(command.parent));
