// A vitest reporter that says what was skipped and why: the summary's "1 skipped" must not pass for "passed".
export default class SkippedReporter {
  onTestRunEnd(modules) {
    for (const module of modules) {
      for (const test of module.children.allTests('skipped')) {
        const { note } = test.result();
        console.log(`skipped: ${module.relativeModuleId}: ${test.fullName}${note ? `: ${note}` : ''}`);
      }
    }
  }
}
