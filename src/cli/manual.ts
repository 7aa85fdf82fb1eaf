/** The manual page, made from the commands themselves, in the language of man(7). */
import { everyCommand, type OutlineCommand, type OutlineOption } from './outline.ts';

export interface ManualFacts {
  readonly version: string;
  readonly exitCodes: readonly (readonly [code: string, meaning: string])[];
}

export function manualPage(program: OutlineCommand, { version, exitCodes }: ManualFacts): string {
  const name = program.name;
  const commands = everyCommand(program).filter(
    ({ commands: below, path }) => path !== name && below.length === 0,
  );
  return `${[
    `.TH ${name.toUpperCase()} 1 "" "${name} ${version}" "User Commands"`,
    '.SH NAME',
    text(`${name} - serve, see and steer the memory of guests (virtio memory ballooning)`),
    '.SH SYNOPSIS',
    `.B ${name}`,
    text('COMMAND [OPTION]...'),
    '.SH DESCRIPTION',
    text(
      'A host takes back the memory that its guests do not need. The daemon (device) serves balloon devices to virtual machines over vhost-user; the other commands see and steer them through its HTTP API, or guests of QEMU through their monitors.',
    ),
    '.PP',
    text('Sizes are written 512M, 1.5G or 4096 (bytes), durations 500ms, 5s or 1m.'),
    '.SH COMMANDS',
    ...commands.flatMap(command => commandLines(command)),
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(([code, meaning]) => ['.TP', `.B ${code}`, text(meaning)]),
    '.SH ENVIRONMENT',
    ...definition('AEROSTAT_API', 'Where the API is, for what has no --api.'),
    ...definition('AEROSTAT_TOKEN', 'The token itself of an API on TCP, where no --token-file is given.'),
    ...definition('AEROSTAT_DEBUG', 'As --verbose: when something fails, say where.'),
    ...definition('NO_COLOR', 'No colours.'),
    '.SH FILES',
    ...definition('$XDG_RUNTIME_DIR/aerostat/api.sock', 'The API, where --api says nothing else.'),
    ...definition(
      '/etc/aerostat/NAME.conf',
      'Options of the systemd unit aerostat@NAME: OPTIONS=--target=1G',
    ),
    '.SH EXAMPLES',
    ...example('aerostat dashboard', 'Three guests to play with, in a browser.'),
    ...example('aerostat device --socket-path /run/user/1000/vm1.sock', 'Serve a guest.'),
    ...example('aerostat set vm1 --balloon 2G --wait', 'Take two GiB from it.'),
    '.SH SEE ALSO',
    '.BR qemu-system-x86_64 (1),',
    '.BR systemd.unit (5)',
  ].join('\n')}\n`;
}

/** Text, with what troff would take for its own escaped. */
function text(words: string): string {
  const escaped = words.replaceAll('\\', '\\e').replaceAll('-', '\\-');
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

const definition = (term: string, meaning: string): string[] => ['.TP', `.B ${text(term)}`, text(meaning)];
const example = (command: string, meaning: string): string[] => ['.TP', `.B ${text(command)}`, text(meaning)];

function commandLines({ path, description, args, options }: OutlineCommand): string[] {
  const words = args.map(({ name, required }) => (required ? name.toUpperCase() : `[${name.toUpperCase()}]`));
  const head = text([path, ...words].join(' '));
  const sentence = `${description.charAt(0).toUpperCase()}${description.slice(1)}.`;
  const own = options.filter(({ long }) => long !== '--help');
  return [`.SS "${head}"`, text(sentence), ...own.flatMap(optionLines)];
}

function optionLines({ long, short, value, description }: OutlineOption): string[] {
  const names =
    short === undefined ? `\\fB${text(long)}\\fR` : `\\fB${text(short)}\\fR, \\fB${text(long)}\\fR`;
  return ['.TP', value === undefined ? names : `${names} \\fI${text(value)}\\fR`, text(description)];
}
