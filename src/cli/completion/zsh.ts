/** Completion for zsh: a function for each command, with what its options are for. */
import {
  everyCommand,
  GUEST_NAMES_COMMAND,
  isFile,
  type OutlineCommand,
  type OutlineOption,
} from '../outline.ts';

export function zshCompletion(program: OutlineCommand): string {
  return `#compdef ${program.name}
# zsh completion for ${program.name}; aerostat completion zsh prints it.
_${program.name}_guests() {
  local -a names=(\${(f)"$(${GUEST_NAMES_COMMAND})"})
  # Those that are on the line already are not offered again.
  names=(\${names:|words})
  compadd -a names
}
${everyCommand(program).map(commandFunction).join('\n')}
if [[ $funcstack[1] == _${program.name} ]]; then
  _${program.name} "$@"
else
  compdef _${program.name} ${program.name}
fi
`;
}

const functionOf = (path: string): string => `_${path.replaceAll(/[ -]/g, '_')}`;

/** Inside single quotes and square brackets. */
const described = (text: string): string => text.replaceAll(/[[\]\\:]/g, '\\$&').replaceAll("'", "'\\''");

function commandFunction({ path, options, args, commands }: OutlineCommand): string {
  const specs = [
    ...options.map(optionSpec),
    ...args.map(({ name, required, variadic, choices }, at) => {
      const action =
        name === 'guest' ? '_aerostat_guests' : choices.length > 0 ? `(${choices.join(' ')})` : '';
      // Two colons after an asterisk would take the options that follow for words of the argument.
      return variadic ? `'*:${name}:${action}'` : `'${at + 1}:${required ? '' : ':'}${name}:${action}'`;
    }),
  ];
  if (commands.length === 0) {
    return `${functionOf(path)}() {\n  _arguments -s \\\n    ${specs.join(' \\\n    ')}\n}`;
  }
  const names = commands.map(({ name, description }) => `'${name}:${described(description)}'`);
  const cases = commands.map(({ name, path: below }) => `    ${name}) ${functionOf(below)} ;;`);
  return `${functionOf(path)}() {
  local state line
  local -a commands=(
    ${names.join('\n    ')}
  )
  _arguments -C \\
    ${[...specs, "'1:command:->command'", "'*::word:->words'"].join(' \\\n    ')}
  case $state in
    command) _describe command commands ;;
    words)
      case $line[1] in
    ${cases.join('\n    ')}
      esac ;;
  esac
}`;
}

function optionSpec({ long, description, value, choices }: OutlineOption): string {
  // An asterisk: several options may be given again; the command itself refuses the others.
  const head = `'*${long}[${described(description)}]`;
  if (value === undefined) return `${head}'`;
  const action = choices.length > 0 ? `(${choices.join(' ')})` : isFile(value) ? '_files' : '';
  return `${head}:${described(value)}:${action}'`;
}
