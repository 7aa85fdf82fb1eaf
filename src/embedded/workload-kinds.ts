/** What an embedded guest can be kept busy with, by name: apart from the commands, which load what checks them. */
export const WORKLOAD_KINDS = ['build', 'churn', 'read', 'touch'] as const;
