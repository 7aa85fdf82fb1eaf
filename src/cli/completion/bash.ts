/** Completion for bash: one function that finds the command on the line and knows its words. */
import { everyCommand, GUEST_NAMES, isFile, type OutlineCommand, type OutlineOption } from '../outline.ts';

export function bashCompletion(program: OutlineCommand): string {
  const commands = everyCommand(program);
  const below = commands.filter(({ path }) => path !== program.path).map(({ path }) => `'${path}'`);
  return `# bash completion for ${program.name}; aerostat completion bash prints it.
_${program.name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} at=${program.name} i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
      ${below.join(' | ')}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at:$prev" in
${commands.flatMap(valueCases).join('\n')}
  esac
  local words=
  case "$at" in
${commands.map(wordsCase).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _${program.name} ${program.name}
`;
}

const flagsOf = ({ long, short }: OutlineOption): string[] => (short === undefined ? [long] : [long, short]);

/** What follows an option that takes a value. */
function valueCases({ path, options }: OutlineCommand): string[] {
  return options.flatMap(option => {
    if (option.value === undefined) return [];
    const pattern = flagsOf(option)
      .map(flag => `'${path}:${flag}'`)
      .join(' | ');
    const reply =
      option.choices.length > 0
        ? `COMPREPLY=($(compgen -W '${option.choices.join(' ')}' -- "$cur"))`
        : isFile(option.value)
          ? 'COMPREPLY=($(compgen -f -- "$cur"))'
          : ':';
    return [`    ${pattern}) ${reply}; return ;;`];
  });
}

/** What may stand where nothing else is expected: commands, options, and what the arguments may be. */
function wordsCase({ path, options, args, commands }: OutlineCommand): string {
  const below = commands.map(({ name }) => name);
  const choices = args.flatMap(argument => argument.choices);
  const guests = args.some(({ name }) => name === 'guest') ? [`$(${GUEST_NAMES})`] : [];
  const flags = options.flatMap(flagsOf);
  const plain = [...below, ...choices, ...guests].join(' ');
  return `    '${path}') if [[ $cur == -* ]]; then words='${flags.join(' ')}'; else words="${plain}"; fi ;;`;
}
