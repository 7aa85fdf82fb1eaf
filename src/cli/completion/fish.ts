/** Completion for fish: a line for each word that may stand somewhere. */
import { everyCommand, GUEST_NAMES, isFile, type OutlineCommand, type OutlineOption } from '../outline.ts';

export function fishCompletion(program: OutlineCommand): string {
  const commands = everyCommand(program);
  const below = commands.filter(({ path }) => path !== program.path).map(({ path }) => `'${path}'`);
  return `# fish completion for ${program.name}; aerostat completion fish prints it.
function __${program.name}_at --description 'Whether the line has come to this command'
    set -l at ${program.name}
    for word in (commandline -opc)[2..]
        contains -- "$at $word" ${below.join(' ')}; and set at "$at $word"
    end
    test "$at" = "$argv"
end
function __${program.name}_guests
    ${GUEST_NAMES}
end
complete -c ${program.name} -f
${commands.flatMap(command => linesOf(program.name, command)).join('\n')}
`;
}

const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function linesOf(program: string, { path, options, args, commands }: OutlineCommand): string[] {
  const here = `complete -c ${program} -n ${quoted(`__${program}_at ${path}`)}`;
  return [
    ...commands.map(({ name, description }) => `${here} -a ${name} -d ${quoted(description)}`),
    ...args.flatMap(({ name, choices }) => {
      if (name === 'guest') return [`${here} -a '(__${program}_guests)'`];
      return choices.length > 0 ? [`${here} -a ${quoted(choices.join(' '))}`] : [];
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
