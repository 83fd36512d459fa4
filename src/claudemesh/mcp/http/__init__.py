"""`claudemesh mcp http`: MCP over streamable HTTP, in a process of its own that holds no key (docs/mcp.md §7)."""
