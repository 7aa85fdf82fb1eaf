// `npm run aerostat -- WORDS`: builds what is missing and runs the command line with these words, so that a bare clone
// needs no other step. `npm run demo` and `npm run dashboard` are two of its commands.
import { bootstrap, follow } from './bootstrap.mjs';

bootstrap();
// The options are those of the program's first line.
await follow(process.execPath, ['--v8-pool-size=1', 'bin/aerostat', ...process.argv.slice(2)]);
