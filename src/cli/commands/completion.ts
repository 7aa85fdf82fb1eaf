/** `aerostat completion`: what a shell needs to complete our words; and `aerostat manual`, the manual page. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Argument, Command } from 'commander';
import { readVersion } from '../../sys/version.ts';
import { bashCompletion } from '../completion/bash.ts';
import { fishCompletion } from '../completion/fish.ts';
import { zshCompletion } from '../completion/zsh.ts';
import type { CliContext } from '../context.ts';
import { manualPages } from '../manual.ts';
import { type OutlineCommand, outlineOf } from '../outline.ts';
import { EXIT_MEANINGS, UsageError } from '../usage.ts';

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
    .description('print a manual page: aerostat manual set | man -l -')
    .argument('[name]', "a command's, as set or bench-page, or files; the program's own when left out")
    .option('--into <path>', 'write all pages to this folder instead')
    .action((name: string | undefined, { into }: { into?: string }, command: Command) => {
      const program = outlineOf(root(command));
      const pages = manualPages(program, { version: readVersion(), exitCodes: EXIT_MEANINGS });
      if (into !== undefined) {
        mkdirSync(into, { recursive: true });
        for (const page of pages) writeFileSync(join(into, `${page.name}.${page.section}`), page.text);
        return;
      }
      const wanted = name === undefined ? program.name : `${program.name}-${name}`;
      const page = pages.find(candidate => candidate.name === wanted);
      if (page === undefined) {
        const known = pages.slice(1).map(one => one.name.slice(program.name.length + 1));
        throw new UsageError(`there is no manual page of ${name}; there are ${known.join(', ')}`);
      }
      stdout.write(page.text);
    });
}

const root = (command: Command): Command => (command.parent === null ? command : root(command.parent));
