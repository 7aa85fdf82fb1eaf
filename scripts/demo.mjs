// `npm run demo`: builds what is missing and shows the demonstration. Options after `--` are passed on.
import { bootstrap, run } from './bootstrap.mjs';

bootstrap();
run(process.execPath, ['bin/aerostat', 'demo', ...process.argv.slice(2)]);
