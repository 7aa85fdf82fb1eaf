/** `docs/errors.md` as the declarations of the error codes say it; documents.test.ts holds the file to it. */
import { ERRORS, type ErrorCode, EXIT } from '../../src/sys/error-codes.ts';

const row = (
  code: string,
  { meaning, remedy, exit = 'failed', status }: (typeof ERRORS)[ErrorCode],
): string => `| \`${code}\` | ${EXIT[exit]} | ${status ?? '–'} | ${meaning} | ${remedy} |`;

export function errorsDocument(): string {
  const rows = Object.entries(ERRORS)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, declaration]) => row(code, declaration));
  return `# Error codes

Every error of Aerostat has a code that stays the same: the API sends it in the field \`code\` of its problem documents,
commands print it with \`--json\`, and programs that use the library find it in \`error.code\`. *Exit* is the exit code of a
command that ends with the error, *HTTP* the status of a request that is refused with it (500 where none is given).

This page is made from the declarations in \`src/sys/error-codes.ts\` by \`npx vitest run test/documents.test.ts -u\`.

| code | exit | HTTP | what happened | what to do |
|---|---|---|---|---|
${rows.join('\n')}
`;
}
