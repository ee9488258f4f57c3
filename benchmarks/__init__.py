"""Speed and memory, each figure with what it is measured against; nothing here runs in the tests but the harness."""
