"""Facts as tables: bases, licences and targets as rows with a source and a date; dataset cards and suites as files."""
