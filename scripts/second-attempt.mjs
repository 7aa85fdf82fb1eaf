// Which failed test files are run once more, and what came of it. A busy machine can make a test of real programs fail
// that waits for another program; a red run for that alone says nothing of a change. So a few such files get a second
// attempt, alone. What passes only then is named with the reason of its first failure: it is a test to mend.

/** These start daemons, guests, browsers and machines, and wait for them. */
const REAL_PROGRAMS = /^test\/(bench|cli|daemon|demo|embedded|peers|vm|web)\//;
/** A test that says one of these has found harm to a guest's memory, which no second attempt excuses. */
const MEMORY_HARMED = /checksum|digest|corrupt|is lost|stamp/i;
/** More of them are no accident. */
export const SECOND_ATTEMPT_FILES_MAX = 3;

const failedTests = suite => suite.assertionResults.filter(({ status }) => status === 'failed');

/** A file that broke outside of its tests has a message of its own. */
const reasonsOf = suite => [
  ...(suite.message ? [suite.message] : []),
  ...failedTests(suite).flatMap(({ failureMessages }) => failureMessages ?? []),
];

/** The names of the failed files of vitest's JSON results if all of them may be run once more, else none. */
export function worthASecondAttempt(suites) {
  const failed = suites.filter(({ status }) => status === 'failed');
  const forgivable =
    failed.length <= SECOND_ATTEMPT_FILES_MAX &&
    failed.every(suite => REAL_PROGRAMS.test(suite.name) && !MEMORY_HARMED.test(reasonsOf(suite).join('\n')));
  return forgivable ? failed.map(({ name }) => name) : [];
}

/** How many tests passed only at the second attempt, and a line for each. */
export function onlyAtSecondAttempt(suites, secondSuites) {
  const lines = [];
  let passed = 0;
  for (const suite of suites.filter(({ status }) => status === 'failed')) {
    const second = secondSuites.find(({ name }) => name === suite.name);
    const before = new Map(suite.assertionResults.map(({ fullName, status }) => [fullName, status]));
    const now = (second?.assertionResults ?? []).filter(
      ({ fullName, status }) => status === 'passed' && before.get(fullName) !== 'passed',
    );
    passed += now.length;
    for (const { fullName } of now) {
      const first = suite.assertionResults.find(test => test.fullName === fullName)?.failureMessages?.[0];
      const why = (first ?? suite.message ?? 'it did not run').split('\n')[0];
      lines.push(`passed only at the second attempt: ${suite.name}: ${fullName} (first: ${why})`);
    }
  }
  return { passed, lines };
}
