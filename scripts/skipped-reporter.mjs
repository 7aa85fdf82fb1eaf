// A vitest reporter that says what was skipped and why: the summary's "1 skipped" must not pass for "passed".
// biome-ignore lint/style/noDefaultExport: vitest takes a reporter from a file by its default export.
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
