/** Completion for fish: a line for each word that may stand somewhere. */
import {
  everyCommand,
  GUEST_NAMES_COMMAND,
  isFile,
  type OutlineCommand,
  type OutlineOption,
} from '../outline.ts';

export function fishCompletion(program: OutlineCommand): string {
  const commands = everyCommand(program);
  const below = commands.filter(({ path }) => path !== program.path).map(({ path }) => `'${path}'`);
  const valued = commands.flatMap(({ path, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ long, short }) => (short === undefined ? [long] : [long, short]))
      .map(flag => `'${path}:${flag}'`),
  );
  return `# fish completion for ${program.name}; aerostat completion fish prints it.
function __${program.name}_line --description 'The command that the line has come to, and how many arguments it has'
    set -l at ${program.name}
    set -l args 0
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
        else if contains -- "$at $word" ${below.join(' ')}
            set at "$at $word"
            set args 0
        else if contains -- "$at:$word" ${valued.join(' ')}
            set skip 1
        else if not string match -q -- '-*' $word
            set args (math $args + 1)
        end
    end
    echo $at
    echo $args
end
function __${program.name}_at --description 'Whether the line has come to this command, and to this argument if one is given'
    set -l line (__${program.name}_line)
    test "$line[1]" = "$argv[1]"; or return 1
    test (count $argv) = 1; and return 0
    test $line[2] $argv[2..]
end
function __${program.name}_guests
    for name in (${GUEST_NAMES_COMMAND})
        contains -- $name (commandline -opc); or echo $name
    end
end
complete -c ${program.name} -f
${commands.flatMap(command => linesOf(program.name, command)).join('\n')}
`;
}

const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function linesOf(program: string, { path, options, args, commands }: OutlineCommand): string[] {
  const where = (place = '') => `complete -c ${program} -n ${quoted(`__${program}_at '${path}'${place}`)}`;
  const here = where();
  return [
    ...commands.map(({ name, description }) => `${here} -a ${name} -d ${quoted(description)}`),
    ...args.flatMap(({ name, choices, variadic }, at) => {
      const place = where(` ${variadic ? '-ge' : '-eq'} ${at}`);
      if (name === 'guest') return [`${place} -a '(__${program}_guests)'`];
      return choices.length > 0 ? [`${place} -a ${quoted(choices.join(' '))}`] : [];
    }),
    ...options.map(option => `${here} ${optionWords(option)}`),
  ];
}

function optionWords({ long, short, description, value, choices }: OutlineOption): string {
  const names = [`-l ${long.slice(2)}`, ...(short === undefined ? [] : [`-s ${short.slice(1)}`])];
  const takes = value === undefined ? [] : isFile(value) ? ['-r', '-F'] : ['-x'];
  const among = choices.length > 0 ? [`-a ${quoted(choices.join(' '))}`] : [];
  return [...names, ...takes, ...among, `-d ${quoted(description)}`].join(' ');
}
