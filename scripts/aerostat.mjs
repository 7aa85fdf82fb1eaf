// `npm run aerostat -- WORDS`: builds what is missing and runs the command line with these words, so that a bare clone
// needs no other step. `npm run demo` and `npm run dashboard` are two of its commands.
import { bootstrap, follow } from './bootstrap.mjs';

bootstrap();
await follow(process.execPath, ['bin/aerostat', ...process.argv.slice(2)]);
