/** Completion for bash: one function that finds the command on the line and knows its words. */
import {
  everyCommand,
  GUEST_NAMES_COMMAND,
  isFile,
  type OutlineCommand,
  type OutlineOption,
} from '../outline.ts';

export function bashCompletion(program: OutlineCommand): string {
  const commands = everyCommand(program);
  const below = commands.filter(({ path }) => path !== program.path).map(({ path }) => `'${path}'`);
  const valued = commands.flatMap(({ path, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(flagsOf)
      .map(flag => `'${path}:${flag}'`),
  );
  return `# bash completion for ${program.name}; aerostat completion bash prints it.
_${program.name}_guests() {
  local name said=" \${COMP_WORDS[*]:1:COMP_CWORD-1} "
  while read -r name; do
    [[ $said == *" $name "* ]] || printf '%s\\n' "$name"
  done < <(${GUEST_NAMES_COMMAND})
}
_${program.name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} at=${program.name} i args=0
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
      ${below.join(' | ')}) at="$at \${COMP_WORDS[i]}"; args=0; continue ;;
    esac
    case "$at:\${COMP_WORDS[i]}" in
      ${valued.join(' | ')})
        # Its value is the next word, or the one after an equals sign, which is a word to bash.
        [[ \${COMP_WORDS[i + 1]} == = ]] && i=$((i + 2)) || i=$((i + 1)) ;;
      *:-*) ;;
      *) args=$((args + 1)) ;;
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

/** What may stand where nothing else is expected: commands, options, and what the next argument may be. */
function wordsCase({ path, options, args, commands }: OutlineCommand): string {
  const flags = `words='${options.flatMap(flagsOf).join(' ')}'`;
  const below = commands.map(({ name }) => name).join(' ');
  const places = args.flatMap(({ name, choices, variadic }, at) => {
    const words = name === 'guest' ? '$(_aerostat_guests)' : choices.join(' ');
    // What may be given again and again may stand at every place from its own on.
    return words === '' ? [] : [`if [[ $args -${variadic ? 'ge' : 'eq'} ${at} ]]; then words="${words}"; fi`];
  });
  const plain = below === '' ? (places.length === 0 ? [':'] : places) : [`words='${below}'`];
  return `    '${path}') if [[ $cur == -* ]]; then ${flags}; else ${plain.join('; ')}; fi ;;`;
}
